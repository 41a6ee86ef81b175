"""The SDK's OTLP exporters, the reasons of failed exports, and the CLI's tracer provider."""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import entry_points, version
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import requests
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from forwardscope.cli.otlp_answers import CheckedAdapter
from forwardscope.cli.targets import OtlpTarget
from forwardscope.errors import OutputError
from forwardscope.telemetry.http import (
    one_line,
    root_cause,
    secrets_of,
    untraced,
    without_secrets,
)
from forwardscope.text import printable

__all__ = [
    "OtlpExporter",
    "Sent",
    "connection_error",
    "make_exporter",
    "make_provider",
    "make_resource",
    "run_with_timeout",
]

_TRACES_PATH = "/v1/traces"
_CONNECT_TIMEOUT_S = 1.0
#: Default of OpenTelemetry for the attributes and links of a span.
_DEFAULT_LIMIT = 128
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
        except requests.RequestException as error:  # of the last attempt, in older SDKs
            return Sent(0, self.last_error() or root_cause(error))
        except Exception as error:  # noqa: BLE001 - the run continues, and its report has the reason
            return Sent(0, without_secrets(root_cause(error), self._secrets))
        if result is not SpanExportResult.SUCCESS:
            return Sent(0, self.last_error() or "not delivered")
        rejected = min(max(self._rejected(), 0), len(spans))
        if not rejected:
            return Sent(len(spans), None)
        return Sent(len(spans) - rejected, self.last_error() or "rejected by the receiver")

    def send_within(self, timeout_s: float, spans: Sequence[ReadableSpan]) -> Sent:
        """Export spans in a thread, and leave it if the export does not end in time.

        The SDK's own timeout begins anew with each byte of an answer's headers.
        """
        sent: list[Sent] = []
        if run_with_timeout(timeout_s, lambda: sent.append(self.send(spans))) and sent:
            return sent[0]
        return Sent(0, self.last_error() or f"not delivered within {timeout_s:g} s")

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._exporter.shutdown()


def run_with_timeout(timeout_s: float, call: Callable[[], None]) -> bool:
    """Call a function in a daemon thread; return whether it ended in time."""

    def work() -> None:
        with suppress(Exception):  # an error of the exporter must not fail the run
            call()

    thread = threading.Thread(target=work, name="forwardscope-close", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads can be started
        return False
    thread.join(timeout_s)
    return not thread.is_alive()


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
    """Return the CLI's tracer provider; the standard variables configure sampling and limits."""
    provider = TracerProvider(
        resource=make_resource(), shutdown_on_exit=False, span_limits=_span_limits()
    )
    provider.add_span_processor(processor)
    return provider


def _span_limits() -> SpanLimits:
    """Return the limits of the standard variables, or the defaults where one is not valid.

    The variables may be meant for other programs, so a wrong one stops no run.
    """
    try:
        return SpanLimits()
    except ValueError as error:  # the message names the variable
        reason = printable(one_line(str(error)))
        warnings.warn(f"{reason}; default limits are used", RuntimeWarning, stacklevel=2)
    count, length = _DEFAULT_LIMIT, SpanLimits.UNSET
    return SpanLimits(count, count, count, count, count, count, length, length)
