"""Reuse distances and the optimum, against simulations that try everything."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from forwardscope import TraceEvent
from forwardscope.analysis.curve import SHARES, curve_of, optimum_at, sizes_to_show
from forwardscope.analysis.optimum import optimal_hits
from forwardscope.analysis.reuse import NEVER, IntArray, lookups_of, previous, reuse_distances
from forwardscope.core.cache import MISS, ForwardCache

from .conftest import MakeEvent

questions = st.lists(st.integers(0, 7), max_size=60)


def numbers(asked: list[int]) -> IntArray:
    return np.asarray(asked, dtype=np.int64)


def simulated(asked: list[int], size: int) -> list[bool]:
    """What a least-recently-used cache answers, by having one."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = []
    for question in asked:
        hits.append(question in cache)
        cache[question] = None
        cache.move_to_end(question)
        if len(cache) > size:
            cache.popitem(last=False)
    return hits


def most(asked: list[int], size: int) -> int:
    """The most hits that any policy can have, by trying all of them."""
    best: dict[frozenset[int], int] = {frozenset(): 0}
    for question in asked:
        after: dict[frozenset[int], int] = {}
        for kept, hits in best.items():
            now = hits + (question in kept)
            choices = {kept}
            if question not in kept:
                room = [kept] if len(kept) < size else [kept - {one} for one in kept]
                choices |= {some | {question} for some in room}
            for choice in choices:
                after[choice] = max(now, after.get(choice, 0))
        best = after
    return max(best.values())


@given(questions)
def test_distances_are_numbers_of_other_questions(asked: list[int]) -> None:
    """Between a question and its last time, each other question counts once."""
    expected, last = [], dict[int, int]()
    for place, question in enumerate(asked):
        before = last.get(question)
        expected.append(NEVER if before is None else len(set(asked[before + 1 : place])))
        last[question] = place
    assert reuse_distances(numbers(asked)).tolist() == expected


@given(questions, st.integers(1, 9))
def test_a_distance_says_what_a_cache_answers(asked: list[int], size: int) -> None:
    """At every size, lookup by lookup, as a simulation has it."""
    distances = reuse_distances(numbers(asked))
    assert ((distances != NEVER) & (distances < size)).tolist() == simulated(asked, size)


@given(questions, st.integers(1, 9))
def test_it_is_what_our_own_cache_answers(asked: list[int], size: int) -> None:
    """`ForwardCache` is that cache."""
    cache, hits = ForwardCache(size), []
    for question in asked:
        hits.append(cache.get((question,)) is not MISS)
        cache.put((question,), None)
    distances = reuse_distances(numbers(asked))
    assert ((distances != NEVER) & (distances < size)).tolist() == hits


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_no_policy_beats_the_optimum(asked: list[int], size: int) -> None:
    """It has just the most hits that there can be."""
    assert optimal_hits(previous(numbers(asked)), size).sum() == most(asked, size)


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_the_optimum_of_a_long_trace(size: int) -> None:
    """Where many questions were held and asked meanwhile, the choice is the same."""
    before = previous(np.random.default_rng(3).integers(0, 60, 2000))
    kept = before != NEVER
    held: dict[int, int] = {}  # when each is asked again, by when it was asked last
    after = {int(one): place for place, one in enumerate(before) if one != NEVER}
    for place in range(before.size):
        held.pop(int(before[place]), None)
        if place in after:
            held[place] = after[place]
        if len(held) > size:
            last = max(held, key=held.__getitem__)
            kept[held.pop(last)] = False
    assert optimal_hits(before, size).tolist() == kept.tolist()


@given(questions, st.integers(1, 9))
def test_the_optimum_holds_no_more_than_its_size(asked: list[int], size: int) -> None:
    """Of the stretches over which it holds something, no more overlap anywhere."""
    before = previous(numbers(asked))
    hits = optimal_hits(before, size)
    held = np.zeros(len(asked) + 1, dtype=int)
    for place in np.flatnonzero(hits):
        held[before[place] : place] += 1
    assert held.max() <= size


@given(questions)
def test_a_curve_is_the_simulation_at_every_size(asked: list[int]) -> None:
    """Its hits, and those of the optimum, which is nowhere worse; beyond the last, the last."""
    curve = curve_of(_event(str(question)) for question in asked)
    for size in range(curve.largest + 3):
        assert curve.at(size).hits == sum(simulated(asked, size)) * (size > 0)
        (best,) = optimum_at(curve, [size])
        assert curve.at(size).hits <= best.hits <= curve.hits[-1]
    repeats = len(asked) - len(set(asked))
    assert curve.hits[-1] == repeats
    for share in SHARES:
        size = curve.worth(share)
        assert curve.at(size).hits >= share * repeats
        assert size == 0 or curve.at(size - 1).hits < share * repeats


@given(questions)
def test_sizes_to_show_are_those_of_the_curve(asked: list[int]) -> None:
    """From 1 to the last, in order, no more than asked for, and those worth having."""
    curve = curve_of(_event(str(question)) for question in asked)
    sizes = sizes_to_show(curve, most=5)
    assert len(sizes) <= 5
    assert all(one < other for one, other in pairwise(sizes))
    if curve.largest:
        assert sizes[0] == 1
        assert sizes[-1] == curve.largest
        assert {curve.worth(share) for share in SHARES} <= set(sizes)
    else:
        assert sizes == []


def test_seconds_are_those_of_a_pass_of_the_op_and_view(event: MakeEvent) -> None:
    """A hit saves what a pass of its op and view took on average."""
    curve = curve_of(
        [
            event("a", wall_ms=100.0),
            event("b", wall_ms=300.0),
            event("a", hit=True),
            event("a", view_id="ft", wall_ms=5000.0),
            event("a", view_id="ft", hit=True),
            event("a", op="logprob_of", hit=True),
            event("a", op="logprob_of", hit=True),
        ]
    )
    assert (curve.at(1).hits, curve.at(1).saved_s) == (2, pytest.approx(5.0))
    assert (curve.at(2).hits, curve.at(2).saved_s) == (3, pytest.approx(5.2))
    assert curve.lookups.hits == 4
    (best,) = optimum_at(curve, [2])
    assert (best.hits, best.saved_s) == (3, pytest.approx(5.2))


def test_what_makes_a_question(event: MakeEvent) -> None:
    """View, op, prompt and top_k; who asks is nothing to the cache."""
    others = [{"view_id": "ft"}, {"op": "logprob_of"}, {"top_k": 9}, {"prompt": "b"}]
    asked = [event(), *(event(**other) for other in others), event(probe="q")]
    assert lookups_of(asked).questions.tolist() == [0, 1, 2, 3, 4, 0]


def test_failed_lookups_do_not_count(event: MakeEvent) -> None:
    """Nothing of them was kept, so what is asked after them is asked for the first time."""
    asked = [event("a", error="ValueError"), event("a"), event("a", hit=True)]
    assert reuse_distances(lookups_of(asked).questions).tolist() == [NEVER, 0]


def test_each_run_begins_with_an_empty_cache(event: MakeEvent) -> None:
    """Also where two runs have written into one file at the same time."""
    asked = [
        event(prompt, run_id=run)
        for prompt, run in (("a", "1"), ("a", "2"), ("b", "2"), ("a", "1"), ("a", "2"))
    ]
    assert reuse_distances(lookups_of(asked).questions).tolist() == [NEVER, 0, NEVER, NEVER, 1]


def test_nothing_asked_twice_has_no_sizes(event: MakeEvent) -> None:
    """Neither has nothing at all."""
    for asked in ([], [event("a"), event("b")]):
        curve = curve_of(asked)
        assert (curve.total, curve.largest, curve.hits.tolist()) == (len(asked), 0, [0])
        assert sizes_to_show(curve) == []


def _event(prompt: str) -> TraceEvent:
    return TraceEvent(1.0, "p", "base", prompt, 8, "next_token_dist", 1.0, False)
