"""OTLP exporters of the SDK, the reasons of their failures, and the CLI's tracer provider."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from forwardscope.cli.targets import OtlpTarget

__all__ = [
    "OtlpExporter",
    "RecordingSession",
    "connection_error",
    "make_exporter",
    "make_provider",
    "make_resource",
    "root_cause",
]

_TRACES_PATH = "/v1/traces"
_CONNECT_TIMEOUT_S = 1.0
_LONGEST_REASON = 160
#: With one of these the SDK's HTTP exporter loads a session of its own.
_CREDENTIAL_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
#: Without any handler, Python prints warnings to stderr.
_NO_OUTPUT = logging.NullHandler()


class OtlpExporter:
    """An exporter of the SDK, with the reason where it does not deliver.

    Args:
        exporter: The SDK's.
        last_error: Returns why the last attempt failed; None where that is not
            known, or where it did not fail.
    """

    def __init__(
        self, exporter: SpanExporter, last_error: Callable[[], str | None] = lambda: None
    ) -> None:
        self._exporter = exporter
        self.last_error = last_error

    def send(self, spans: Sequence[ReadableSpan]) -> str | None:
        """Export spans; return why they were not delivered, or None where they were."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - reported as the reason; the run goes on
            return root_cause(error)
        if result is SpanExportResult.SUCCESS:
            return None
        return self.last_error() or "not delivered"

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._exporter.shutdown()


class RecordingSession(requests.Session):
    """An HTTP session that keeps why its last request failed.

    Attributes:
        last_error: The reason; None after a success.
    """

    last_error: str | None = None

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request as the base class does."""
        try:
            response = super().request(*args, **kwargs)
        except Exception as error:
            self.last_error = root_cause(error)
            raise
        failed = f"HTTP {response.status_code}: {response.reason}"
        self.last_error = None if response.ok else failed
        return response


def root_cause(error: BaseException) -> str:
    """Return the innermost cause of an error as one line, such as "Connection refused"."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
    else:
        reason = f"{type(error).__name__}: {error}"
    return " ".join(reason.split())[:_LONGEST_REASON]


def connection_error(url: str) -> str | None:
    """Open a connection to a server and close it; return why that failed, or None."""
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        return None
    try:
        socket.create_connection((parts.hostname, parts.port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return root_cause(error)
    return None


def make_exporter(target: OtlpTarget) -> OtlpExporter:
    """Return an exporter to a receiver.

    Headers, time-out, compression and TLS come from the standard variables. The
    SDK's log lines are kept off the terminal from now on, even those of a thread
    that outlives a run: the report has the reason of a failure.
    """
    if target.protocol == "grpc":
        # its core writes to stderr by itself; the report has the reason
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        made = _grpc_exporter(target)
    else:
        made = _http_exporter(target)
    logging.getLogger("opentelemetry").addHandler(_NO_OUTPUT)
    return made


def _grpc_exporter(target: OtlpTarget) -> OtlpExporter:
    """Return a gRPC exporter.

    It keeps the error of a call to itself, so the reason of a failure is that of
    a plain connection.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    endpoint = target.url.replace("grpc://", "http://", 1) if target.asked else None
    return OtlpExporter(OTLPSpanExporter(endpoint), lambda: connection_error(target.url))


def _http_exporter(target: OtlpTarget) -> OtlpExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    endpoint = target.url if target.asked else None
    if endpoint and not endpoint.endswith(_TRACES_PATH):
        endpoint = endpoint.rstrip("/") + _TRACES_PATH
    if any(os.environ.get(name) for name in _CREDENTIAL_PROVIDERS):
        return OtlpExporter(OTLPSpanExporter(endpoint), lambda: connection_error(target.url))
    session = RecordingSession()
    return OtlpExporter(OTLPSpanExporter(endpoint, session=session), lambda: session.last_error)


def make_resource() -> Resource:
    """Return the resource of the CLI's spans; the standard variables take precedence."""
    named = Resource({SERVICE_NAME: "forwardscope", SERVICE_VERSION: version("forwardscope")})
    asked = {
        key: value
        for key, value in Resource.create().attributes.items()
        if not (key == SERVICE_NAME and str(value).startswith("unknown_service"))
    }
    return named.merge(Resource(asked))


def make_provider(processor: SpanProcessor) -> TracerProvider:
    """Return a tracer provider of the CLI's own; the standard variables configure sampling."""
    provider = TracerProvider(resource=make_resource(), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider
