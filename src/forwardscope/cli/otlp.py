"""The SDK's OTLP exporters, the reasons of failed exports, and the CLI's tracer provider."""

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
_MAX_REASON_CHARS = 160
#: If one of these is set, the SDK's HTTP exporter loads its own session.
_CREDENTIAL_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
#: Added to the SDK's logger, because a logger without handlers prints warnings to stderr.
_NO_OUTPUT = logging.NullHandler()


class OtlpExporter:
    """An SDK exporter that reports why an export failed.

    Args:
        exporter: The SDK's exporter.
        last_error: Returns why the last attempt failed; None if it succeeded or the
            reason is not known.
    """

    def __init__(
        self, exporter: SpanExporter, last_error: Callable[[], str | None] = lambda: None
    ) -> None:
        self._exporter = exporter
        self.last_error = last_error

    def send(self, spans: Sequence[ReadableSpan]) -> str | None:
        """Export spans; return None, or the reason if they were not delivered."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the run continues, and its report has the reason
            return root_cause(error)
        if result is SpanExportResult.SUCCESS:
            return None
        return self.last_error() or "not delivered"

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._exporter.shutdown()


class RecordingSession(requests.Session):
    """An HTTP session that records why its last request failed.

    Attributes:
        last_error: The reason; None after a success.
    """

    last_error: str | None = None

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request and record its error."""
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
    return " ".join(reason.split())[:_MAX_REASON_CHARS]


def connection_error(url: str) -> str | None:
    """Open and close a connection to a server; return None, or the reason if that fails."""
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

    Headers, timeout, compression and TLS come from the standard variables. From
    then on the SDK's log lines do not reach stderr, even from a thread that outlives
    the run; the run's report has the reason of a failure.
    """
    if target.protocol == "grpc":
        # gRPC's C core also writes to stderr
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        exporter = _grpc_exporter(target)
    else:
        exporter = _http_exporter(target)
    logging.getLogger("opentelemetry").addHandler(_NO_OUTPUT)
    return exporter


def _grpc_exporter(target: OtlpTarget) -> OtlpExporter:
    """Return a gRPC exporter.

    The SDK does not expose the error of a call, so a failure is explained by the
    error of a plain connection.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    endpoint = target.url.replace("grpc://", "http://", 1) if target.explicit else None
    return OtlpExporter(OTLPSpanExporter(endpoint), lambda: connection_error(target.url))


def _http_exporter(target: OtlpTarget) -> OtlpExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    endpoint = target.url if target.explicit else None
    if endpoint and not endpoint.endswith(_TRACES_PATH):
        endpoint = endpoint.rstrip("/") + _TRACES_PATH
    if any(os.environ.get(name) for name in _CREDENTIAL_PROVIDERS):
        return OtlpExporter(OTLPSpanExporter(endpoint), lambda: connection_error(target.url))
    session = RecordingSession()
    return OtlpExporter(OTLPSpanExporter(endpoint, session=session), lambda: session.last_error)


def make_resource() -> Resource:
    """Return the resource of the CLI's spans; the standard variables take precedence."""
    defaults = Resource({SERVICE_NAME: "forwardscope", SERVICE_VERSION: version("forwardscope")})
    from_environment = {
        key: value
        for key, value in Resource.create().attributes.items()
        if not (key == SERVICE_NAME and str(value).startswith("unknown_service"))
    }
    return defaults.merge(Resource(from_environment))


def make_provider(processor: SpanProcessor) -> TracerProvider:
    """Return the CLI's tracer provider; the standard variables configure sampling."""
    provider = TracerProvider(resource=make_resource(), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider
