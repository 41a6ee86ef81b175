"""Reasons of misses in a trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given

from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.analysis.why import Miss, Reason, explain, miss_line, reason_line

from .conftest import MakeEvent

E = "next_token_dist, top_k 8"


def miss_of(events: list[TraceEvent], number: int) -> Miss:
    """Return the miss with a number."""
    (found,) = explain(events, number=number)
    assert found.number == number
    return found


def test_first_lookup_of_a_prompt(event: MakeEvent) -> None:
    """Earlier lookups had other prompts."""
    found = miss_of([event("b"), event("b", hit=True), event("a", probe=None)], 2)
    assert (found.reason, found.distance, list(found.elsewhere)) == (Reason.FIRST, None, [])
    assert miss_line(found) == f"miss 2: (outside) on base, prompt a ({E}), 100.0 ms"
    assert reason_line(found) == "first lookup of this prompt"


def test_first_lookup_with_a_view_op_and_top_k(event: MakeEvent) -> None:
    """Each other combination of earlier lookups is listed once, by what differs."""
    others = [
        event(view_id="ft"),
        event(view_id="ft", hit=True),
        event(top_k=9),
        event(op="logprob_of", top_k=0),
    ]
    found = miss_of([*others, event()], 4)
    assert found.reason is Reason.ELSEWHERE
    assert reason_line(found) == (
        "first lookup of this prompt with this view, op and top_k; it was looked up before on "
        "ft, base (next_token_dist, top_k 9), base (logprob_of)"
    )


def test_many_other_lookups(event: MakeEvent) -> None:
    """A miss has the first hundred of them, so that all misses of a prompt fit into memory."""
    found = list(explain([event(view_id=f"v{n}") for n in range(300)], prompt_hash="a"))
    assert [len(one.elsewhere) for one in found] == [*range(100), *[100] * 200]
    assert [other.view_id for other in found[-1].elsewhere] == [f"v{n}" for n in range(100)]


def test_after_a_failed_pass(event: MakeEvent) -> None:
    """The reason is the failure of the previous lookup."""
    found = miss_of([event(), event(error="ValueError"), event()], 3)
    assert (found.reason, found.failure) == (Reason.FAILED, "ValueError")
    assert "previous equal lookup failed (ValueError)" in reason_line(found)


def test_bypassed(event: MakeEvent) -> None:
    """No cache was asked, and the value is not there for a later lookup."""
    drawn = event(bypassed=True)
    found = miss_of([event(), drawn, drawn, event(hit=True)], 3)
    assert (found.reason, found.distance is None) == (Reason.BYPASSED, False)
    assert reason_line(found).startswith("no cache was asked")
    assert miss_of([drawn, event()], 2).reason is Reason.FIRST


def test_evicted(event: MakeEvent) -> None:
    """The reuse distance is larger than that of any hit."""
    events = [event("a"), event("b"), event("a", hit=True), event("c"), event("d"), event("e")]
    found = miss_of([*events, event("a")], 6)
    assert (found.reason, found.distance, found.farthest) == (Reason.EVICTED, 3, 1)
    assert reason_line(found) == (
        "evicted: 3 other distinct lookups came between this one and the last equal one; the "
        "longest gap of a hit in the run was 1. max_entries 4 would have kept it"
    )


def test_gone_without_eviction_by_count(event: MakeEvent) -> None:
    """A hit had a larger reuse distance."""
    events = [event("a"), event("b"), event("c"), event("a", hit=True)]
    found = miss_of([*events, event("c")], 4)
    assert (found.reason, found.distance, found.farthest) == (Reason.GONE, 1, 2)
    assert reason_line(found) == (
        "not in the cache: 1 other distinct lookup came between this one and the last equal one, "
        "but a hit of the run had a gap of 2. max_entries is large enough; check max_bytes, and "
        "whether the cache was cleared"
    )


def test_without_a_cache(event: MakeEvent) -> None:
    """Without any hit, the reason suggests that the cache was disabled."""
    found = miss_of([event("a"), event("a")], 2)
    assert (found.reason, found.distance, found.farthest) == (Reason.EVICTED, 0, None)
    assert reason_line(found).endswith("the run has no hits; check whether the cache was enabled")


def test_other_runs(event: MakeEvent) -> None:
    """Other runs with the prompt are counted; misses are numbered over the whole file."""
    events = [
        event("a", run_id="1"),
        event("a", run_id="2"),
        event("b", run_id="2"),
        event("b", run_id="1"),
        event("a", run_id="3"),
    ]
    found = miss_of(events, 5)
    assert (found.reason, found.runs_before) == (Reason.FIRST, 2)
    assert reason_line(found).endswith(
        "; 2 other runs looked the prompt up earlier, in another cache"
    )
    assert miss_of(events, 4).runs_before == 1


def test_all_misses_of_a_prompt(event: MakeEvent) -> None:
    """Misses are selected by a prefix of the prompt hash; failed lookups are misses."""
    events = [
        event("abc1"),
        event("abd"),
        event("abc1", view_id="ft", error="ValueError"),
        event("abc1", hit=True),
        event("abc1", view_id="ft"),
    ]
    found = list(explain(events, prompt_hash="abc"))
    assert [(one.number, one.reason) for one in found] == [
        (1, Reason.FIRST),
        (3, Reason.ELSEWHERE),
        (4, Reason.FAILED),
    ]
    assert list(explain(events, prompt_hash="x")) == []
    assert list(explain(events, number=5)) == []


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 5))
def test_misses_of_a_real_cache(prompts: list[int], size: int) -> None:
    """The first miss of each prompt is `first`, and all others are `evicted`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.jsonl")
        backend = BackendInstrumentation(cache_maxsize=size, trace_path=path)
        for prompt in prompts:
            backend.cached("op", "base", str(prompt), 8, lambda: 1)
        backend.close()
        events = list(TraceReader(path))
    seen: set[str] = set()
    for number, event in enumerate((event for event in events if not event.hit), 1):
        found = miss_of(events, number)
        repeated = event.prompt_hash in seen
        seen.add(event.prompt_hash)
        assert found.reason is (Reason.EVICTED if repeated else Reason.FIRST)
        if repeated:
            assert found.distance is not None
            assert found.distance >= size > (-1 if found.farthest is None else found.farthest)


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_trace_that_changes_between_two_reads(first: int, second: int) -> None:
    """Only misses that are there at both reads are explained."""

    class Changing:
        reads = 0

        def __iter__(self) -> Iterator[TraceEvent]:
            self.reads += 1
            for n in range(first if self.reads == 1 else second):
                error = "ValueError" if n % 3 == 0 else None
                yield TraceEvent(
                    n + 1.0, "p", "base", "ab"[n % 2], 8, "op", 1.0, False, error=error
                )

    found = list(explain(Changing(), prompt_hash="a"))
    assert [miss.number for miss in found] == list(range(1, min(first, second) + 1, 2))
