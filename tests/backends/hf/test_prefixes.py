"""The plan of who computes a shared prefix, against what it promises."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from forwardscope.backends.hf.prefixes import Ids, Part, plan, shared

sequences = st.lists(st.lists(st.integers(0, 1), max_size=12), max_size=8)


def _ids(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int64)


def _all(texts: list[list[int]]) -> list[Ids]:
    return [_ids(*text) for text in texts]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_shared_is_the_longest_common_beginning(one: list[int], other: list[int]) -> None:
    """So many tokens are alike, and the next ones are not."""
    n = shared(_ids(*one), _ids(*other))
    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]


@given(sequences, sequences, st.integers(1, 6))
def test_a_plan_can_be_carried_out(
    texts: list[list[int]], kept: list[list[int]], step: int
) -> None:
    """Each prompt is in one part, and what it takes over was computed before."""
    there = [list(one) for one in kept]
    parts = plan(_all(texts), _all(kept), step)
    assert sorted(place for part in parts for place in part.places) == list(range(len(texts)))
    for part in parts:
        for place in part.places:
            start = texts[place][: part.prefix]
            assert len(start) == part.prefix
            assert not start or any(one[: part.prefix] == start for one in there)
        if part.leads:
            assert len(part.places) == 1
            there.append(texts[part.places[0]])


@given(sequences, sequences, st.integers(1, 6))
def test_no_part_costs_more_than_it_saves(
    texts: list[list[int]], kept: list[list[int]], step: int
) -> None:
    """Whoever takes over saves a batch's cost; whoever takes over nothing is in one part."""
    parts = [part for part in plan(_all(texts), _all(kept), step) if not part.leads]
    assert all(part.prefix * len(part.places) >= step for part in parts if part.prefix)
    assert sum(part.prefix == 0 for part in parts) <= 1


def test_the_longest_filler_leads_the_shorter_ones() -> None:
    """One prompt computes the filler, and the others take over as much of it as they have."""
    texts = [[*[0] * n, 1, word] for n in (0, 20, 40) for word in (5, 6, 7)]
    parts = plan(_all(texts), [], 10)
    assert parts[0] == Part((6,), 0, leads=True)
    others = {place: part.prefix for part in parts[1:] for place in part.places}
    assert others == {0: 0, 1: 0, 2: 0, 3: 20, 4: 20, 5: 20, 7: 41, 8: 41}


def test_one_lead_serves_examples_inside_examples() -> None:
    """Whoever shares more takes over more, from the same prompt."""
    first, second = [1] * 30, [2] * 30
    texts = [[*first, *second, word] for word in (5, 6, 7)] + [[*first, word] for word in (5, 6)]
    parts = plan(_all(texts), [], 10)
    assert parts[0] == Part((0,), 0, leads=True)
    assert set(parts[1:]) == {Part((1, 2), 60), Part((3, 4), 30)}


def test_a_lead_takes_over_from_an_earlier_one() -> None:
    """Prompts that share what the longest has not get a lead of their own, which begins there."""
    first = [1] * 30
    texts = [[*first, *[2] * 60]] + [[*first, *[3] * 30, word] for word in (5, 6, 7)]
    assert plan(_all(texts), [], 10) == [
        Part((0,), 0, leads=True),
        Part((1,), 30, leads=True),
        Part((2, 3), 60),
    ]


def test_what_is_kept_already_needs_no_lead() -> None:
    """A later call takes over from an earlier one, and computes its beginnings no more."""
    texts = [[*[1] * 30, word] for word in (5, 6, 7)]
    assert plan(_all(texts), [_ids(*[1] * 30, 9, 9)], 10) == [Part((0, 1, 2), 30)]


def test_short_prompts_stay_together() -> None:
    """What they share is not worth a batch of its own."""
    texts = [[1, 1, word] for word in range(8)]
    assert plan(_all(texts), [], 64) == [Part(tuple(range(8)), 0)]


def test_nothing_to_plan() -> None:
    """No prompts are no parts, and a prompt of which nothing can be taken over is whole."""
    assert plan([], [_ids(1, 2)], 10) == []
    assert plan([_ids()], [_ids(1, 2)], 10) == [Part((0,), 0)]
