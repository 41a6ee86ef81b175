"""Spans made from a trace file, for runs without an OTLP receiver."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from forwardscope.core.keys import Question
from forwardscope.core.series import Counts
from forwardscope.probes import Verdict
from forwardscope.suite.execution import FINITE_CHECK
from forwardscope.suite.result import ProbeResult, SuiteResult, Tally
from forwardscope.suite.spans import (
    at_probe_start,
    outcome_attributes,
    probe_error,
    run_error,
    run_status,
    total_attributes,
)
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import (
    ForwardNames,
    forward_attributes,
    lookup_attributes,
    lookup_name,
)
from forwardscope.text import printable
from forwardscope.trace import TraceEvent
from forwardscope.trace.writer import line_of

__all__ = ["Replay"]

_TRACE_ID: Final = re.compile(r"(?!0+$)[0-9a-f]{32}", re.ASCII)
_SPAN_ID: Final = re.compile(r"(?!0+$)[0-9a-f]{16}", re.ASCII)


@dataclass(slots=True)
class _SpanData:
    """Identity and times of a span; for a run or a probe, updated with each lookup.

    Attributes:
        context: The span's context.
        parent: That of its parent, or None.
        start_ns: Start of the first lookup, in nanoseconds since the epoch.
        end_ns: End of the last lookup, likewise.
        counts: Counts of the lookups.
    """

    context: SpanContext
    parent: SpanContext | None
    start_ns: int
    end_ns: int
    counts: Counts = field(default_factory=Counts)

    def add(self, event: TraceEvent, start_ns: int, end_ns: int) -> None:
        """Count a lookup."""
        self.start_ns, self.end_ns = min(self.start_ns, start_ns), max(self.end_ns, end_ns)
        if event.hit:
            self.counts.hits += event.result is None
            self.counts.coalesced += event.result is not None
            return
        self.counts.forward_ns += round(event.wall_ms * 1e6)
        if event.error is None:
            self.counts.forward_passes += 1
        else:
            self.counts.errors[event.error] += 1


@dataclass(slots=True)
class _Call:
    """A forward call, with the misses of its batch that are read so far."""

    first: TraceEvent
    times: _SpanData
    misses: int = 0
    tokens: int = 0
    tokens_reused: int = 0

    def add(self, event: TraceEvent) -> None:
        """Add one miss."""
        self.misses += 1
        self.tokens += event.tokens or 0
        self.tokens_reused += event.tokens_reused or 0

    def continues_with(self, event: TraceEvent) -> bool:
        """Whether a miss without recorded ids can be of the same batch."""
        return (self.first.batch, self.first.error) == (event.batch, event.error)


class Replay:
    """Iterates over the spans of a trace's runs, with their recorded times.

    The spans are those of a run with a receiver, except for spans of batches: the misses
    of a batch have no duration and precede its forward call, which lasts the sum of their
    shares. Each lookup leads to its forward call: by the recorded ids, or, without them,
    to that of the latest earlier miss of the same op, view, prompt hash and top_k. The
    trace id is the run id. A second replay gives the same ids, so that a receiver can
    detect duplicates.

    Args:
        events: The records, in the order of the file.
        resource: Resource of the spans.
        version: Version of forwardscope, for the instrumentation scope.
        result: Result of one of the runs: its suite, model and verdicts.
    """

    def __init__(
        self,
        events: Iterable[TraceEvent],
        resource: Resource,
        version: str,
        result: SuiteResult | None = None,
    ) -> None:
        self._events = events
        self._resource = resource
        self._scope = InstrumentationScope(names.TRACER, version, names.SCHEMA_URL)
        self._result = result
        self._runs: dict[str | None, _SpanData] = {}
        self._probes: dict[tuple[str | None, str], _SpanData] = {}
        self._batches: dict[tuple[str | None, ...], _Call] = {}
        self._calls: dict[tuple[str, str], SpanContext] = {}  # by the recorded ids
        self._latest: dict[Question, SpanContext] = {}  # calls that succeeded
        self._forward_names = ForwardNames()
        self._serial = 0

    @property
    def trace_ids(self) -> list[str]:
        """Trace ids of the runs so far, 32 hex digits each."""
        return [f"{run.context.trace_id:032x}" for run in self._runs.values()]

    def __iter__(self) -> Iterator[ReadableSpan]:
        """Yield all spans; those of probes and runs come last."""
        for event in self._events:
            yield from self._lookup_spans(event)
        for call in self._batches.values():
            yield self._forward_span(call)
        for (run_id, name), probe in self._probes.items():
            yield self._probe_span(run_id, name, probe)
        for run_id, run in self._runs.items():
            yield self._run_span(run_id, run)

    def _lookup_spans(self, event: TraceEvent) -> Iterator[ReadableSpan]:
        end_ns = round(event.ts * 1e9)
        start_ns = end_ns - round(event.wall_ms * (event.batch or 1) * 1e6)
        parent = self._parent(event, start_ns, end_ns)
        lookup = _SpanData(self._context(parent.trace_id), parent, start_ns, end_ns)
        if event.hit:
            yield self._lookup_span(event, lookup, self._call_of_hit(event, parent.trace_id))
        elif event.batch is None:
            call = self._new_call(event, lookup.context, lookup)
            yield self._lookup_span(event, lookup, None)
            yield self._forward_span(call)
        else:
            yield from self._batch_spans(event, parent, lookup)

    def _batch_spans(
        self, event: TraceEvent, parent: SpanContext, lookup: _SpanData
    ) -> Iterator[ReadableSpan]:
        """Yield the span of a batch's miss, and those of forward calls that are over."""
        ids = _recorded_ids(event)
        key = ids or (event.run_id, event.probe, event.view_id, event.op)
        call = self._batches.pop(key, None)
        if call is not None and ids is None and not call.continues_with(event):
            yield self._forward_span(call)
            call = None
        if call is None:
            call = self._new_call(event, parent, lookup)
        else:
            call.add(event)
            self._remember(event, call.times.context)
        lookup.start_ns = lookup.end_ns = call.times.start_ns
        yield self._lookup_span(event, lookup, call.times.context)
        if call.misses == event.batch:
            yield self._forward_span(call)
        else:
            self._batches[key] = call

    def _new_call(self, event: TraceEvent, parent: SpanContext, lookup: _SpanData) -> _Call:
        """Return the forward call of a first miss."""
        ids = _recorded_ids(event)
        context = self._calls.get(ids) if ids else None
        context = context or self._context(parent.trace_id)
        if ids:
            self._calls[ids] = context
        self._remember(event, context)
        call = _Call(event, _SpanData(context, parent, lookup.start_ns, lookup.end_ns))
        call.add(event)
        return call

    def _remember(self, event: TraceEvent, call: SpanContext) -> None:
        if event.error is None:
            self._latest[_question(event)] = call

    def _call_of_hit(self, event: TraceEvent, trace_id: int) -> SpanContext | None:
        """Return the forward call of a hit: in this export, or as another run recorded it."""
        ids = _recorded_ids(event)
        if ids is None:
            return self._latest.get(_question(event))
        if ids not in self._calls:
            if ids[0] != event.trace_id:
                return _context_of(int(ids[0], 16), int(ids[1], 16))
            self._calls[ids] = self._context(trace_id)  # its misses are recorded later
        return self._calls[ids]

    def _parent(self, event: TraceEvent, start_ns: int, end_ns: int) -> SpanContext:
        """Count a lookup in its run and its probe; return the context of the innermost."""
        run = self._runs.get(event.run_id)
        if run is None:
            context = self._context(_trace_id(event))
            run = self._runs[event.run_id] = _SpanData(context, None, start_ns, end_ns)
        run.add(event, start_ns, end_ns)
        name = event.probe
        if name is None and event.run_id is not None:
            name = FINITE_CHECK  # the only lookups of a run outside its probes
        if name is None:
            return run.context
        probe = self._probes.get((event.run_id, name))
        if probe is None:
            context = self._context(run.context.trace_id)
            probe = _SpanData(context, run.context, start_ns, end_ns)
            self._probes[event.run_id, name] = probe
        probe.add(event, start_ns, end_ns)
        return probe.context

    def _context(self, trace_id: int) -> SpanContext:
        self._serial += 1
        digest = sha256(f"{trace_id:032x}:{self._serial}".encode()).digest()
        return _context_of(trace_id, int.from_bytes(digest[:8], "big") or 1)

    # -- spans --------------------------------------------------------------------------

    def _lookup_span(
        self, event: TraceEvent, times: _SpanData, call: SpanContext | None
    ) -> ReadableSpan:
        result = "miss" if not event.hit else "hit" if event.result is None else "coalesced"
        attributes = lookup_attributes(_question(event), result)
        return self._span(lookup_name(result, event.error), times, attributes, event.error, call)

    def _forward_span(self, call: _Call) -> ReadableSpan:
        first, result = call.first, self._result_of(call.first.run_id)
        model, adapter = (result.model, result.adapter) if result else (None, None)
        attributes = forward_attributes(_question(first), first.batch or 1, model, adapter)
        if call.tokens:
            attributes[names.INPUT_TOKENS.name] = call.tokens
        if call.tokens_reused:
            attributes[names.REUSED_TOKENS.name] = call.tokens_reused
        name = self._forward_names.of_view(first.view_id)
        return self._span(name, call.times, attributes, first.error)

    def _probe_span(self, run_id: str | None, name: str, times: _SpanData) -> ReadableSpan:
        attributes = {
            names.CASE_NAME.name: printable(name),
            **total_attributes(Tally.of(times.counts)),
        }
        probe = self._probe_result(run_id, name, times)
        if probe is None:
            return self._span(names.PROBE.named(name), times, attributes)
        attributes |= at_probe_start(name, probe.kind) | outcome_attributes(probe)
        return self._span(names.PROBE.named(name), times, attributes, probe_error(probe))

    def _run_span(self, run_id: str | None, times: _SpanData) -> ReadableSpan:
        attributes = {} if run_id is None else {names.RUN_ID.name: printable(run_id)}
        attributes |= total_attributes(Tally.of(times.counts))
        result = self._result_of(run_id)
        if result is None:
            return self._span(names.SUITE.named(None), times, attributes)
        attributes |= {
            names.SUITE_NAME.name: printable(result.suite),
            names.SUITE_STATUS.name: run_status(result.probes),
            names.RUN_MODEL.name: printable(result.model),
            names.RUN_ADAPTER.name: printable(result.adapter),
        }
        error = run_error(result.probes)
        return self._span(names.SUITE.named(result.suite), times, attributes, error)

    def _result_of(self, run_id: str | None) -> SuiteResult | None:
        result = self._result
        return result if result is not None and result.run_id == run_id else None

    def _probe_result(self, run_id: str | None, name: str, times: _SpanData) -> ProbeResult | None:
        """Return the result of a probe; that of a check that passed is not in the run's."""
        result = self._result_of(run_id)
        if result is None:
            return None
        found = next((one for one in result.probes if one.name == name), None)
        if found is None and name == FINITE_CHECK:
            return ProbeResult(
                name=name,
                kind=name,
                verdict=Verdict.PASS,
                message="",
                duration_s=(times.end_ns - times.start_ns) / 1e9,
                stats=Tally.of(times.counts),
            )
        return found

    def _span(
        self,
        name: str,
        times: _SpanData,
        attributes: Mapping[str, Any],
        error: str | None = None,
        link: SpanContext | None = None,
    ) -> ReadableSpan:
        if error is not None:
            attributes = {**attributes, names.ERROR_TYPE.name: printable(error)}
        return ReadableSpan(
            name,
            context=times.context,
            parent=times.parent,
            resource=self._resource,
            attributes=attributes,
            links=() if link is None else (Link(link),),
            kind=SpanKind.INTERNAL,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
            start_time=max(0, times.start_ns),  # OTLP has no time before the epoch
            end_time=max(0, times.end_ns),
        )


def _context_of(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))


def _question(event: TraceEvent) -> Question:
    return Question(event.op, event.view_id, event.prompt_hash, event.top_k)


def _recorded_ids(event: TraceEvent) -> tuple[str, str] | None:
    """Return the recorded ids of a lookup's forward call, if they are valid."""
    ids = event.pass_trace_id or "", event.pass_span_id or ""
    valid = _TRACE_ID.fullmatch(ids[0]) and _SPAN_ID.fullmatch(ids[1])
    return ids if valid else None


def _trace_id(event: TraceEvent) -> int:
    """Return the run id as a number; if it is not one, a hash of the run's first record."""
    if _TRACE_ID.fullmatch(event.run_id or ""):
        return int(event.run_id or "", 16)
    return int.from_bytes(sha256(line_of(event)).digest()[:16], "big") or 1
