"""Histograms count as a plain list of all observations does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardscope.core.ledger import BATCH_BOUNDS, DURATION_BOUNDS_S, Exemplar, Histogram

BOUNDS = (1.0, 2.5, 10.0)

# halves are exact, so sums are too; the bounds themselves come up often
values = st.sampled_from(BOUNDS) | st.integers(0, 30).map(lambda half: half / 2)
exemplars = st.none() | st.builds(
    Exemplar, trace_id=st.sampled_from(["a" * 32, "b" * 32]), value=values, ts=st.floats(0, 9)
)
observations = st.tuples(values, exemplars)
Observation = tuple[float, Exemplar | None]


def _observed(seen: Sequence[Observation]) -> Histogram:
    histogram = Histogram(BOUNDS)
    for value, exemplar in seen:
        histogram.observe(value, exemplar)
    return histogram


def _within(seen: Sequence[Observation], low: float, high: float) -> list[Observation]:
    return [one for one in seen if low < one[0] <= high]


def _state(histogram: Histogram) -> tuple[object, ...]:
    return (
        tuple(histogram.bounds),
        list(histogram.buckets),
        list(histogram.exemplars),
        histogram.total,
        histogram.count,
    )


@given(seen=st.lists(observations, max_size=40))
def test_it_counts_as_a_list_does(seen: list[Observation]) -> None:
    """Buckets, count, sum and each bucket's latest exemplar are those of the list."""
    histogram = _observed(seen)
    edges = (float("-inf"), *BOUNDS, float("inf"))
    own = [_within(seen, low, high) for low, high in pairwise(edges)]
    assert histogram.buckets == [len(bucket) for bucket in own]
    assert histogram.count == len(seen)
    assert histogram.total == sum(value for value, _ in seen)
    assert histogram.exemplars == [
        next((exemplar for _, exemplar in reversed(bucket) if exemplar is not None), None)
        for bucket in own
    ]


@pytest.mark.parametrize("bounds", [BATCH_BOUNDS, DURATION_BOUNDS_S])
def test_a_bound_belongs_to_its_bucket(bounds: tuple[float, ...]) -> None:
    """Each bound counts in its own bucket, and just above it in the next."""
    for index, bound in enumerate(bounds):
        histogram = Histogram(bounds)
        histogram.observe(bound)
        histogram.observe(bound * 1.0001)
        assert [i for i, n in enumerate(histogram.buckets) if n] == [index, index + 1]
        assert sum(histogram.buckets) == 2


@pytest.mark.parametrize("bounds", [BATCH_BOUNDS, DURATION_BOUNDS_S])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    """Both sets of bounds are strictly ascending, as the search for a bucket needs."""
    assert all(low < high for low, high in pairwise(bounds))


def test_a_new_one_is_empty() -> None:
    """It has one bucket more than bounds, without counts and exemplars."""
    assert _state(Histogram(BOUNDS)) == (BOUNDS, [0] * 4, [None] * 4, 0.0, 0)


def test_an_observation_without_exemplar_keeps_the_one_before() -> None:
    """The exemplar of a bucket is the latest that was given, not the latest value's."""
    exemplar = Exemplar("a" * 32, 2.0, 1.0)
    histogram = Histogram(BOUNDS)
    histogram.observe(2.0, exemplar)
    histogram.observe(2.5)
    assert histogram.exemplars[1] is exemplar


@given(before=st.lists(observations, max_size=10), after=st.lists(observations, max_size=10))
def test_a_copy_is_independent(before: list[Observation], after: list[Observation]) -> None:
    """A later observation in one of the two does not change the other."""
    original = _observed(before)
    copy, again = original.copy(), original.copy()
    at_copy = _state(original)
    assert _state(copy) == at_copy
    for value, exemplar in after:
        original.observe(value, exemplar)
    assert _state(copy) == at_copy
    assert _state(original) == _state(_observed([*before, *after]))
    later = _state(original)
    for value, exemplar in after:
        copy.observe(value, exemplar)
    assert _state(copy) == later
    assert _state(again) == at_copy
