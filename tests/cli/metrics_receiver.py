"""Receivers of OTLP metrics on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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


class Receiver(MetricsServiceServicer):
    """Records the requests of a receiver, and answers as it is told.

    Attributes:
        status: Status of each answer over HTTP.
        location: Its header Location.
        answer: The message of each answer.
        requests: The requests so far.
        paths: Their paths and their header Authorization, over HTTP.
        received: Is released by each request.
    """

    def __init__(self) -> None:
        self.url, self.status, self.location = "", 200, ""
        self.answer = ExportMetricsServiceResponse()
        self.requests: list[ExportMetricsServiceRequest] = []
        self.paths: list[tuple[str, str | None]] = []
        self.received = threading.Semaphore(0)

    def Export(  # noqa: N802 - the protocol's name
        self, request: ExportMetricsServiceRequest, context: object
    ) -> ExportMetricsServiceResponse:
        """Record a request."""
        self.requests.append(request)
        self.received.release()
        return self.answer

    def points(self, name: str, request: int = -1) -> list[Any]:
        """The data points of a metric that is no histogram, in one request."""
        (resource,) = self.requests[request].resource_metrics
        (scope,) = resource.scope_metrics
        return [
            point
            for metric in scope.metrics
            if metric.name == name
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    def total(self, name: str, request: int = -1) -> float:
        """The sum over all data points of a metric, in one request."""
        points = self.points(name, request)
        return sum(getattr(point, point.WhichOneof("value")) for point in points)

    def resource(self) -> dict[str, str]:
        """The attributes of the resource of the last request."""
        attributes = self.requests[-1].resource_metrics[0].resource.attributes
        return {one.key: one.value.string_value for one in attributes}


@contextmanager
def receive_http() -> Iterator[Receiver]:
    """Receive over HTTP; what is no OTLP request is accepted too."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportMetricsServiceRequest()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if "protobuf" in self.headers["Content-Type"]:
                request.ParseFromString(body)
            receiver.paths.append((self.path, self.headers["Authorization"]))
            answer = receiver.Export(request, None).SerializeToString()
            self.send_response(receiver.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            if receiver.location:
                self.send_header("Location", receiver.location)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        yield receiver
        server.shutdown()
        thread.join()


@contextmanager
def receive_grpc() -> Iterator[Receiver]:
    """Receive over gRPC."""
    receiver = Receiver()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_MetricsServiceServicer_to_server(receiver, server)
        receiver.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield receiver
        server.stop(0).wait()
