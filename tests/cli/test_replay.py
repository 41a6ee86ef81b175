"""Spans made from a trace file: their parents, times and ids; `forwardscope trace export`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext
from typer.testing import Result

import forwardscope.cli
from forwardscope import TraceEvent, TraceReader
from forwardscope.cli.otlp_exporter import OtlpExporter
from forwardscope.cli.replay import Replay
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.telemetry import names
from forwardscope.testing import InMemoryTelemetry, ScriptedBackend, SeenSpan
from forwardscope.trace.record import MAX_COUNT, MAX_WALL_MS
from forwardscope.trace.writer import line_of

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]

_RUN = "0123456789abcdef" * 2
_PEER = Path(__file__).parents[1] / "data" / "dlm_sway_trace.jsonl"


def replayed(events: Iterable[TraceEvent], result: SuiteResult | None = None) -> list[ReadableSpan]:
    """Return the spans of a trace."""
    return list(Replay(events, Resource({}), "1.0", result))


def event(
    ts: float = 10.0, *, hit: bool = False, wall_ms: float = 100.0, **more: object
) -> TraceEvent:
    fixed = {"probe": "p", "view_id": "base", "prompt_hash": "a", "top_k": 8, "op": "op"}
    return TraceEvent(ts=ts, wall_ms=wall_ms, hit=hit, **{"run_id": _RUN, **fixed, **more})


def of_kind(spans: list[ReadableSpan], kind: names.Span) -> list[ReadableSpan]:
    return [span for span in spans if names.kind_of(span.name) == kind.kind]


def links_of(spans: list[ReadableSpan]) -> list[list[SpanContext]]:
    """Return the links of each lookup."""
    return [[link.context for link in one.links] for one in of_kind(spans, names.LOOKUP)]


def test_a_run_is_a_tree() -> None:
    """A run is the parent of its probes, a probe of its lookups, a miss of its forward pass."""
    spans = replayed([event(9.0, probe=None), event(10.0), event(11.0, hit=True)])
    (run,), (check, probe) = of_kind(spans, names.SUITE), of_kind(spans, names.PROBE)
    lookups = of_kind(spans, names.LOOKUP)
    forwards = of_kind(spans, names.FORWARD)
    assert run.parent is None
    assert probe.parent == check.parent == run.context
    assert [one.parent for one in lookups] == [check.context, probe.context, probe.context]
    assert [one.parent for one in forwards] == [lookups[0].context, lookups[1].context]
    assert [one.attributes[names.CACHE_RESULT.name] for one in lookups] == ["miss", "miss", "hit"]
    assert {one.name for one in spans} == {
        *("suite", "probe p", "probe finite_check"),
        *("lookup miss", "lookup hit", "forward base"),
    }
    assert probe.attributes[names.CASE_NAME.name] == "p"
    totals = [
        [one.attributes[name.name] for name in (names.TOTAL_LOOKUPS, names.TOTAL_PASSES)]
        for one in (run, probe)
    ]
    assert totals == [[3, 2], [2, 1]]


@pytest.mark.parametrize("batch", [None, 2, MAX_COUNT])
def test_no_time_is_before_the_epoch(batch: int | None) -> None:
    """A span that would begin earlier begins at the epoch; OTLP cannot encode another time."""
    events = [event(1.0, wall_ms=MAX_WALL_MS, batch=batch), event(0.0, wall_ms=5.0, hit=True)]
    assert {span.start_time for span in replayed(events)} == {0}
    assert all(0 <= span.end_time < 2**63 for span in replayed(events))


def test_lookups_without_a_run_are_below_the_root() -> None:
    """The lookups of another program are below its probes, or below the root."""
    spans = replayed([event(probe=None, run_id=None)])
    (lookup,), (run,) = of_kind(spans, names.LOOKUP), of_kind(spans, names.SUITE)
    assert (lookup.parent, len(spans)) == (run.context, 3)


def test_times_are_those_of_the_trace() -> None:
    """A lookup ends at `ts` and lasts `wall_ms`; each span lies within its parent."""
    spans = replayed([event(10.0, wall_ms=2500.0), event(11.0, wall_ms=0.5, hit=True)])
    lookup = of_kind(spans, names.LOOKUP)[0]
    assert (lookup.start_time, lookup.end_time) == (7_500_000_000, 10_000_000_000)
    times = {one.context.span_id: (one.start_time, one.end_time) for one in spans}
    for span in spans:
        if span.parent is not None:
            start, end = times[span.parent.span_id]
            assert start <= span.start_time <= span.end_time <= end


def batch(ts: float, prompts: str, *, probe: str | None = "p", **more: object) -> list[TraceEvent]:
    """Return the records of a batch: prompts in capitals are misses, the others hits."""
    size = sum(one.isupper() for one in prompts)
    found: list[TraceEvent] = []
    for one in prompts:
        fixed: dict[str, object] = {"probe": probe, "prompt_hash": one.lower()} | more
        if one.isupper():
            found.append(event(ts, batch=size, tokens=5, **fixed))
        else:
            found.append(event(ts, hit=True, wall_ms=1.0, **fixed))
    return found


def test_a_batch() -> None:
    """Its hits, its forward call and its coalesced lookups follow one another, without a gap."""
    copy = event(11.0, hit=True, result="coalesced", wall_ms=2.0, prompt_hash="c")
    spans = replayed([event(1.0, probe=None, prompt_hash="hello"), *batch(11.0, "aBbCD"), copy])
    (whole,) = of_kind(spans, names.BATCH)
    (probe,) = [one for one in of_kind(spans, names.PROBE) if one.name == "probe p"]
    assert whole.parent == probe.context
    assert whole.attributes == {
        names.OP.name: "op",
        names.VIEW.name: "base",
        names.TOP_K.name: 8,
        names.BATCH_HITS.name: 3,
        names.BATCH_MISSES.name: 3,
    }
    below = [one for one in spans if one.parent == whole.context]
    assert [one.name for one in below] == [
        *("lookup hit", "lookup hit", "lookup miss", "lookup miss", "lookup miss"),
        *("forward base", "lookup coalesced"),
    ]
    forward = below[5]
    assert forward.attributes[names.BATCH_SIZE.name] == 3
    assert forward.attributes[names.INPUT_TOKENS.name] == 15
    assert [[link.context for link in one.links] for one in below] == [
        *([], [], *([[forward.context]] * 3), [], [forward.context])
    ]
    begins = [one.start_time - whole.start_time for one in below]
    lengths = [one.end_time - one.start_time for one in below]
    assert [n / 1e6 for n in begins] == [0, 1, 2, 2, 2, 2, 302]
    assert [n / 1e6 for n in lengths] == [1, 1, 0, 0, 0, 300, 2]
    assert whole.end_time == below[-1].end_time == 11_000_000_000


@pytest.mark.parametrize(
    "other",
    [
        batch(10.5, "BC"),
        batch(10.0, "BC", probe="q"),
        batch(10.0, "BC", view_id="ft"),
        batch(10.0, "BC", op="other"),
        batch(10.0, "BC", top_k=9),
        batch(10.0, "BC", run_id="f" * 32),
        batch(10.0, "BC", parent_id="1" * 16),
    ],
)
def test_batches_are_told_apart(other: list[TraceEvent]) -> None:
    """The records of one follow one another with one time, run, probe, parent, view, op, top_k."""
    spans = replayed([*batch(10.0, "BC"), *other])
    assert len(of_kind(spans, names.BATCH)) == len(of_kind(spans, names.FORWARD)) == 2
    assert len(of_kind(replayed(batch(10.0, "BCBC")), names.BATCH)) == 1


def test_single_lookups_are_no_batch() -> None:
    """A hit or a miss alone is one; several hits of one time, or a miss in a batch of one, are."""
    for events, batches in (
        ([event()], 0),
        ([event(), event()], 0),
        ([event(hit=True)], 0),
        ([event(9.0, hit=True), event(10.0, hit=True)], 0),
        (batch(10.0, "ab"), 1),
        (batch(10.0, "A"), 1),
        ([event(), *batch(10.0, "Ab"), event()], 1),
    ):
        assert len(of_kind(replayed(events), names.BATCH)) == batches


def test_a_batch_with_two_forward_calls() -> None:
    """The one that failed, or that another thread failed, and the one after it are two spans."""
    ids = {"trace_id": "1" * 32, "pass_trace_id": "1" * 32}
    calls = [{**ids, "pass_span_id": digit * 16} for digit in "23"]
    misses = [event(batch=2, prompt_hash=one, **calls[one in "bd"]) for one in "abcd"]
    for events in (misses, [event(batch=2), event(batch=1, wall_ms=5.0, error="KeyError")]):
        spans = replayed([event(1.0, probe=None), *events])
        first, second = [
            one for one in of_kind(spans, names.FORWARD) if one.parent.span_id == whole_of(spans)
        ]
        assert (first.end_time, second.end_time) == (second.start_time, 10_000_000_000)
        led = links_of(spans)[1:]
        assert led == [[first.context]] * (len(led) // 2) + [[second.context]] * (len(led) // 2)
    (whole,) = of_kind(spans, names.BATCH)
    assert (whole.status.is_ok, whole.attributes[names.ERROR_TYPE.name]) == (False, "KeyError")


def whole_of(spans: list[ReadableSpan]) -> int:
    """Return the id of the one batch."""
    (whole,) = of_kind(spans, names.BATCH)
    return whole.context.span_id


def test_ids_that_two_forward_calls_recorded() -> None:
    """Each has a span of its own, as in a file that was written twice."""
    ids = {"pass_trace_id": "1" * 32, "pass_span_id": "2" * 16}
    spans = replayed([event(float(ts), **ids) for ts in (10, 11)])
    assert len({one.context.span_id for one in spans}) == len(spans) == 6


def test_lookups_made_ahead_of_the_probes() -> None:
    """They are below the run, count for their probe, and leave its times as they are."""
    ahead = [*batch(0.5, "A", probe=None), *batch(1.0, "BC"), *batch(2.0, "DE", probe="q")]
    later = [event(3.0, view_id="ft"), event(4.0, probe="q", view_id="ft")]
    spans = replayed([*ahead, event(2.5, probe=None), *later])
    (run,) = of_kind(spans, names.SUITE)
    probes = {one.name: one for one in of_kind(spans, names.PROBE)}
    assert [one.parent for one in of_kind(spans, names.BATCH)] == [run.context] * 3
    assert run.start_time == 400_000_000
    assert probes["probe p"].start_time == 2_900_000_000
    assert probes["probe p"].attributes[names.TOTAL_LOOKUPS.name] == 3
    assert len(replayed(ahead)) == 12  # no probe began


def test_hit_without_ids_leads_to_the_latest_equal_miss() -> None:
    """Op, view, prompt hash and top_k are equal, and the miss did not fail."""
    spans = replayed(
        [
            event(),
            event(batch=1),
            event(error="ValueError"),
            event(view_id="ft"),
            event(hit=True),
            event(hit=True, result="coalesced"),
            event(hit=True, top_k=9),
        ]
    )
    call = of_kind(spans, names.FORWARD)[1]
    assert call.attributes[names.VIEW.name] == "base"
    of_hits = [call.context], [call.context], []
    assert links_of(spans) == [[], [call.context], [], [], *of_hits]


def test_lookups_with_ids_lead_to_the_recorded_call() -> None:
    """Also where the call is recorded later, or in the trace of an earlier run."""
    ids = {"trace_id": "1" * 32, "pass_trace_id": "1" * 32, "pass_span_id": "2" * 16}
    other = {"trace_id": "1" * 32, "pass_trace_id": "3" * 32, "pass_span_id": "4" * 16}
    invalid = {"pass_trace_id": "0" * 32, "pass_span_id": "x" * 16}
    misses = [event(batch=2, prompt_hash=name, **ids) for name in "ab"]
    spans = replayed(
        [
            event(9.0, hit=True, result="coalesced", prompt_hash="b", **ids),
            *misses,
            event(11.0, hit=True, **other),
            event(12.0, hit=True, prompt_hash="c", **invalid),
        ]
    )
    (call,) = of_kind(spans, names.FORWARD)
    links = links_of(spans)
    assert links[:3] == [[call.context]] * 3
    ((earlier,),) = links[3:4]
    assert (f"{earlier.trace_id:032x}", f"{earlier.span_id:016x}") == ("3" * 32, "4" * 16)
    assert links[4] == []


def test_a_failed_lookup() -> None:
    """The lookup and its forward pass have the error status and the exception's class."""
    spans = replayed([event(error="ValueError")])
    for kind in (names.LOOKUP, names.FORWARD):
        (span,) = of_kind(spans, kind)
        assert not span.status.is_ok
        assert span.attributes[names.ERROR_TYPE.name] == "ValueError"
    assert of_kind(spans, names.LOOKUP)[0].name == "lookup error"
    (run,) = of_kind(spans, names.SUITE)
    assert (run.status.is_unset, run.attributes[names.TOTAL_ERRORS.name]) == (True, 1)


def test_ids() -> None:
    """The trace id is the run id; span ids are unique, and equal in a second replay."""
    events = [event(), event(run_id="f" * 32), event(hit=True)]
    replay = Replay(events, Resource({}), "1.0")
    spans = list(replay)
    assert replay.trace_ids == [_RUN, "f" * 32]
    ids = [(one.context.trace_id, one.context.span_id) for one in spans]
    assert len(set(ids)) == len(ids)
    assert ids == [(one.context.trace_id, one.context.span_id) for one in replayed(events)]


@pytest.mark.parametrize("run_id", [None, "", "nightly", "0" * 32, "F" * 32])
def test_ids_of_runs_without_a_hex_id(run_id: str | None) -> None:
    """Trace ids are valid, and equal in a second replay."""
    one, two = (replayed([event(run_id=run_id)]) for _ in range(2))
    assert one[0].context.trace_id == two[0].context.trace_id != 0
    assert all(span.context.is_valid for span in one)


def _run(path: Path, telemetry: InMemoryTelemetry, *, served: bool = False) -> SuiteResult:
    """Run a suite with a failing probe, a batch and hits; write its trace."""
    backend = ScriptedBackend(instrumentation=telemetry.instrumentation(trace_path=path))
    if served:
        backend.instrumentation.name_server("http://server:8000", "server", 8000)
    probes = [DeltaKL(name=name, prompts=["a", "b"], min_mean=99.0) for name in ("one", "two")]
    spec = SuiteSpec(
        version=1, name="nightly", model=ModelSpec(path="m", adapter="a"), probes=probes
    )
    result = run_suite(spec, backend)
    backend.close()
    return result


def _plain(span: ReadableSpan | SeenSpan) -> tuple[object, ...]:
    """Return what a span is, live or replayed, without times and ids."""
    live = isinstance(span, SeenSpan)
    status = span.status if live else span.status.status_code.name.lower()
    kind = span.kind if live else span.kind.name.lower()
    untold = (names.ELIDED, names.TOTAL_FORWARD_S)
    attributes = dict(span.attributes or {})
    for one in untold:
        attributes.pop(one.name, None)
    return span.name, kind, sorted(attributes.items(), key=str), status, len(span.links)


@pytest.mark.parametrize("served", [False, True])
def test_an_export_is_like_the_run(tmp_path: Path, served: bool) -> None:
    """With the result, it has the spans of the run, with their attributes; without, no verdicts."""
    path, telemetry = tmp_path / "t.jsonl", InMemoryTelemetry()
    result = _run(path, telemetry, served=served)
    live = [_plain(one) for one in telemetry.spans()]
    told = [_plain(one) for one in replayed(TraceReader(path), result)]
    assert sorted(told, key=str) == sorted(live, key=str)
    plain = replayed(TraceReader(path))
    assert [one.name for one in plain][-1] == "suite"
    assert all(one.status.is_unset for one in plain)
    of_another = result.model_copy(update={"run_id": "f" * 32})
    assert [one.name for one in replayed(TraceReader(path), of_another)][-1] == "suite"


class _Receiver(SpanExporter):
    """Accepts every span, or refuses every connection."""

    def __init__(self, *, accepts: bool) -> None:
        self.accepts = accepts
        self.batches = 0
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Iterable[ReadableSpan]) -> SpanExportResult:  # type: ignore[override]
        self.batches += 1
        if not self.accepts:
            raise ConnectionRefusedError(111, "Connection refused")
        self.spans += spans
        return SpanExportResult.SUCCESS


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Receiver]:
    """Return a function that creates the receiver of the exports that follow."""

    def make(*, accepts: bool) -> _Receiver:
        exporter = _Receiver(accepts=accepts)
        monkeypatch.setattr("forwardscope.cli.otlp.make_exporter", lambda _: OtlpExporter(exporter))
        return exporter

    return make


def test_export(invoke: Invoke, receiver: Callable[..., _Receiver]) -> None:
    """The trace id and the number of spans are printed, without the URL's credentials."""
    exporter = receiver(accepts=True)
    ran = invoke("trace", "export", _PEER, "--otlp", "http://user:secret@127.0.0.1:4318")
    assert ran.exit_code == 0
    assert len(exporter.spans) == 114 + 75 + 4 + 1
    trace_id = f"{exporter.spans[0].context.trace_id:032x}"
    assert ran.stdout == (f"trace {trace_id}\nOTLP http://127.0.0.1:4318: 194 spans exported\n")


def test_export_to_a_receiver_that_refuses(
    invoke: Invoke, receiver: Callable[..., _Receiver], tmp_path: Path
) -> None:
    """The export stops at the first failed batch, prints the reason and exits with 1."""
    exporter = receiver(accepts=False)
    path = tmp_path / "t.jsonl"
    path.write_bytes(line_of(event()) * 20_000)
    ran = invoke("trace", "export", path, "--otlp", "http://127.0.0.1:4318")
    assert ran.exit_code == 1
    assert exporter.batches == 1
    outcome = "OTLP http://127.0.0.1:4318: stopped after 0 spans: Connection refused"
    assert ran.stdout == f"trace {_RUN}\n{outcome}\n"


def test_export_with_the_result(
    invoke: Invoke, receiver: Callable[..., _Receiver], error_of: ErrorOf, tmp_path: Path
) -> None:
    """The root has suite and status; the result of a run that is not in the file exits with 2."""
    exporter, path, file = receiver(accepts=True), tmp_path / "t.jsonl", tmp_path / "r.json"
    result = _run(path, InMemoryTelemetry())
    result.write(file)
    to = ("--otlp", "http://127.0.0.1:4318", "--result", file)
    assert invoke("trace", "export", path, *to).exit_code == 0
    root = exporter.spans[-1]
    assert (root.name, root.status.status_code.name) == ("suite nightly", "ERROR")
    assert (root.attributes or {})[names.ERROR_TYPE.name] == "probe_failed"
    assert result.run_id in error_of("trace", "export", _PEER, *to)


def test_export_errors(invoke: Invoke, error_of: ErrorOf, tmp_path: Path) -> None:
    """An invalid URL, an empty trace and a missing option exit with 2."""
    error = error_of("trace", "export", _PEER, "--otlp", "nonsense")
    assert "is not the URL of a server" in error
    (tmp_path / "empty").touch()
    error = error_of("trace", "export", tmp_path / "empty", "--otlp", "http://127.0.0.1:1")
    assert "is empty" in error
    assert invoke("trace", "export", _PEER).exit_code == 2


def test_export_without_the_sdk(error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is printed."""
    monkeypatch.delattr(forwardscope.cli, "replay")
    monkeypatch.setitem(sys.modules, "forwardscope.cli.replay", None)
    error = error_of("trace", "export", _PEER, "--otlp", "http://127.0.0.1:4318")
    assert "pip install '.[otel]' in a checkout" in error
