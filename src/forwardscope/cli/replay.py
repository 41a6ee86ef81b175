"""Spans made from a trace file, for runs without an OTLP receiver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from forwardscope.core.series import Counts
from forwardscope.telemetry import names
from forwardscope.telemetry.spans import MAX_LINKS
from forwardscope.text import printable
from forwardscope.trace import TraceEvent
from forwardscope.trace.writer import line_of

__all__ = ["Replay"]

_RUN_ID_DIGITS: Final = 32


@dataclass(slots=True)
class _SpanData:
    """Identity and times of a span; for a run or a probe, updated with each lookup.

    Attributes:
        context: The span's context.
        start_ns: Start of the first lookup, in nanoseconds since the epoch.
        end_ns: End of the last lookup, likewise.
        counts: Counts of the lookups.
    """

    context: SpanContext
    start_ns: int
    end_ns: int
    counts: Counts = field(default_factory=Counts)

    def add(self, event: TraceEvent, start_ns: int, end_ns: int) -> None:
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
class _Batch:
    """The misses of a forward batch that are read so far."""

    first: TraceEvent
    parent: SpanContext
    end_ns: int
    links: list[Link] = field(default_factory=list)
    wall_ms: float = 0.0
    tokens: int = 0
    tokens_reused: int = 0

    def count_tokens(self, event: TraceEvent) -> None:
        """Add the tokens of one miss."""
        self.tokens += event.tokens or 0
        self.tokens_reused += event.tokens_reused or 0


class Replay:
    """Iterates over the spans of a trace's runs, with their recorded times.

    There is a `suite.run` per run, a `probe.run` per probe, a `cache.lookup` per
    lookup, and a `forward` per forward pass or batch. The duration of a batch is the
    sum of its misses' shares. The trace id is the run id. A second replay gives the
    same ids, so that a receiver can detect duplicates.

    Args:
        events: The records, in the order of the file.
        resource: Resource of the spans.
        version: Version of forwardscope, for the instrumentation scope.
    """

    def __init__(self, events: Iterable[TraceEvent], resource: Resource, version: str) -> None:
        self._events = events
        self._resource = resource
        self._scope = InstrumentationScope(names.TRACER, version)
        self._runs: dict[str | None, _SpanData] = {}
        self._probes: dict[tuple[str | None, str], _SpanData] = {}
        self._batches: dict[tuple[str | None, str | None, str, str], _Batch] = {}
        self._serial = 0

    @property
    def trace_ids(self) -> list[str]:
        """Trace ids of the runs so far, 32 hex digits each."""
        return [f"{run.context.trace_id:032x}" for run in self._runs.values()]

    def __iter__(self) -> Iterator[ReadableSpan]:
        """Yield all spans; those of probes and runs come last."""
        for event in self._events:
            yield from self._lookup_spans(event)
        for batch in self._batches.values():
            yield self._forward_span(batch)
        for (run_id, name), probe in self._probes.items():
            attributes = {names.CASE_NAME.name: printable(name), **_total_attributes(probe.counts)}
            parent = self._runs[run_id].context
            yield self._span(names.PROBE_RUN, probe.context, parent, probe, attributes)
        for run_id, run in self._runs.items():
            attributes = {} if run_id is None else {names.RUN_ID.name: printable(run_id)}
            attributes |= _total_attributes(run.counts)
            yield self._span(names.SUITE_RUN, run.context, None, run, attributes)

    def _lookup_spans(self, event: TraceEvent) -> Iterator[ReadableSpan]:
        end_ns = round(event.ts * 1e9)
        start_ns = end_ns - round(event.wall_ms * (event.batch or 1) * 1e6)
        run = self._runs.get(event.run_id)
        if run is None:
            context = self._context(_trace_id(event))
            run = self._runs[event.run_id] = _SpanData(context, start_ns, end_ns)
        run.add(event, start_ns, end_ns)
        parent = run.context
        if event.probe is not None:
            key = (event.run_id, event.probe)
            if key not in self._probes:
                self._probes[key] = _SpanData(self._context(parent.trace_id), start_ns, end_ns)
            self._probes[key].add(event, start_ns, end_ns)
            parent = self._probes[key].context
        context = self._context(parent.trace_id)
        times = _SpanData(context, start_ns, end_ns)
        yield self._span(
            names.LOOKUP, context, parent, times, _lookup_attributes(event), event.error
        )
        if not event.hit:
            yield from self._forward_spans(event, context, parent, end_ns)

    def _forward_spans(
        self, event: TraceEvent, lookup: SpanContext, parent: SpanContext, end_ns: int
    ) -> Iterator[ReadableSpan]:
        if (event.batch or 1) == 1:
            single = _Batch(event, lookup, end_ns, [], event.wall_ms)
            single.count_tokens(event)
            yield self._forward_span(single)
            return
        key = (event.run_id, event.probe, event.view_id, event.op)
        batch = self._batches.get(key)
        if batch is not None and (batch.first.batch, batch.first.error) != (
            event.batch,
            event.error,
        ):
            yield self._forward_span(self._batches.pop(key))
            batch = None
        if batch is None:
            batch = self._batches[key] = _Batch(event, parent, end_ns)
        batch.links.append(Link(lookup))
        batch.end_ns = end_ns
        batch.wall_ms += event.wall_ms
        batch.count_tokens(event)
        if len(batch.links) == event.batch:
            yield self._forward_span(self._batches.pop(key))

    def _forward_span(self, batch: _Batch) -> ReadableSpan:
        context = self._context(batch.parent.trace_id)
        first = batch.first
        attributes: dict[str, Any] = {
            names.OPERATION.name: "score",
            names.OP.name: printable(first.op),
            names.VIEW.name: printable(first.view_id),
            names.BATCH_SIZE.name: first.batch or 1,
        }
        if batch.tokens:
            attributes[names.INPUT_TOKENS.name] = batch.tokens
        if batch.tokens_reused:
            attributes[names.REUSED_TOKENS.name] = batch.tokens_reused
        times = _SpanData(context, batch.end_ns - round(batch.wall_ms * 1e6), batch.end_ns)
        links = batch.links[:MAX_LINKS]
        return self._span(
            names.FORWARD, context, batch.parent, times, attributes, first.error, links
        )

    def _context(self, trace_id: int) -> SpanContext:
        self._serial += 1
        digest = sha256(f"{trace_id:032x}:{self._serial}".encode()).digest()
        span_id = int.from_bytes(digest[:8], "big") or 1
        return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))

    def _span(
        self,
        kind: names.Span,
        context: SpanContext,
        parent: SpanContext | None,
        times: _SpanData,
        attributes: Mapping[str, Any],
        error: str | None = None,
        links: Sequence[Link] = (),
    ) -> ReadableSpan:
        if error is not None:
            attributes = {**attributes, names.ERROR_TYPE.name: printable(error)}
        return ReadableSpan(
            kind.name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            links=links,
            kind=SpanKind.INTERNAL,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
            start_time=max(0, times.start_ns),  # OTLP has no time before the epoch
            end_time=max(0, times.end_ns),
        )


def _trace_id(event: TraceEvent) -> int:
    """Return the run id as a number; if it is not one, a hash of the run's first record."""
    run_id = event.run_id or ""
    if len(run_id) == _RUN_ID_DIGITS and set(run_id) <= set("0123456789abcdef"):
        return int(run_id, 16) or 1
    return int.from_bytes(sha256(line_of(event)).digest()[:16], "big") or 1


def _lookup_attributes(event: TraceEvent) -> dict[str, Any]:
    return {
        names.OP.name: printable(event.op),
        names.VIEW.name: printable(event.view_id),
        names.PROMPT_HASH.name: printable(event.prompt_hash),
        names.TOP_K.name: event.top_k,
        names.CACHE_RESULT.name: (event.result or "hit") if event.hit else "miss",
    }


def _total_attributes(counts: Counts) -> dict[str, Any]:
    return {
        names.TOTAL_LOOKUPS.name: counts.lookups,
        names.TOTAL_HITS.name: counts.hits + counts.coalesced,
        names.TOTAL_PASSES.name: counts.forward_passes,
        names.TOTAL_ERRORS.name: counts.forward_errors,
        names.TOTAL_FORWARD_S.name: counts.forward_ns / 1e9,
    }
