"""Percentile bootstrap of a mean.

(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["bootstrap_interval"]

_RESAMPLES: Final = 2000
#: Maximum indices drawn at a time, of 8 bytes each.
_CHUNK: Final = 1 << 20


def bootstrap_interval(
    values: Sequence[float], seed: int, weights: Sequence[float] | None = None
) -> tuple[float, float] | None:
    """Return the 2.5th and 97.5th percentile of resampled means; None for fewer than 2 values.

    Args:
        values: The sample.
        seed: Seed of the draws.
        weights: Weight of each value in the mean, not negative; by default all are equal. A
            resample whose weights are all 0 has the mean 0.
    """
    if len(values) < 2:
        return None
    sample, rng = np.asarray(values), np.random.default_rng(seed)
    rows = max(1, _CHUNK // sample.size)  # chunks of whole rows give the values of one draw
    means = []
    for done in range(0, _RESAMPLES, rows):
        drawn = rng.integers(0, sample.size, (min(rows, _RESAMPLES - done), sample.size))
        means.append(_means(sample[drawn], None if weights is None else np.asarray(weights)[drawn]))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _means(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Return the mean of each row."""
    if weights is None:
        return np.asarray(values.mean(1))
    totals = weights.sum(1)
    return np.asarray((values * weights).sum(1) / np.where(totals > 0, totals, 1.0))
