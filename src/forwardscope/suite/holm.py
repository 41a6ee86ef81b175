"""Correction of p-values for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are corrected for their number, by Holm's step-down method.

    The smallest of m values is multiplied by m, the next one by m - 1, and so on; no corrected
    value is smaller than that of a smaller p, nor larger than 1. To call those below 0.05
    different is wrong about any of them with a probability of at most 5 %, however the
    comparisons depend on each other.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian
    Journal of Statistics 6 (1979), 65-70.

    Args:
        p_values: Each between 0 and 1.

    Returns:
        The corrected values, in the same order.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
