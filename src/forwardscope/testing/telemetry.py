"""In-memory spans and metrics for tests, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from forwardscope.errors import MissingExtraError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.telemetry.collector import register

__all__ = ["InMemoryTelemetry", "SeenSpan", "StepClock"]


class StepClock:
    """A `Clock` that advances by one millisecond at each reading. Thread-safe."""

    STEP_NS: Final = 1_000_000
    EPOCH_NS: Final = 1_700_000_000_000_000_000

    def __init__(self) -> None:
        self._steps = count(1)

    def perf_counter_ns(self) -> int:
        """Return the next millisecond, in nanoseconds; the first reading is 1 ms."""
        return next(self._steps) * self.STEP_NS

    def time_ns(self) -> int:
        """Return a fixed time, in nanoseconds since the epoch."""
        return self.EPOCH_NS


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """A span as plain data.

    Attributes:
        id: Number of the span, from 1 in order of start.
        parent: Number of its parent; None for a root, or if the parent was not recorded.
        trace: Number of its trace, from 1 in order of start.
        name: Name of the span.
        start_ms: Start, in milliseconds since the start of the first span.
        end_ms: End, in milliseconds since the start of the first span.
        attributes: Attributes of the span.
        status: `unset`, `ok` or `error`.
        links: Numbers of the recorded spans that it links to.
        kind: `internal`, or `client` for a call of a server.
    """

    id: int
    parent: int | None
    trace: int
    name: str
    start_ms: float
    end_ms: float
    attributes: dict[str, Any] = field(default_factory=dict)
    status: str = "unset"
    links: tuple[int, ...] = ()
    kind: str = "internal"


class InMemoryTelemetry:
    """A tracer provider and a metrics registry with in-memory storage.

        telemetry = InMemoryTelemetry()
        backend = ScriptedBackend(instrumentation=telemetry.instrumentation())
        run_suite(spec, backend)
        assert telemetry.spans()[0].name == "suite nightly"
        assert telemetry.metrics()["forwardscope_cache_entries", "default"] == 7

    Raises:
        MissingExtraError: The OpenTelemetry SDK is not installed.

    Attributes:
        clock: Clock of every instrumentation.
        tracer_provider: Receives the spans.
        registry: Exports the metrics.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - of an extra
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415
                InMemorySpanExporter,
            )
        except ImportError as error:
            raise MissingExtraError("opentelemetry-sdk", "otel") from error
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - the import registers global collectors

        self.clock = StepClock()
        self.registry = CollectorRegistry()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self._memory = InMemorySpanExporter()
        self._instrumentations: list[BackendInstrumentation] = []
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._memory))

    def instrumentation(self, **settings: Any) -> BackendInstrumentation:
        """Return a new `BackendInstrumentation` that reports here; `settings` are its arguments."""
        instrumentation = BackendInstrumentation(
            tracer_provider=self.tracer_provider, clock=self.clock, **settings
        )
        register(instrumentation, self.registry)
        self._instrumentations.append(instrumentation)
        return instrumentation

    def spans(self) -> list[SeenSpan]:
        """Return all ended spans by start time, each parent before its children."""
        for instrumentation in self._instrumentations:
            instrumentation.spans.flush(timeout_s=60.0)
        ended = sorted(
            self._memory.get_finished_spans(),
            key=lambda span: (span.start_time, -(span.end_time or 0), span.name),
        )
        return list(_numbered(ended))

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Return all samples by (name, label value…), with values in order of the label names."""
        return {
            (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
            for family in self.registry.collect()
            for sample in family.samples
        }


def _numbered(ended: Sequence[Any]) -> Iterator[SeenSpan]:
    ids = {span.context.span_id: number for number, span in enumerate(ended, 1)}
    traces: dict[int, int] = {}
    for span in ended:
        yield SeenSpan(
            id=ids[span.context.span_id],
            parent=None if span.parent is None else ids.get(span.parent.span_id),
            trace=traces.setdefault(span.context.trace_id, len(traces) + 1),
            name=span.name,
            start_ms=(span.start_time - ended[0].start_time) / 1e6,
            end_ms=(span.end_time - ended[0].start_time) / 1e6,
            attributes=dict(span.attributes),
            status=span.status.status_code.name.lower(),
            links=tuple(
                ids[link.context.span_id] for link in span.links if link.context.span_id in ids
            ),
            kind=span.kind.name.lower(),
        )
