"""Summaries of traces."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.analysis.summary import summarize
from forwardscope.core.series import Counts, SeriesKey

from .conftest import MakeEvent

_DATA = Path(__file__).parents[1] / "data" / "dlm_sway_trace.jsonl"
few = st.sampled_from
events = st.lists(
    st.builds(
        TraceEvent,
        ts=st.just(1.0),
        probe=few([None, "p", "q"]),
        view_id=few(["base", "ft"]),
        prompt_hash=few(["a", "b", "c"]),
        top_k=few([0, 8]),
        op=few(["next_token_dist", "logprob_of"]),
        wall_ms=st.floats(0, 1000),
        hit=st.booleans(),
        result=few([None, "coalesced"]),
        error=few([None, "ValueError", "KeyError"]),
    ),
    max_size=40,
)


@given(events)
def test_every_record_counts_once_in_every_sum(records: list[TraceEvent]) -> None:
    """The totals by probe, view and op each add up to the total of all records."""
    summary = summarize(records)
    assert summary.total.counts.lookups == len(records)
    passes = [one for one in records if not one.hit]
    seconds = sum(one.wall_ms for one in passes) / 1e3
    whole_ns = 1e-9 * len(records)  # durations are rounded to nanoseconds
    assert summary.total.forward_s == pytest.approx(seconds, abs=whole_ns)
    for groups in (summary.by_probe(), summary.by_view(), summary.by_op()):
        assert sum((one.counts for one in groups.values()), Counts()) == summary.total.counts
        saved = [one.saved_s for one in groups.values()]
        assert (None in saved) == (summary.total.saved_s is None)
        if summary.total.saved_s is not None:
            assert sum(saved) == pytest.approx(summary.total.saved_s)
    for key, counts in summary.series.items():
        own = [one for one in records if (one.probe, one.view_id, one.op) == key]
        hits = [one.result for one in own if one.hit]
        assert (counts.hits, counts.coalesced) == (hits.count(None), hits.count("coalesced"))
        assert counts.errors == Counter(one.error for one in own if not one.hit and one.error)
        assert counts.lookups == len(own)
    lookups = Counter(one.prompt_hash for one in records)
    assert {one.prompt_hash: one.lookups for one in summary.most_repeated} == lookups
    distinct = {(one.view_id, one.op, one.prompt_hash, one.top_k) for one in records}
    assert summary.distinct_lookups == len(distinct)


def test_counts_equal_those_of_the_ledger(tmp_path: Path) -> None:
    """The summary of a trace has the counts of the backend that wrote it."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path)
    for probe in ("p", None):
        backend.set_current_probe(probe)
        backend.cached("op", "base", "a", 8, lambda: 1)
        backend.cached_batch("op", "ft", ["a", "b", "b"], 8, lambda which: list(which))
    with pytest.raises(ZeroDivisionError):
        backend.cached("op", "base", "c", 8, lambda: 1 // 0)
    backend.close()
    counted = backend.ledger.snapshot().series
    summed = summarize(TraceReader(path)).series
    assert list(summed) == list(counted)
    for key, counts in summed.items():
        expected = counted[key]
        assert (counts.hits, counts.coalesced, counts.forward_passes, counts.errors) == (
            expected.hits,
            expected.coalesced,
            expected.forward_passes,
            expected.errors,
        )
        assert counts.forward_ns == pytest.approx(expected.forward_ns, abs=5_000)


def test_hits_save_the_passes_of_equal_lookups(event: MakeEvent) -> None:
    """A hit without an equal pass saves the mean of its op and view, or of its op.

    Failed passes are in no mean.
    """
    summary = summarize(
        [
            event("a", wall_ms=100.0),
            event("b", wall_ms=300.0),
            event("c", wall_ms=9000.0, error="ValueError"),
            event("a", hit=True, probe="q"),
            event("b", hit=True, result="coalesced"),
            event("c", hit=True),
            event("a", hit=True, view_id="ft"),
        ]
    )
    assert summary.total.saved_s == pytest.approx(0.1 + 0.3 + 0.2 + 0.2)
    assert summary.total.forward_s == pytest.approx(9.4)
    assert {name: line.saved_s for name, line in summary.by_probe().items()} == {
        "p": pytest.approx(0.7),
        "q": pytest.approx(0.1),
    }


def test_hits_without_any_pass_of_their_op(event: MakeEvent) -> None:
    """What they saved is not known, so it is in no sum; other ops have theirs."""
    stored = event("a", hit=True, tier="disk")
    assert summarize([stored]).total.saved_s is None
    summary = summarize([stored, event(op="logprob_of"), event(op="logprob_of", hit=True)])
    assert {op: one.saved_s for op, one in summary.by_op().items()} == {
        "next_token_dist": None,
        "logprob_of": pytest.approx(0.1),
    }
    assert summary.total.saved_s is None
    assert summarize([stored, event("b", view_id="ft")]).total.saved_s == pytest.approx(0.1)
    assert summarize([event(error="ValueError")]).total.saved_s == 0.0


def test_hits_of_a_store(event: MakeEvent) -> None:
    """They are counted by tier, and by whether they were verified and agreed."""
    disk = [event(hit=True, tier="disk", verified=one) for one in (None, True, True, False)]
    counts = summarize([*disk, event(hit=True, tier="remote"), event(hit=True)]).total.counts
    assert (counts.hits, counts.disk_hits, counts.remote_hits) == (6, 4, 1)
    assert (counts.matches, counts.mismatches) == (2, 1)


def test_slowest_passes_and_most_repeated_prompts(event: MakeEvent) -> None:
    """There are ten of each, the earlier first if equal, without hits and failures."""
    passes = [event(f"{n % 15}", wall_ms=float(n % 20), ts=float(n)) for n in range(60)]
    summary = summarize([*passes, event(hit=True, wall_ms=99.0), event(error="E", wall_ms=99.0)])
    slowest = [(one.wall_ms, one.ts) for one in summary.slowest]
    assert slowest == sorted(((one.wall_ms, one.ts) for one in passes), key=_by_duration)[:10]
    assert summary.most_repeated[0] == ("0", 4, 4)
    assert len(summary.most_repeated) == 10


def _by_duration(pass_: tuple[float, float]) -> tuple[float, float]:
    return -pass_[0], pass_[1]


def test_trace_of_dlm_sway() -> None:
    """A trace with only the eight required keys has a summary."""
    summary = summarize(TraceReader(_DATA))
    assert (summary.total.counts.lookups, summary.total.counts.hits) == (114, 39)
    assert summary.distinct_lookups == summary.total.counts.forward_passes == 75
    assert list(summary.by_probe()) == [
        None,
        "null_baseline",
        "divergence",
        "collapse",
        "ablation",
    ]
    assert summary.series[SeriesKey("collapse", "ft", "next_token_dist")].hits == 3
