"""All misses of a trace by their reasons."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardscope.analysis.causes import cause_lines, causes_of, causes_table
from forwardscope.analysis.tables import as_dicts
from forwardscope.analysis.why import Reason, explain
from forwardscope.trace import TraceEvent

MakeEvent = Callable[..., TraceEvent]

LOOKUPS = st.lists(
    st.tuples(
        st.sampled_from("abcdxyz"),
        st.sampled_from(["base", "ft"]),
        st.booleans(),
        st.sampled_from(["run", None]),
    ),
    max_size=40,
)


@given(LOOKUPS)
def test_the_reasons_are_those_of_each_miss(
    lookups: list[tuple[str, str, bool, str | None]],
) -> None:
    """The counts are what `explain` says of one miss after the other.

    Some prompts always fail, and one always bypasses the cache, after it was kept or not.
    """
    marks = {"x": {"error": "Error"}, "y": {"error": "Error"}, "z": {"bypassed": True}}
    events = [
        TraceEvent(
            *(1.0, "p", view, prompt, 8, "next_token_dist", 1.0, hit and prompt not in marks),
            run_id=run,
            **(marks.get(prompt, {}) if not (prompt == "z" and hit) else {}),  # type: ignore[arg-type]
        )
        for prompt, view, hit, run in lookups
    ]
    misses = sum(not one.hit for one in events)
    one_by_one = [next(iter(explain(events, number=n))) for n in range(1, misses + 1)]
    causes = causes_of(events)
    assert Counter({(one.reason, one.view_id): one.misses for one in causes}) == Counter(
        (miss.reason, miss.event.view_id) for miss in one_by_one
    )
    for cause in causes:
        of_cause = [
            miss
            for miss in one_by_one
            if (miss.reason, miss.event.view_id) == (cause.reason, cause.view_id)
        ]
        assert cause.first == of_cause[0].number
        if cause.reason is Reason.EVICTED:
            assert cause.enough == max((miss.distance or 0) + 1 for miss in of_cause)


def test_a_lookup_whose_last_pass_failed(event: MakeEvent) -> None:
    """It is no eviction: there was no value."""
    events = [event("a", error="RuntimeError"), event("a"), event("a", hit=True), event("a")]
    reasons = [(one.reason, one.misses) for one in causes_of(events)]
    assert reasons == [(Reason.FIRST, 1), (Reason.FAILED, 1), (Reason.GONE, 1)]


def test_the_table_and_what_to_do(event: MakeEvent) -> None:
    """Time and number of the first miss of each row; a line for each reason that occurs."""
    events = [event(name, wall_ms=500.0) for name in ("a", "b", "c", "a")]
    causes = causes_of(events)
    first, evicted = as_dicts(causes_table(causes))
    assert (first["misses"], first["forward_s"], first["first"]) == (3, 1.5, 1)
    assert (evicted["reason"], evicted["first"], evicted["enough"]) == ("evicted", 4, 3)
    lines = list(cause_lines(causes))
    assert len(lines) == 2
    assert lines[1].endswith(
        "max_entries 3 would have kept them all; a run had no hits at all: check whether the cache "
        "was enabled"
    )


def test_a_small_cache(event: MakeEvent) -> None:
    """A run with a hit had a cache."""
    events = [event("a"), event("a", hit=True), event("b"), event("a")]
    *_, evicted = cause_lines(causes_of(events))
    assert evicted.endswith("max_entries 2 would have kept them all")


def test_no_miss(event: MakeEvent) -> None:
    """A trace of hits has no cause."""
    assert causes_of([event("a", hit=True)]) == []


def test_a_run_without_hits(event: MakeEvent) -> None:
    """It may have had no cache, which a larger one would not help."""
    events = [event(name, run_id="off") for name in "aba"]
    said = "a run had no hits at all: check whether the cache was enabled"
    assert said in list(cause_lines(causes_of(events)))[-1]
    with_hits = [*events, event("a", hit=True, run_id="off")]
    assert said not in list(cause_lines(causes_of(with_hits)))[-1]


@pytest.mark.parametrize("runs", [1, 20_000])
@pytest.mark.parametrize("prompts", [1, 20_000])
def test_memory_is_bounded(event: MakeEvent, runs: int, prompts: int) -> None:
    """There is a row for each reason, probe and view, and less than a kilobyte for each lookup."""
    total = 20_000
    events = (event(str(n % prompts), run_id=str(n % runs)) for n in range(total))
    tracemalloc.start()
    try:
        causes = causes_of(events)
        assert tracemalloc.get_traced_memory()[1] < total * 700
    finally:
        tracemalloc.stop()
    assert len(causes) <= 2
    assert sum(one.misses for one in causes) == total
