"""Delivery of a run's spans: the SDK's batch processor, with exact counts and a bounded close."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from forwardscope.cli.otlp_exporter import OtlpExporter
from forwardscope.cli.targets import positive_setting
from forwardscope.core.forks import reset_in_children
from forwardscope.telemetry import names
from forwardscope.telemetry.delivery import run_with_timeout
from forwardscope.telemetry.span_factory import SpanOutcome

__all__ = ["SpanDelivery"]

#: The SDK's default of 2,048 spans would not fit the hit spans of two probes.
_QUEUE_SIZE = 16_384
_BATCH_SIZE = 512
_DELAY_MS = 500


class SpanDelivery(SpanProcessor):
    """Passes ended spans to the SDK's batch processor and counts their outcomes.

    The batch processor drops spans silently when its queue is full, so spans are
    counted before and after it. At any moment ended = exported + dropped + pending;
    after `close` none is pending. Ending a span never waits for the receiver.
    Thread-safe.

    Args:
        exporter: The exporter; called in the batch processor's thread.

    Raises:
        OutputError: A variable OTEL_BSP_* is not a positive whole number.
    """

    def __init__(self, exporter: OtlpExporter[Sequence[ReadableSpan]]) -> None:
        self._exporter = exporter
        self._counts = _Counts()
        self._counting_exporter = _CountingExporter(exporter, self._counts)
        self._processor = _batch_processor(self._counting_exporter)
        self._close_failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why spans were dropped; None if none were."""
        return self._counting_exporter.failure or self._close_failure

    def on_end(self, span: ReadableSpan) -> None:
        """Count an ended span and queue it; after `close`, count it as dropped."""
        self._counts.add(names.kind_of(span.name))
        self._processor.on_end(span)

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by kind and outcome."""
        return self._counts.outcomes()

    def close(self, timeout_s: float) -> None:
        """Export the queue, and drop the spans that are not delivered in time.

        The counts are final afterwards. A second call does nothing. The batch
        processor's shutdown has no timeout parameter (it waits 30 s for the exporter
        in SDK 1.45, and without a bound in 1.30), so it runs in a thread that may
        outlive this call.
        """
        if self._counts.final:
            return
        drained = False
        try:
            drained = run_with_timeout(timeout_s, self._processor.shutdown)
        finally:  # final even if the wait is interrupted
            undelivered = self._counts.finish()
        if undelivered:
            self._close_failure = "the queue was full" if drained else "not delivered in time"
        if not drained:
            reason = self._exporter.abort()
            if self._close_failure and reason:
                self._close_failure = reason


class _Counts:
    """Spans by kind and outcome. Thread-safe; a forked child starts at zero.

    Attributes:
        final: Whether outcomes are no longer counted and no span is pending.
    """

    def __init__(self) -> None:
        self.final = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Start at zero, with a new lock."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, SpanOutcome]] = Counter()

    def add(self, kind: str) -> None:
        """Count an ended span: as pending, or as dropped once the counts are final."""
        with self._lock:
            self._counts[kind, "dropped" if self.final else "pending"] += 1

    def settle(self, spans: Sequence[ReadableSpan], accepted: int) -> bool:
        """Count the outcome of a batch, unless the counts are final; return whether it counts.

        Which spans a receiver accepted is not known; the first ones count as exported.
        """
        with self._lock:
            if not self.final:
                for number, kind in enumerate(names.kind_of(span.name) for span in spans):
                    self._counts[kind, "pending"] -= 1
                    self._counts[kind, "exported" if number < accepted else "dropped"] += 1
            return not self.final

    def finish(self) -> int:
        """Count pending spans as dropped and make the counts final; return their number."""
        with self._lock:
            self.final = True
            pending = {key: n for key, n in self._counts.items() if key[1] == "pending"}
            for (kind, outcome), n in pending.items():
                self._counts[kind, "dropped"] += n
                del self._counts[kind, outcome]
            return sum(pending.values())

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return a consistent snapshot of the counts."""
        with self._lock:
            return +self._counts


class _CountingExporter(SpanExporter):
    """Counts the outcomes of an exporter; exports nothing once the counts are final.

    Attributes:
        failure: Reason of the last failed batch.
    """

    def __init__(self, exporter: OtlpExporter[Sequence[ReadableSpan]], counts: _Counts) -> None:
        self.failure: str | None = None
        self._exporter = exporter
        self._counts = counts

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch and count its outcome."""
        if self._counts.final:
            return SpanExportResult.FAILURE
        accepted, failure = self._exporter.send(spans)
        counted = self._counts.settle(spans, accepted)
        if failure and counted:
            self.failure = failure
        return SpanExportResult.FAILURE if failure else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()


def _batch_processor(exporter: SpanExporter) -> BatchSpanProcessor:
    queue_size = positive_setting(OTEL_BSP_MAX_QUEUE_SIZE, _QUEUE_SIZE)
    return BatchSpanProcessor(
        exporter,
        max_queue_size=queue_size,
        schedule_delay_millis=positive_setting(OTEL_BSP_SCHEDULE_DELAY, _DELAY_MS),
        max_export_batch_size=min(
            queue_size, positive_setting(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, _BATCH_SIZE)
        ),
    )
