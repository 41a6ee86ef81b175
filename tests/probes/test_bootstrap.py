"""The percentile bootstrap of a mean."""

from __future__ import annotations

import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from forwardscope.probes.bootstrap import bootstrap_interval


def test_interval_is_of_resampled_means() -> None:
    """It contains the central 95 % of the resampled means."""
    assert bootstrap_interval([0.0, 1.0], seed=0) == (0.0, 1.0)
    low, high = bootstrap_interval([0.0, 1.0] * 200, seed=0) or (0.0, 0.0)
    # the deviation of a mean of 400 fair coins is 0.025
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


@pytest.mark.parametrize("n", [2, 600, 5001])
def test_interval_is_that_of_one_draw(n: int) -> None:
    """Drawing in chunks changes no value."""
    values = np.random.default_rng(n).random(n)
    drawn = np.random.default_rng(7).integers(0, n, (2000, n))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    assert bootstrap_interval(values.tolist(), seed=7) == (low, high)


def test_memory_of_the_interval_is_bounded() -> None:
    """It does not grow with 2000 indices a value, which would be 320 MB here."""
    tracemalloc.start()
    try:
        bootstrap_interval([0.0, 1.0] * 10_000, seed=0)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


@given(st.lists(st.floats(0, 10), min_size=2, max_size=8), st.integers(0, 2**32))
def test_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    """An interval is within the smallest and the largest value."""
    interval = bootstrap_interval(values, seed)
    assert interval is not None
    low, high = interval
    assert low <= high
    assert min(values) - 1e-9 <= low
    assert high <= max(values) + 1e-9


def test_weights() -> None:
    """A resampled mean is weighted, so that a value of weight 0 changes nothing."""
    assert bootstrap_interval([1.0, 5.0], 0, [2.0, 0.0]) == (0.0, 1.0)
    values, weights = np.random.default_rng(0).random((2, 9))
    drawn = np.random.default_rng(7).integers(0, 9, (2000, 9))
    means = (values * weights)[drawn].sum(1) / weights[drawn].sum(1)
    expected = tuple(np.percentile(means, [2.5, 97.5]))
    assert bootstrap_interval(values.tolist(), 7, weights.tolist()) == pytest.approx(expected)
