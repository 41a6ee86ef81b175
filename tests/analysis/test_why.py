"""Why a lookup missed, as a trace tells it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import given

from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.analysis.why import Miss, Reason, explain, miss_line, reason_line

from .conftest import MakeEvent

E = "next_token_dist, top_k 8"


def the(events: list[TraceEvent], number: int) -> Miss:
    """The one miss of a number."""
    (found,) = explain(events, number=number)
    assert found.number == number
    return found


def test_never_asked(event: MakeEvent) -> None:
    """Nobody had asked about the prompt."""
    found = the([event("b"), event("b", hit=True), event("a", probe=None)], 2)
    assert (found.reason, found.distance, list(found.elsewhere)) == (Reason.FIRST, None, [])
    assert miss_line(found) == f"miss 2: (outside) asked base for a ({E}), 100.0 ms"
    assert reason_line(found) == "nobody had asked about this prompt before"


def test_asked_elsewhere(event: MakeEvent) -> None:
    """Another view, op or top_k is another question; each is named once, by what differs."""
    others = [
        event(view_id="ft"),
        event(view_id="ft", hit=True),
        event(top_k=9),
        event(op="logprob_of", top_k=0),
    ]
    found = the([*others, event()], 4)
    assert found.reason is Reason.ELSEWHERE
    assert reason_line(found) == (
        "the first time here; asked before of ft, base (next_token_dist, top_k 9), "
        "base (logprob_of)"
    )


def test_failed_before(event: MakeEvent) -> None:
    """The last time counts."""
    found = the([event(), event(error="ValueError"), event()], 3)
    assert (found.reason, found.failure) == (Reason.FAILED, "ValueError")
    assert "that pass failed (ValueError)" in reason_line(found)


def test_evicted(event: MakeEvent) -> None:
    """More was asked since than any hit reached back."""
    asked = [event("a"), event("b"), event("a", hit=True), event("c"), event("d"), event("e")]
    found = the([*asked, event("a")], 6)
    assert (found.reason, found.distance, found.farthest) == (Reason.EVICTED, 3, 1)
    assert reason_line(found) == (
        "asked before, 3 other questions ago, and evicted since: no hit of its run reached back "
        "farther than 1; max_entries 4 would have kept it"
    )


def test_gone_otherwise(event: MakeEvent) -> None:
    """Others that were asked longer ago were still there."""
    asked = [event("a"), event("b"), event("c"), event("a", hit=True)]
    found = the([*asked, event("c")], 4)
    assert (found.reason, found.distance, found.farthest) == (Reason.GONE, 1, 2)
    assert "1 other question ago, and hits reached back 2: not for" in reason_line(found)


def test_without_a_cache(event: MakeEvent) -> None:
    """Where nothing hits, that is what is told."""
    found = the([event("a"), event("a")], 2)
    assert (found.reason, found.distance, found.farthest) == (Reason.EVICTED, 0, None)
    assert reason_line(found).endswith("no lookup of its run hit, so see whether its cache was on")


def test_other_runs_have_other_caches(event: MakeEvent) -> None:
    """What they asked is counted, and answers nothing here; numbers go on through the file."""
    asked = [
        event("a", run_id="1"),
        event("a", run_id="2"),
        event("b", run_id="2"),
        event("b", run_id="1"),
        event("a", run_id="3"),
    ]
    found = the(asked, 5)
    assert (found.reason, found.runs_before) == (Reason.FIRST, 2)
    assert reason_line(found).endswith(
        "; 2 other runs in the file had asked, each with its own cache"
    )
    assert the(asked, 4).runs_before == 1


def test_all_misses_of_a_prompt(event: MakeEvent) -> None:
    """By its hash, or how that begins; one that failed is a miss too."""
    asked = [
        event("abc1"),
        event("abd"),
        event("abc1", view_id="ft", error="ValueError"),
        event("abc1", hit=True),
        event("abc1", view_id="ft"),
    ]
    found = list(explain(asked, prompt_hash="abc"))
    assert [(one.number, one.reason) for one in found] == [
        (1, Reason.FIRST),
        (3, Reason.ELSEWHERE),
        (4, Reason.FAILED),
    ]
    assert list(explain(asked, prompt_hash="x")) == []
    assert list(explain(asked, number=5)) == []


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 5))
def test_what_a_cache_evicted_is_told_as_that(prompts: list[int], size: int) -> None:
    """Of a real cache's misses, the first of each prompt is a first one, and others are evicted."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.jsonl")
        backend = BackendInstrumentation(cache_maxsize=size, trace_path=path)
        for prompt in prompts:
            backend.cached("op", "base", str(prompt), 8, lambda: 1)
        backend.close()
        events = list(TraceReader(path))
    seen: set[str] = set()
    for number, event in enumerate((event for event in events if not event.hit), 1):
        found = the(events, number)
        again = event.prompt_hash in seen
        seen.add(event.prompt_hash)
        assert found.reason is (Reason.EVICTED if again else Reason.FIRST)
        if again:
            assert found.distance is not None
            assert found.distance >= size > (-1 if found.farthest is None else found.farthest)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_explained(reason: Reason) -> None:
    """The class says what each means."""
    assert f"{reason}: " in (Reason.__doc__ or "")
