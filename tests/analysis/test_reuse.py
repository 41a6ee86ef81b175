"""Reuse distances, curves and the optimum, compared with exhaustive simulations."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from forwardscope import TraceEvent
from forwardscope.analysis.curve import SHARES, curve_of, optimum_at, representative_sizes
from forwardscope.analysis.optimum import optimal_hits
from forwardscope.analysis.reuse import NEVER, IntArray, lookups_of, previous, reuse_distances
from forwardscope.core.cache import MISS, ForwardCache

from .conftest import MakeEvent

keys = st.lists(st.integers(0, 7), max_size=60)


def numbers(lookups: list[int]) -> IntArray:
    return np.asarray(lookups, dtype=np.int64)


def simulated(lookups: list[int], size: int) -> list[bool]:
    """Return which lookups are hits in a `ForwardCache` of a size."""
    cache, hits = ForwardCache(size), []
    for key in lookups:
        hits.append(cache.get((key,)) is not MISS)
        cache.put((key,), None)
    return hits


def most_hits(lookups: list[int], size: int) -> int:
    """Return the most hits of any policy, by trying all policies."""
    best: dict[frozenset[int], int] = {frozenset(): 0}
    for key in lookups:
        after: dict[frozenset[int], int] = {}
        for entries, hits in best.items():
            now = hits + (key in entries)
            choices = {entries}
            if key not in entries:
                room = [entries] if len(entries) < size else [entries - {one} for one in entries]
                choices |= {some | {key} for some in room}
            for choice in choices:
                after[choice] = max(now, after.get(choice, 0))
        best = after
    return max(best.values())


@given(keys)
def test_distances_count_distinct_lookups(lookups: list[int]) -> None:
    """Each other distinct lookup since the previous equal one counts once."""
    expected, last = [], dict[int, int]()
    for place, key in enumerate(lookups):
        before = last.get(key)
        expected.append(NEVER if before is None else len(set(lookups[before + 1 : place])))
        last[key] = place
    assert reuse_distances(numbers(lookups)).tolist() == expected


@given(keys, st.integers(1, 9))
def test_distances_determine_the_hits(lookups: list[int], size: int) -> None:
    """A lookup is a hit if and only if its distance is below the cache size."""
    distances = reuse_distances(numbers(lookups))
    assert ((distances != NEVER) & (distances < size)).tolist() == simulated(lookups, size)


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_no_policy_beats_the_optimum(lookups: list[int], size: int) -> None:
    """The optimum has as many hits as the best of all policies."""
    assert optimal_hits(previous(numbers(lookups)), size).sum() == most_hits(lookups, size)


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_the_optimum_of_a_long_trace(size: int) -> None:
    """The optimum's choice equals that of a simple implementation without a heap."""
    before = previous(np.random.default_rng(3).integers(0, 60, 2000))
    hits = before != NEVER
    intervals: dict[int, int] = {}  # next lookup by previous lookup
    after = {int(one): place for place, one in enumerate(before) if one != NEVER}
    for place in range(before.size):
        intervals.pop(int(before[place]), None)
        if place in after:
            intervals[place] = after[place]
        if len(intervals) > size:
            last = max(intervals, key=intervals.__getitem__)
            hits[intervals.pop(last)] = False
    assert optimal_hits(before, size).tolist() == hits.tolist()


@given(keys, st.integers(1, 9))
def test_the_optimum_respects_the_size(lookups: list[int], size: int) -> None:
    """At no time does it have more entries than its size."""
    before = previous(numbers(lookups))
    hits = optimal_hits(before, size)
    intervals = np.zeros(len(lookups) + 1, dtype=int)
    for place in np.flatnonzero(hits):
        intervals[before[place] : place] += 1
    assert intervals.max() <= size


@given(keys)
def test_a_curve_is_the_simulation_at_every_size(lookups: list[int]) -> None:
    """The optimum has at least as many hits; above the largest size nothing changes."""
    curve = curve_of(_event(str(key)) for key in lookups)
    for size in range(curve.largest + 3):
        assert curve.at(size).hits == (sum(simulated(lookups, size)) if size else 0)
        (best,) = optimum_at(curve, [size])
        assert curve.at(size).hits <= best.hits <= curve.hits[-1]
    repeats = len(lookups) - len(set(lookups))
    assert curve.hits[-1] == repeats
    for share in SHARES:
        size = curve.smallest_size(share)
        assert curve.at(size).hits >= share * repeats
        assert size == 0 or curve.at(size - 1).hits < share * repeats


@given(keys)
def test_representative_sizes(lookups: list[int]) -> None:
    """The sizes increase from 1 to the largest, within the limit, and include those of `SHARES`."""
    curve = curve_of(_event(str(key)) for key in lookups)
    sizes = representative_sizes(curve, most=5)
    assert len(sizes) <= 5
    assert all(one < other for one, other in pairwise(sizes))
    if curve.largest:
        assert sizes[0] == 1
        assert sizes[-1] == curve.largest
        assert {curve.smallest_size(share) for share in SHARES} <= set(sizes)
    else:
        assert sizes == []


def test_saved_time(event: MakeEvent) -> None:
    """A hit saves the mean of equal passes, or without any that of its op and view, or its op."""
    curve = curve_of(
        [
            event("a", wall_ms=100.0),
            event("b", wall_ms=300.0),
            event("a", hit=True),
            event("c", hit=True),
            event("c", hit=True),
            event("a", view_id="ft", wall_ms=5000.0),
            event("a", view_id="ft", hit=True),
            event("a", op="logprob_of", hit=True),
            event("a", op="logprob_of", hit=True),
            event("a", op="rolling", view_id="ft", wall_ms=700.0),
            event("a", op="rolling", hit=True),
            event("a", op="rolling", hit=True),
        ]
    )
    assert (curve.at(1).hits, curve.at(1).saved_s) == (4, pytest.approx(5.9))
    assert (curve.at(2).hits, curve.at(2).saved_s) == (5, pytest.approx(6.0))
    assert curve.lookups.hits == 8
    (best,) = optimum_at(curve, [2])
    assert (best.hits, best.saved_s) == (5, pytest.approx(6.0))


def test_equal_lookups(event: MakeEvent) -> None:
    """Lookups are equal by view, op, prompt and top_k, in any probe."""
    others = [{"view_id": "ft"}, {"op": "logprob_of"}, {"top_k": 9}, {"prompt": "b"}]
    lookups = [event(), *(event(**other) for other in others), event(probe="q")]
    assert lookups_of(lookups).key_ids.tolist() == [0, 1, 2, 3, 4, 0]


def test_failed_lookups_do_not_count(event: MakeEvent) -> None:
    """The lookup after a failed one is the first of its key."""
    lookups = [event("a", error="ValueError"), event("a"), event("a", hit=True)]
    assert reuse_distances(lookups_of(lookups).key_ids).tolist() == [NEVER, 0]


def test_each_run_starts_with_an_empty_cache(event: MakeEvent) -> None:
    """Runs share no entries, also if they are interleaved in one file."""
    lookups = [
        event(prompt, run_id=run)
        for prompt, run in (("a", "1"), ("a", "2"), ("b", "2"), ("a", "1"), ("a", "2"))
    ]
    assert reuse_distances(lookups_of(lookups).key_ids).tolist() == [NEVER, 0, NEVER, NEVER, 1]


def test_curve_without_repeated_lookups(event: MakeEvent) -> None:
    """The curve has no hits and no sizes."""
    for lookups in ([], [event("a"), event("b")]):
        curve = curve_of(lookups)
        assert (curve.total, curve.largest, curve.hits.tolist()) == (len(lookups), 0, [0])
        assert representative_sizes(curve) == []


def _event(prompt: str) -> TraceEvent:
    return TraceEvent(1.0, "p", "base", prompt, 8, "next_token_dist", 1.0, False)
