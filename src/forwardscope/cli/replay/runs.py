"""Runs, probes and lookups of a trace file as spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from forwardscope.cli.replay.calls import ForwardCall, Interval, RecordedCall, recorded_calls
from forwardscope.cli.replay.ids import ForwardLinks, SpanIds, trace_id_of
from forwardscope.cli.replay.spans import Place, SpanMaker
from forwardscope.core.keys import view_family
from forwardscope.core.series import Counts
from forwardscope.suite.execution import FINITE_CHECK
from forwardscope.suite.result import SuiteResult
from forwardscope.trace import TraceEvent

__all__ = ["Replay"]


@dataclass(slots=True)
class _Branch:
    """A run or a probe: its place among the spans, its times and its counts so far.

    Attributes:
        context: The context of its span.
        parent: That of its parent, or None.
        times: From its first lookup to its last; None before the first.
        counts: Counts of its lookups.
    """

    context: SpanContext
    parent: SpanContext | None
    times: Interval | None = None
    counts: Counts = field(default_factory=Counts)

    def extend(self, times: Interval) -> None:
        """Include a call."""
        start_ns, end_ns = self.times or times
        self.times = Interval(min(start_ns, times.start_ns), max(end_ns, times.end_ns))

    def count(self, event: TraceEvent) -> None:
        """Count a lookup."""
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
class _Run(_Branch):
    """A run, with its probes by name.

    Attributes:
        probes: Its probes so far.
        began: Whether its check or a probe has begun.
    """

    probes: dict[str, _Branch] = field(default_factory=dict)
    began: bool = False

    def probe_of(self, event: TraceEvent, ids: SpanIds) -> _Branch | None:
        """Return the probe of a lookup; None for one of a program without probes."""
        name = event.probe
        if name is None and event.run_id is not None:
            name = FINITE_CHECK  # the only lookups of a run outside its probes
        if name is not None and name not in self.probes:
            self.probes[name] = _Branch(ids.new(self.context.trace_id), self.context)
        return None if name is None else self.probes[name]

    def comes_ahead(self, call: RecordedCall) -> bool:
        """Whether a call is made for a later probe, and is therefore below the run.

        Where another view is expensive to open, a run begins with batches of all prompts
        in the base view. Its check, which follows, is of single lookups.
        """
        first = next(call.records)
        of_run = first.run_id is not None and view_family(first.view_id) == "base"
        self.began = self.began or not (of_run and call.is_batch)
        return not self.began


class Replay:
    """Iterates over the spans of a trace's runs, with their recorded times.

    The spans are those of a run with a receiver (see `RecordedCall` for the times of a
    batch): in a run of one thread their self times sum to the run. Each lookup leads to
    its forward call (see `ForwardLinks`). The trace id is the run id. A second replay
    gives the same ids, so that a receiver can detect duplicates.

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
        self._spans = SpanMaker(resource, version, result)
        self._ids = SpanIds()
        self._links = ForwardLinks(self._ids)
        self._runs: dict[str | None, _Run] = {}

    @property
    def trace_ids(self) -> list[str]:
        """Trace ids of the runs so far, 32 hex digits each."""
        return [f"{run.context.trace_id:032x}" for run in self._runs.values()]

    def __iter__(self) -> Iterator[ReadableSpan]:
        """Yield all spans; those of probes and runs come last."""
        for call in recorded_calls(self._events):
            yield from self._of_call(call)
        for run_id, run in self._runs.items():
            for name, probe in run.probes.items():
                if probe.times is not None:
                    place = Place(probe.context, probe.parent, probe.times)
                    yield self._spans.probe(run_id, name, place, probe.counts)
            if run.times is not None:
                place = Place(run.context, run.parent, run.times)
                yield self._spans.run(run_id, place, run.counts)

    def _parent(self, call: RecordedCall) -> SpanContext:
        """Count a call in its run and its probe; return the context of its parent."""
        first = next(call.records)
        run = self._runs.get(first.run_id)
        if run is None:
            run = self._runs[first.run_id] = _Run(self._ids.new(trace_id_of(first)), None)
        probe = run.probe_of(first, self._ids)
        for branch in filter(None, (run, probe)):
            for event in call.records:
                branch.count(event)
        run.extend(call.times)
        if run.comes_ahead(call) or probe is None:
            return run.context
        probe.extend(call.times)
        return probe.context

    def _of_call(self, call: RecordedCall) -> Iterator[ReadableSpan]:
        """Yield the spans of a call; that of a batch comes after those of its parts."""
        parent, batch = self._parent(call), None
        if call.is_batch:
            batch = self._place(parent, call.times)
            parent = batch.context
        yield from self._of_hits(call.hits, parent)
        for forward in call.forwards:
            yield from self._of_misses(forward, parent, in_batch=call.is_batch)
        yield from self._of_hits(call.coalesced, parent)
        if batch is not None:
            yield self._spans.batch(call, batch)

    def _of_hits(
        self, hits: Iterable[tuple[TraceEvent, Interval]], parent: SpanContext
    ) -> Iterator[ReadableSpan]:
        for event, times in hits:
            link = self._links.of_hit(event, parent.trace_id)
            yield self._spans.lookup(event, self._place(parent, times), link)

    def _of_misses(
        self, call: ForwardCall, parent: SpanContext, *, in_batch: bool
    ) -> Iterator[ReadableSpan]:
        """Yield the spans of a forward call and its misses, of which a single one is its parent."""
        context = self._links.of_misses(call.misses, parent.trace_id)
        start_ns, end_ns = call.times
        times = Interval(start_ns, start_ns if in_batch else end_ns)
        for event in call.misses:
            place = self._place(parent, times)
            yield self._spans.lookup(event, place, context if in_batch else None)
        above = parent if in_batch else place.context
        yield self._spans.forward(call.misses, Place(context, above, call.times))

    def _place(self, parent: SpanContext, times: Interval) -> Place:
        return Place(self._ids.new(parent.trace_id), parent, times)
