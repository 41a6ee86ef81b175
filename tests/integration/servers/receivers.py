"""Two OTLP receivers that keep what arrives: one for HTTP, one for gRPC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from .processes import PATIENCE_S, Samples, free_port, key, until


class Receiver:
    """What arrived. Safe under threads.

    Attributes:
        url: For `--otlp`.
        stop: Stop listening, in the middle of whatever goes on; twice is once.
    """

    def __init__(self) -> None:
        self.url = ""
        self.stop: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._resources: list[dict[str, Any]] = []
        self._metrics: dict[str, Metric] = {}

    def take(self, span: Span) -> None:
        """Keep a span."""
        with self._lock:
            self._spans.append(span)

    def take_request(self, request: ExportTraceServiceRequest) -> None:
        """Keep a whole request."""
        for resource in request.resource_spans:
            with self._lock:
                self._resources.append(attributes(resource.resource))
                self._spans += [span for scope in resource.scope_spans for span in scope.spans]

    def take_metric(self, metric: Metric) -> None:
        """Keep a metric, in place of an earlier one of its name."""
        with self._lock:
            self._metrics[metric.name] = metric

    def numbers(self) -> Samples:
        """The latest values of the counters and gauges."""
        with self._lock:
            metrics = list(self._metrics.values())
        return {
            key(metric.name, **attributes(point)): getattr(point, point.WhichOneof("value"))
            for metric in metrics
            for point in [*metric.sum.data_points, *metric.gauge.data_points]
        }

    @property
    def resources(self) -> list[dict[str, Any]]:
        """Attributes of what the spans came from, where the receiver tells."""
        with self._lock:
            return list(self._resources)

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """The spans so far, of one trace or of all."""
        with self._lock:
            spans = list(self._spans)
        return [one for one in spans if trace_id in (None, one.trace_id.hex())]

    def wait_for(self, trace_id: str, number: int) -> list[Span]:
        """The spans of a trace, once there are as many; more of them is an error."""
        until(lambda: len(self.spans(trace_id)) >= number, f"{number} spans of {trace_id} arrive")
        spans = self.spans(trace_id)
        assert len(spans) == number
        return spans


def attributes(carrier: Any) -> dict[str, Any]:
    """The attributes of a span or of a resource."""
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value")) for one in carrier.attributes
    }


@contextmanager
def receive_http() -> Iterator[Receiver]:
    """oteltap, in a thread with a loop of its own."""
    receiver = Receiver()
    ready, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    port = free_port()

    async def serve() -> None:
        settings = OtelTapHttpProtobufReceiverSettings(http_port=port)
        async with OtelTapHttpProtobufReceiver(settings) as tap:
            pumps = [
                asyncio.create_task(_pump(tap.stream_traces(), receiver.take)),
                asyncio.create_task(_pump(tap.stream_metrics(), receiver.take_metric)),
            ]
            await asyncio.sleep(0)  # the pumps listen from now on
            ready.set()
            await ended.wait()
        await asyncio.gather(*pumps)

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=work, name="oteltap", daemon=True)

    def stop() -> None:
        if thread.is_alive():
            loop.call_soon_threadsafe(ended.set)
            thread.join(PATIENCE_S)

    thread.start()
    assert ready.wait(PATIENCE_S), "oteltap does not listen"
    receiver.url, receiver.stop = f"http://127.0.0.1:{port}", stop
    try:
        yield receiver
    finally:
        stop()


async def _pump(stream: AsyncIterator[Any], take: Callable[[Any], None]) -> None:
    async for message in stream:
        take(message)


class _Servicer(TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(  # noqa: N802 - the protocol's name
        self, request: ExportTraceServiceRequest, context: object
    ) -> ExportTraceServiceResponse:
        self._receiver.take_request(request)
        return ExportTraceServiceResponse()


class _MetricsServicer(MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(  # noqa: N802 - the protocol's name
        self, request: ExportMetricsServiceRequest, context: object
    ) -> ExportMetricsServiceResponse:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._receiver.take_metric(metric)
        return ExportMetricsServiceResponse()


@contextmanager
def receive_grpc() -> Iterator[Receiver]:
    """A gRPC server with OTLP's services of traces and metrics."""
    receiver = Receiver()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_TraceServiceServicer_to_server(_Servicer(receiver), server)
        add_MetricsServiceServicer_to_server(_MetricsServicer(receiver), server)
        receiver.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        receiver.stop = lambda: server.stop(0).wait()
        server.start()
        try:
            yield receiver
        finally:
            receiver.stop()


@contextmanager
def receive_pushes() -> Iterator[str]:
    """A server that takes every push, as a Pushgateway does, and keeps none; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log no push."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
