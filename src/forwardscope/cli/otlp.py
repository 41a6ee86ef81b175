"""Spans to an OTLP receiver, every one of them accounted for.

The SDK's batch processor drops silently when it is full, and its flush waits
as long as the exporter likes; this one counts, and keeps to its time.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter, deque
from importlib.metadata import version

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from forwardscope.cli.targets import OtlpTarget
from forwardscope.telemetry.maker import Outcome

__all__ = ["SpanPipeline", "make_exporter", "make_provider", "make_resource"]

_CAPACITY = 8192
_CHUNK = 512
_DELAY_S = 0.5
_TRACES_PATH = "/v1/traces"
_LONGEST_REASON = 160
#: What an exporter says last, after whom it asked and how often.
_REASON = re.compile(r"(?:\[Errno -?\d+\]|remote host:|details:) ([\w ,]+)")


class SpanPipeline(SpanProcessor):
    """A bounded queue of ended spans and the thread that exports them.

    Ending a span never waits: where the queue is full it is counted as dropped,
    and so is each span of a batch that the receiver did not take. Safe under
    threads.

    Args:
        exporter: Where to; its `export` is called in the thread alone.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[ReadableSpan] = deque()
        self._exporting: list[ReadableSpan] = []
        self._counts: Counter[tuple[str, Outcome]] = Counter()
        self._closing = False
        self._closed = False
        self._heard = _LastWords()
        self._thread = threading.Thread(target=self._work, name="forwardscope-otlp", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """What the exporter said last when it failed."""
        return self._heard.message

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended."""
        with self._changed:
            if self._closed or len(self._queue) >= _CAPACITY:
                self._counts[span.name, "dropped"] += 1
                return
            self._queue.append(span)
            self._counts[span.name, "pending"] += 1
            if len(self._queue) in (1, _CHUNK):
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait while the queue is more than half full; not once it closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._queue) <= _CAPACITY // 2)

    def outcomes(self) -> Counter[tuple[str, Outcome]]:
        """Return how many spans, by name and by what became of them."""
        with self._changed:
            return +self._counts

    def close(self, timeout_s: float) -> None:
        """Export what is queued; what is not delivered in time is dropped. Twice is once."""
        with self._changed:
            if self._closed:
                return
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._queue or self._exporting), timeout_s)
            self._closed = True
            self._settle([*self._exporting, *self._queue], "dropped")
            self._exporting = []
            self._queue.clear()
            self._changed.notify_all()
        self._exporter.shutdown()

    def _work(self) -> None:
        try:
            self._export_all()
        finally:
            self._heard.stop()

    def _export_all(self) -> None:
        while chunk := self._next_chunk():
            try:
                delivered = self._exporter.export(chunk) is SpanExportResult.SUCCESS
            except Exception as error:  # noqa: BLE001 - counted and told; the run goes on
                delivered = False
                self._heard.note(f"{type(error).__name__}: {error}")
            with self._changed:
                if self._closed:  # too late: these were counted as dropped
                    return
                self._settle(chunk, "exported" if delivered else "dropped")
                self._exporting = []
                self._changed.notify_all()

    def _next_chunk(self) -> list[ReadableSpan]:
        """Wait for a batch that is worth sending; empty where there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(
                lambda: len(self._queue) >= _CHUNK or self._closing, timeout=_DELAY_S
            )
            size = min(_CHUNK, len(self._queue))
            self._exporting = [self._queue.popleft() for _ in range(size)]
            self._changed.notify_all()
            return self._exporting

    def _settle(self, spans: list[ReadableSpan], outcome: Outcome) -> None:
        for span in spans:
            self._counts[span.name, "pending"] -= 1
            self._counts[span.name, outcome] += 1


class _LastWords(logging.Handler):
    """Keeps what OpenTelemetry says of a failure for the report, and off the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.message: str | None = None
        self._logger = logging.getLogger("opentelemetry")
        others = self._others()  # a pipeline that was given up may still end after the next began
        self._propagated: bool = others[0]._propagated if others else self._logger.propagate
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if "shutdown" not in said.lower():  # that is our own doing
            self.note(said)

    def note(self, said: str) -> None:
        known = _REASON.findall(said)
        self.message = known[-1] if known else said[:_LONGEST_REASON]

    def stop(self) -> None:
        self._logger.removeHandler(self)
        if not self._others():
            self._logger.propagate = self._propagated

    def _others(self) -> list[_LastWords]:
        return [one for one in self._logger.handlers if isinstance(one, _LastWords)]


def make_exporter(target: OtlpTarget) -> SpanExporter:
    """Return an exporter; headers, time-out, compression and TLS are the standard variables'."""
    endpoint = target.url if target.asked else None
    if target.protocol == "grpc":
        # its core writes to stderr for itself, about what the report tells anyway
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter(endpoint and endpoint.replace("grpc://", "http://", 1))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter as HttpExporter,
    )

    if endpoint and not endpoint.endswith(_TRACES_PATH):
        endpoint = endpoint.rstrip("/") + _TRACES_PATH
    return HttpExporter(endpoint)


def make_resource() -> Resource:
    """Return what spans say of the program; the standard variables go before."""
    named = Resource({SERVICE_NAME: "forwardscope", SERVICE_VERSION: version("forwardscope")})
    asked = {
        key: value
        for key, value in Resource.create().attributes.items()
        if not (key == SERVICE_NAME and str(value).startswith("unknown_service"))
    }
    return named.merge(Resource(asked))


def make_provider(pipeline: SpanPipeline) -> TracerProvider:
    """Return a tracer provider of the program's own; sampling is the standard variables'."""
    provider = TracerProvider(resource=make_resource(), shutdown_on_exit=False)
    provider.add_span_processor(pipeline)
    return provider
