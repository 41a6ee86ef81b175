"""Spans made from a trace: what hangs under what, when, and with which ids."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from typer.testing import Result

import forwardscope.cli
from forwardscope import BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.cli.otlp import OtlpExporter
from forwardscope.cli.replay import Replay
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.telemetry import names
from forwardscope.testing import ScriptedBackend
from forwardscope.trace.writer import line_of

Invoke = Callable[..., Result]

_RUN = "0123456789abcdef" * 2
_PEER = Path(__file__).parents[1] / "data" / "dlm_sway_trace.jsonl"


def replayed(events: Iterable[TraceEvent]) -> list[ReadableSpan]:
    return list(Replay(events, Resource({}), "1.0"))


def event(
    ts: float = 10.0, *, hit: bool = False, wall_ms: float = 100.0, **more: object
) -> TraceEvent:
    fixed = {"probe": "p", "view_id": "base", "prompt_hash": "a", "top_k": 8, "op": "op"}
    return TraceEvent(ts=ts, wall_ms=wall_ms, hit=hit, **{"run_id": _RUN, **fixed, **more})


def named(spans: list[ReadableSpan], kind: names.Span) -> list[ReadableSpan]:
    return [span for span in spans if span.name == kind.name]


def test_a_run_is_a_tree() -> None:
    """A suite.run holds its probes, these their lookups, and a miss its forward."""
    spans = replayed([event(), event(hit=True), event(probe=None)])
    (run,), (probe,) = named(spans, names.SUITE_RUN), named(spans, names.PROBE_RUN)
    asked = named(spans, names.LOOKUP)
    forwards = named(spans, names.FORWARD)
    assert run.parent is None
    assert probe.parent == run.context
    assert [one.parent for one in asked] == [probe.context, probe.context, run.context]
    assert [one.parent for one in forwards] == [asked[0].context, asked[2].context]
    assert [one.attributes[names.CACHE_RESULT.name] for one in asked] == ["miss", "hit", "miss"]
    assert probe.attributes[names.CASE_NAME.name] == "p"
    totals = [
        [one.attributes[name.name] for name in (names.TOTAL_LOOKUPS, names.TOTAL_PASSES)]
        for one in (run, probe)
    ]
    assert totals == [[3, 2], [2, 1]]


def test_times_are_the_traces_own() -> None:
    """A lookup ends at its `ts` and lasts its `wall_ms`; nothing sticks out of its parent."""
    spans = replayed([event(10.0, wall_ms=2500.0), event(11.0, wall_ms=0.5, hit=True)])
    lookup = named(spans, names.LOOKUP)[0]
    assert (lookup.start_time, lookup.end_time) == (7_500_000_000, 10_000_000_000)
    times = {one.context.span_id: (one.start_time, one.end_time) for one in spans}
    for span in spans:
        if span.parent is not None:
            start, end = times[span.parent.span_id]
            assert start <= span.start_time <= span.end_time <= end


def test_a_batch_is_one_forward() -> None:
    """It lasts as long as its shares together and links its lookups, hits between them or not."""
    batch = [
        event(10.0 + place / 1e6, wall_ms=100.0, batch=3, tokens=5, prompt_hash=str(place))
        for place in range(3)
    ]
    spans = replayed([batch[0], event(10.0, hit=True), *batch[1:], event(10.1)])
    first, second = named(spans, names.FORWARD)
    missed = [
        one
        for one in named(spans, names.LOOKUP)
        if one.attributes[names.CACHE_RESULT.name] == "miss"
    ]
    (probe,) = named(spans, names.PROBE_RUN)
    assert first.parent == probe.context
    assert [link.context for link in first.links] == [one.context for one in missed[:3]]
    assert first.end_time - first.start_time == 300_000_000
    assert first.attributes[names.BATCH_SIZE.name] == 3
    assert first.attributes[names.INPUT_TOKENS.name] == 15
    assert second.attributes[names.BATCH_SIZE.name] == 1
    assert probe.start_time <= first.start_time


def test_a_batch_that_is_cut_off_is_told_as_far_as_it_goes() -> None:
    """At the end of the file, or where another begins."""
    ends = replayed([event(batch=3), event(batch=3)])
    assert [len(one.links) for one in named(ends, names.FORWARD)] == [2]
    other = replayed([event(batch=3), event(batch=2), event(batch=2)])
    assert [len(one.links) for one in named(other, names.FORWARD)] == [1, 2]


def test_what_failed_is_marked() -> None:
    """The lookup and its pass, by the class of the exception."""
    spans = replayed([event(error="ValueError")])
    for kind in (names.LOOKUP, names.FORWARD):
        (span,) = named(spans, kind)
        assert not span.status.is_ok
        assert span.attributes[names.ERROR_TYPE.name] == "ValueError"
    (run,) = named(spans, names.SUITE_RUN)
    assert (run.status.is_unset, run.attributes[names.TOTAL_ERRORS.name]) == (True, 1)


def test_ids_are_the_runs_own_and_stay() -> None:
    """The trace id is the run id; a second replay gives the same spans; runs are traces apart."""
    events = [event(), event(run_id="f" * 32), event(hit=True)]
    replay = Replay(events, Resource({}), "1.0")
    spans = list(replay)
    assert replay.trace_ids == [_RUN, "f" * 32]
    ids = [(one.context.trace_id, one.context.span_id) for one in spans]
    assert len(set(ids)) == len(ids)
    assert ids == [(one.context.trace_id, one.context.span_id) for one in replayed(events)]


@pytest.mark.parametrize("run_id", [None, "", "nightly", "0" * 32, "F" * 32])
def test_other_run_ids_have_traces_too(run_id: str | None) -> None:
    """Valid ones, the same each time."""
    one, two = (replayed([event(run_id=run_id)]) for _ in range(2))
    assert one[0].context.trace_id == two[0].context.trace_id != 0
    assert all(span.context.is_valid for span in one)


def test_it_reconciles_with_a_real_run(tmp_path: Path) -> None:
    """As many lookups, passes and probes as the run counted, of names that are listed."""
    path = tmp_path / "t.jsonl"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=path))
    probes = [DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two")]
    spec = SuiteSpec(version=1, model=ModelSpec(path="m", adapter="a"), probes=probes)
    result = run_suite(spec, backend)
    backend.close()
    spans = replayed(TraceReader(path))
    counted = Counter(span.name for span in spans)
    assert counted[names.LOOKUP.name] == result.reconciliation.lookups
    assert counted[names.PROBE_RUN.name] == 2
    assert counted[names.SUITE_RUN.name] == 1
    stats = backend.instrumentation.stats
    singly = stats.forward_passes - stats.batched_prompts
    assert counted[names.FORWARD.name] == stats.batches_sent + singly
    for kind in names.SPANS:
        listed = {one.name for one in kind.attributes}
        for span in named(spans, kind):
            assert set(span.attributes or {}) <= listed


class _Taking(SpanExporter):
    """Takes everything, or nothing."""

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Iterable[ReadableSpan]) -> SpanExportResult:  # type: ignore[override]
        if not self.takes:
            raise ConnectionRefusedError(111, "Connection refused")
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Taking]:
    def make(*, takes: bool) -> _Taking:
        exporter = _Taking(takes=takes)
        monkeypatch.setattr("forwardscope.cli.otlp.make_exporter", lambda _: OtlpExporter(exporter))
        return exporter

    return make


def test_export_says_what_arrived(invoke: Invoke, taking: Callable[..., _Taking]) -> None:
    """And under which id it can be looked for."""
    exporter = taking(takes=True)
    told = invoke("trace", "export", _PEER, "--otlp", "http://user:secret@127.0.0.1:4318")
    assert told.exit_code == 0
    assert len(exporter.spans) == 114 + 75 + 4 + 1
    trace_id = f"{exporter.spans[0].context.trace_id:032x}"
    assert told.stdout == (f"trace {trace_id}\nOTLP http://127.0.0.1:4318: 194 spans exported\n")


def test_export_to_nobody(invoke: Invoke, taking: Callable[..., _Taking], tmp_path: Path) -> None:
    """What did not arrive is told with its reason, exit 1; it is not tried for each record."""
    taking(takes=False)
    path = tmp_path / "t.jsonl"
    path.write_bytes(line_of(event()) * 20_000)
    told = invoke("trace", "export", path, "--otlp", "http://127.0.0.1:4318")
    assert told.exit_code == 1
    assert "0 spans exported, " in told.stdout
    assert told.stdout.endswith(" not: Connection refused\n")


def test_export_takes_a_receiver_and_a_trace(invoke: Invoke, tmp_path: Path) -> None:
    """Anything else is told, and exit 2."""
    told = invoke("trace", "export", _PEER, "--otlp", "nonsense")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "is no URL of a server" in told.stderr
    (tmp_path / "empty").touch()
    told = invoke("trace", "export", tmp_path / "empty", "--otlp", "http://127.0.0.1:1")
    assert told.exit_code == 2
    assert "is empty" in told.stderr
    assert invoke("trace", "export", _PEER).exit_code == 2


def test_export_needs_the_sdk(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the extra is named."""
    monkeypatch.delattr(forwardscope.cli, "replay")
    monkeypatch.setitem(sys.modules, "forwardscope.cli.replay", None)
    told = invoke("trace", "export", _PEER, "--otlp", "http://127.0.0.1:4318")
    assert told.exit_code == 2
    assert "pip install 'forwardscope[otel]'" in told.stderr
    assert told.stdout == ""
