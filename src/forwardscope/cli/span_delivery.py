"""Delivery of a run's spans: the SDK's batch processor, with exact counts and a bounded close."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from forwardscope.cli.otlp import OtlpExporter
from forwardscope.core.forks import reset_in_children
from forwardscope.errors import OutputError
from forwardscope.telemetry.span_factory import SpanOutcome

__all__ = ["SpanDelivery"]

#: Spans. The SDK's own default of 2,048 is one probe's hit spans.
_QUEUE_SIZE = 16_384
_BATCH_SIZE = 512
_DELAY_MS = 500
#: For the reason of a failure and the exporter's shutdown, after a close that ran out of time.
_GIVE_UP_S = 0.2


class SpanDelivery(SpanProcessor):
    """Hands ended spans to the SDK's batch processor and counts what becomes of them.

    The batch processor drops silently where its queue is full, so spans are
    counted at both ends: ended = exported + dropped + pending at any moment, and
    nothing is pending after `close`. Ending a span never waits for the receiver.
    Safe under threads.

    Args:
        exporter: Delivers the spans; called in the batch processor's thread.

    Raises:
        OutputError: A variable OTEL_BSP_* is no positive whole number.
    """

    def __init__(self, exporter: OtlpExporter) -> None:
        self._exporter = exporter
        self._counts = _Counts()
        self._counted = _CountingExporter(exporter, self._counts)
        self._processor = _batch_processor(self._counted)
        self._left: str | None = None

    @property
    def failure(self) -> str | None:
        """Why spans were dropped; None where none were."""
        return self._counted.failure or self._left

    def on_end(self, span: ReadableSpan) -> None:
        """Count a span that has ended and queue it; after `close` it is dropped."""
        self._counts.end(span.name)
        self._processor.on_end(span)

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return how many spans, by name and outcome."""
        return self._counts.outcomes()

    def close(self, timeout_s: float) -> None:
        """Export what is queued, and drop what is not delivered in time. Twice is once.

        The counts are final afterwards. The batch processor's shutdown takes no
        time-out (it waits for the exporter 30 s in SDK 1.45, and without a bound
        in 1.30), so it runs in a thread that may outlive this call.
        """
        if self._counts.final:
            return
        drained = False
        try:
            drained = _within(timeout_s, self._processor.shutdown)
        finally:  # final even where the wait is interrupted
            left = self._counts.finish()
        if left:
            self._left = "the queue was full" if drained else "not delivered in time"
        if not drained:
            self._give_up()

    def _give_up(self) -> None:
        reasons: list[str] = []

        def stop() -> None:
            reasons.append(self._exporter.last_error() or "")
            self._exporter.shutdown()

        _within(_GIVE_UP_S, stop)
        if self._left and reasons and reasons[0]:
            self._left = reasons[0]


class _Counts:
    """Spans by name and outcome. Safe under threads; a forked child begins at zero.

    Attributes:
        final: Whether nothing is pending any more, and answers are not counted.
    """

    def __init__(self) -> None:
        self.final = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin at zero, with a lock that is free."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, SpanOutcome]] = Counter()

    def end(self, name: str) -> None:
        """Count a span that has ended."""
        with self._lock:
            self._counts[name, "dropped" if self.final else "pending"] += 1

    def answer(self, spans: Sequence[ReadableSpan], outcome: SpanOutcome) -> bool:
        """Count the outcome of a batch; say whether it came in time to be counted."""
        with self._lock:
            if not self.final:
                for span in spans:
                    self._counts[span.name, "pending"] -= 1
                    self._counts[span.name, outcome] += 1
            return not self.final

    def finish(self) -> int:
        """Count what is pending as dropped; return how many that are."""
        with self._lock:
            self.final = True
            pending = {key: n for key, n in self._counts.items() if key[1] == "pending"}
            for (name, outcome), n in pending.items():
                self._counts[name, "dropped"] += n
                del self._counts[name, outcome]
            return sum(pending.values())

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the counts as of one moment."""
        with self._lock:
            return +self._counts


class _CountingExporter(SpanExporter):
    """Counts what another exporter delivers; sends nothing once the counts are final.

    Attributes:
        failure: Why the last lost batch was lost.
    """

    def __init__(self, exporter: OtlpExporter, counts: _Counts) -> None:
        self.failure: str | None = None
        self._exporter = exporter
        self._counts = counts

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver a batch and count its outcome."""
        if self._counts.final:
            return SpanExportResult.FAILURE
        failure = self._exporter.send(spans)
        in_time = self._counts.answer(spans, "dropped" if failure else "exported")
        if failure and in_time:
            self.failure = failure
        return SpanExportResult.FAILURE if failure else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown()


def _batch_processor(exporter: SpanExporter) -> BatchSpanProcessor:
    queue_size = _setting(OTEL_BSP_MAX_QUEUE_SIZE, _QUEUE_SIZE)
    return BatchSpanProcessor(
        exporter,
        max_queue_size=queue_size,
        schedule_delay_millis=_setting(OTEL_BSP_SCHEDULE_DELAY, _DELAY_MS),
        max_export_batch_size=min(
            queue_size, _setting(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, _BATCH_SIZE)
        ),
    )


def _setting(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if text and not (text.isdecimal() and int(text) > 0):
        raise OutputError(f"{variable} is {text!r}; write a whole number above 0")
    return int(text or default)


def _within(timeout_s: float, call: Callable[[], None]) -> bool:
    """Call something in a daemon thread; say whether it ended in time."""

    def work() -> None:
        with suppress(Exception):  # foreign code; no error of it fails a run
            call()

    thread = threading.Thread(target=work, name="forwardscope-close", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system gives no more threads
        return False
    thread.join(timeout_s)
    return not thread.is_alive()
