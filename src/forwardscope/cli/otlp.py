"""The SDK's OTLP exporters, the reasons of failed exports, and the CLI's tracer provider."""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib.metadata import entry_points, version
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from requests.adapters import BaseAdapter

from forwardscope.cli.targets import OtlpTarget
from forwardscope.errors import OutputError
from forwardscope.telemetry.http import (
    MAX_ANSWER_BYTES,
    one_line,
    read_bounded,
    refusal,
    root_cause,
    secrets_of,
    shown_url,
    untraced,
    without_secrets,
)
from forwardscope.text import printable

__all__ = [
    "CheckedAdapter",
    "OtlpExporter",
    "Sent",
    "connection_error",
    "make_exporter",
    "make_provider",
    "make_resource",
]

_Message = TypeVar("_Message", bound=Message)

_TRACES_PATH = "/v1/traces"
_CONNECT_TIMEOUT_S = 1.0
_ANSWER_S = 5.0
#: They name an entry point whose session has credentials.
_CREDENTIAL_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
#: Added to the SDK's logger, because a logger without handlers prints warnings to stderr.
_NO_OUTPUT = logging.NullHandler()


class Sent(NamedTuple):
    """Outcome of an export.

    Attributes:
        accepted: Number of spans that the receiver accepted.
        failure: Why it did not accept the others; None if it accepted all.
    """

    accepted: int
    failure: str | None


class OtlpExporter:
    """An SDK exporter that reports how many spans were accepted, and why others were not.

    Args:
        exporter: The SDK's exporter.
        last_error: Returns why the last attempt failed; None if it succeeded or the
            reason is not known.
        rejected: Returns how many spans the receiver rejected in its last answer,
            although it accepted the request.
        secrets: Texts that are replaced in reasons.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        last_error: Callable[[], str | None] = lambda: None,
        rejected: Callable[[], int] = lambda: 0,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._exporter = exporter
        self._last_error = last_error
        self._rejected = rejected
        self._secrets = secrets

    def last_error(self) -> str | None:
        """Return why the last attempt failed; None if it succeeded or that is not known."""
        reason = self._last_error()
        return reason and without_secrets(reason, self._secrets)

    def send(self, spans: Sequence[ReadableSpan]) -> Sent:
        """Export spans."""
        try:
            with untraced():
                result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the run continues, and its report has the reason
            return Sent(0, without_secrets(root_cause(error), self._secrets))
        if result is not SpanExportResult.SUCCESS:
            return Sent(0, self.last_error() or "not delivered")
        rejected = min(max(self._rejected(), 0), len(spans))
        if not rejected:
            return Sent(len(spans), None)
        return Sent(len(spans) - rejected, self.last_error() or "rejected by the receiver")

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._exporter.shutdown()


class CheckedAdapter(BaseAdapter):
    """Checks the answers of an adapter of requests, and records the last one.

    An answer is read to a bound. One that does not come from an OTLP receiver, such as
    a redirect or a login page, is an error.

    Args:
        adapter: Sends the requests.

    Attributes:
        failure: Why the last request failed, or its spans were rejected; None if neither.
        rejected: Number of spans that the receiver rejected in its last answer.
    """

    def __init__(self, adapter: BaseAdapter) -> None:
        super().__init__()
        self._adapter = adapter
        self.failure: str | None = None
        self.rejected = 0

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Send a request and check its answer.

        Raises:
            requests.RequestException: The server was not reached, or is no OTLP receiver.
        """
        self.failure, self.rejected = None, 0
        try:
            response = self._adapter.send(request, *args, **kwargs)
            with closing(response.raw):
                body = _body(response)
        except Exception as error:
            self.failure = _connection_failure(error, kwargs.get("proxies"))
            raise
        response.raw = io.BytesIO(body)
        self.failure = _refusal(request.url or "", response, body)
        if self.failure is None:
            self.rejected, self.failure = _partial_success(response, body)
        elif response.status_code < 400:
            raise requests.RequestException(self.failure)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()


def _body(response: requests.Response) -> bytes:
    """Read the answer byte by byte, since a read of several waits until it has them all."""

    def read(size: int) -> bytes:
        chunk: bytes = response.raw.read(size, decode_content=False)
        return chunk

    return read_bounded(read, 1, time.monotonic() + _ANSWER_S)


def _connection_failure(error: Exception, proxies: Mapping[str, str] | None) -> str:
    if isinstance(error, requests.exceptions.ProxyError):
        shown = " or ".join({shown_url(proxy) for proxy in (proxies or {}).values() if proxy})
        return f"proxy {shown}: {root_cause(error)}"
    return root_cause(error)


def _refusal(url: str, response: requests.Response, body: bytes) -> str | None:
    """Return why an answer is not that of an OTLP receiver that accepted a request."""
    kind = response.headers.get("Content-Type", "")
    message = body.decode(errors="replace")
    if "protobuf" in kind:
        message = _parsed(body, Status(), kind).message
    location = response.headers.get("Location")
    if reason := refusal(url, response.status_code, response.reason or "", location, message):
        return reason
    if len(body) >= MAX_ANSWER_BYTES:
        return f"the answer is longer than {MAX_ANSWER_BYTES // 1024} KiB; is it an OTLP receiver?"
    if "html" in kind:
        return f"HTTP {response.status_code} with a web page; is it an OTLP receiver?"
    return None


def _partial_success(response: requests.Response, body: bytes) -> tuple[int, str | None]:
    """Return the number of rejected spans and the reason; 0 if the answer is not readable."""
    kind = response.headers.get("Content-Type", "")
    partial = _parsed(body, ExportTraceServiceResponse(), kind).partial_success
    if partial.rejected_spans <= 0:
        return 0, None
    said = partial.error_message.strip()
    return partial.rejected_spans, one_line(f"rejected by the receiver{': ' if said else ''}{said}")


def _parsed(body: bytes, message: _Message, kind: str) -> _Message:
    """Return a message from an answer, as protobuf or JSON; an empty one if it is neither."""
    try:
        if "json" in kind:
            json_format.Parse(body, message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except (DecodeError, json_format.ParseError, ValueError, RecursionError):
        message.Clear()
    return message


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
    now on the SDK's log lines, which may quote a header, do not reach stderr, even from
    a thread that outlives the run; the run's report has the reason of a failure.

    Raises:
        OutputError: A standard variable has a value that the SDK does not know.
    """
    logging.getLogger("opentelemetry").addHandler(_NO_OUTPUT)
    secrets = (*secrets_of(target.url), *_header_values())
    make = _grpc_exporter if target.protocol == "grpc" else _http_exporter
    try:
        return make(target, secrets)
    except (ImportError, OutputError):
        raise
    except Exception as error:
        reason = without_secrets(root_cause(error), secrets)
        raise OutputError(f"an OTEL_EXPORTER_OTLP_* variable is not valid: {reason}") from error


def _header_values() -> tuple[str, ...]:
    """Return the values of the headers, of which an authorization's second word is the token."""
    texts = [os.environ.get(name, "") for name in _HEADERS]
    pairs = [pair.partition("=")[2].strip() for text in texts for pair in text.split(",")]
    values = {form for value in pairs for form in (value, unquote(value))}
    return tuple(values | {word for value in values for word in value.split()})


def _grpc_exporter(target: OtlpTarget, secrets: tuple[str, ...]) -> OtlpExporter:
    """Return a gRPC exporter.

    The SDK does not expose the error of a call, so a failure is explained by the
    error of a plain connection. Neither does it expose how many spans an answer rejects.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's C core also writes to stderr
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    endpoint = target.url.replace("grpc://", "http://", 1) if target.explicit else None
    exporter = OTLPSpanExporter(endpoint)
    return OtlpExporter(exporter, lambda: connection_error(target.url), secrets=secrets)


def _http_exporter(target: OtlpTarget, secrets: tuple[str, ...]) -> OtlpExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    session = _session()
    session.headers["Accept-Encoding"] = "identity"  # answers are read without decompression
    checked = CheckedAdapter(session.get_adapter(target.url))
    session.adapters.clear()
    session.mount("http://", checked)
    session.mount("https://", checked)
    exporter = OTLPSpanExporter(
        _traces_url(target.url) if target.explicit else None, session=session
    )
    return OtlpExporter(exporter, lambda: checked.failure, lambda: checked.rejected, secrets)


def _traces_url(url: str) -> str:
    """Return a receiver's URL with the path of traces, which is appended if it is missing."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix(_TRACES_PATH) + _TRACES_PATH
    return parts._replace(path=path).geturl()


def _session() -> requests.Session:
    """Return a session; that of a credential provider if a standard variable names one.

    Raises:
        OutputError: There is no such provider.
    """
    variable = next((name for name in _CREDENTIAL_PROVIDERS if os.environ.get(name)), None)
    if variable is None:
        return requests.Session()
    name = os.environ[variable]
    for found in entry_points(group="opentelemetry_otlp_credential_provider", name=name):
        session = found.load()()
        if isinstance(session, requests.Session):
            return session
    raise OutputError(
        f"{variable} is {printable(name)!r}, which is no installed provider of sessions"
    )


def make_resource() -> Resource:
    """Return the resource of the CLI's spans; the standard variables take precedence.

    It lacks the command line, which a detector may add and which may have a token.
    """
    defaults = Resource({SERVICE_NAME: "forwardscope", SERVICE_VERSION: version("forwardscope")})
    from_environment = {
        key: value
        for key, value in Resource.create().attributes.items()
        if not (key == SERVICE_NAME and str(value).startswith("unknown_service"))
        and not key.startswith("process.command")
    }
    return defaults.merge(Resource(from_environment))


def make_provider(processor: SpanProcessor) -> TracerProvider:
    """Return the CLI's tracer provider; the standard variables configure sampling and limits.

    Raises:
        OutputError: A limit is not valid.
    """
    try:
        provider = TracerProvider(resource=make_resource(), shutdown_on_exit=False)
    except ValueError as error:  # the message names the variable
        raise OutputError(one_line(str(error))) from error
    provider.add_span_processor(processor)
    return provider
