"""The plan of which prompts compute a shared prefix and which reuse it."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from forwardscope.backends.hf.prefixes import Ids, Part, common_prefix, plan

sequences = st.lists(st.lists(st.integers(0, 1), max_size=12), max_size=8)


def _ids(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int64)


def _all(texts: list[list[int]]) -> list[Ids]:
    return [_ids(*text) for text in texts]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix_is_the_longest(one: list[int], other: list[int]) -> None:
    """The first n tokens are equal, and the next ones differ."""
    n = common_prefix(_ids(*one), _ids(*other))
    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]


@given(sequences, sequences, st.integers(1, 6))
def test_reused_prefixes_are_computed_before(
    texts: list[list[int]], stored: list[list[int]], step: int
) -> None:
    """Each prompt is in one part, and an earlier part computed the prefix that it reuses."""
    computed = [list(one) for one in stored]
    parts = plan(_all(texts), _all(stored), step)
    assert sorted(index for part in parts for index in part.indices) == list(range(len(texts)))
    for part in parts:
        for index in part.indices:
            start = texts[index][: part.prefix]
            assert len(start) == part.prefix
            assert not start or any(one[: part.prefix] == start for one in computed)
        if part.is_lead:
            assert len(part.indices) == 1
            computed.append(texts[part.indices[0]])


@given(sequences, sequences, st.integers(1, 6))
def test_each_part_saves_at_least_the_cost_of_a_batch(
    texts: list[list[int]], stored: list[list[int]], step: int
) -> None:
    """Parts that reuse tokens save a batch's cost; all prompts without reuse are in one part."""
    parts = [part for part in plan(_all(texts), _all(stored), step) if not part.is_lead]
    assert all(part.prefix * len(part.indices) >= step for part in parts if part.prefix)
    assert sum(part.prefix == 0 for part in parts) <= 1


def test_the_prompt_with_the_longest_filler_is_the_lead() -> None:
    """It computes the filler, and each other prompt reuses as much of it as it contains."""
    texts = [[*[0] * n, 1, word] for n in (0, 20, 40) for word in (5, 6, 7)]
    parts = plan(_all(texts), [], 10)
    assert parts[0] == Part((6,), 0, is_lead=True)
    others = {index: part.prefix for part in parts[1:] for index in part.indices}
    assert others == {0: 0, 1: 0, 2: 0, 3: 20, 4: 20, 5: 20, 7: 41, 8: 41}


def test_nested_prefixes_have_one_lead() -> None:
    """Prompts reuse prefixes of different lengths from the same lead."""
    first, second = [1] * 30, [2] * 30
    texts = [[*first, *second, word] for word in (5, 6, 7)] + [[*first, word] for word in (5, 6)]
    parts = plan(_all(texts), [], 10)
    assert parts[0] == Part((0,), 0, is_lead=True)
    assert set(parts[1:]) == {Part((1, 2), 60), Part((3, 4), 30)}


def test_a_lead_reuses_an_earlier_lead() -> None:
    """Prompts that share more with each other than with the longest have a second lead."""
    first = [1] * 30
    texts = [[*first, *[2] * 60]] + [[*first, *[3] * 30, word] for word in (5, 6, 7)]
    assert plan(_all(texts), [], 10) == [
        Part((0,), 0, is_lead=True),
        Part((1,), 30, is_lead=True),
        Part((2, 3), 60),
    ]


def test_a_stored_prefix_needs_no_lead() -> None:
    """A later call reuses the prefix that an earlier call stored."""
    texts = [[*[1] * 30, word] for word in (5, 6, 7)]
    assert plan(_all(texts), [_ids(*[1] * 30, 9, 9)], 10) == [Part((0, 1, 2), 30)]


def test_short_prompts_stay_together() -> None:
    """Their shared prefix saves less than another batch costs."""
    texts = [[1, 1, word] for word in range(8)]
    assert plan(_all(texts), [], 64) == [Part(tuple(range(8)), 0)]


def test_empty_plans() -> None:
    """No prompts give no parts, and an empty prompt reuses nothing."""
    assert plan([], [_ids(1, 2)], 10) == []
    assert plan([_ids()], [_ids(1, 2)], 10) == [Part((0,), 0)]


def test_followers_come_right_after_their_lead() -> None:
    """A lead's keys and values are used before another lead can take their place."""
    texts = [[*[start] * 40, word] for start in (1, 2) for word in (5, 6, 7)]
    parts = plan([_ids(*text) for text in texts], [], 10)
    assert [part.is_lead for part in parts] == [True, False, True, False]
    assert [{texts[index][0] for index in part.indices} for part in parts] in (
        [{1}, {1}, {2}, {2}],
        [{2}, {2}, {1}, {1}],
    )
