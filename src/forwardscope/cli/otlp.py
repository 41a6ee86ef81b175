"""The SDK's OTLP exporters of spans and metrics, and the reasons of failed exports."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from enum import Enum
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from opentelemetry.sdk.metrics.export import MetricsData

from forwardscope.cli.otlp_answers import CheckedAdapter
from forwardscope.cli.targets import OtlpTarget, Signal, signal_variables
from forwardscope.errors import OutputError
from forwardscope.telemetry.delivery import run_with_timeout
from forwardscope.telemetry.http import root_cause, secrets_of, untraced

__all__ = [
    "OtlpExporter",
    "Sent",
    "connection_error",
    "make_exporter",
]

_Batch = TypeVar("_Batch")
_Given_contra = TypeVar("_Given_contra", contravariant=True)

_CONNECT_TIMEOUT_S = 1.0
#: Time to find the reason of a close that timed out, and to shut the exporter down.
_ABORT_S = 0.2
#: Added to the SDK's logger, because a logger without handlers prints warnings to stderr.
_NO_OUTPUT = logging.NullHandler()


class Sent(NamedTuple):
    """Outcome of an export.

    Attributes:
        accepted: Number of spans or data points that the receiver accepted.
        failure: Why it did not accept the others; None if it accepted all.
    """

    accepted: int
    failure: str | None


class _SdkExporter(Protocol[_Given_contra]):
    """What the SDK's exporters of spans and of metrics have in common."""

    def export(self, batch: _Given_contra, /) -> Enum:
        """Send a batch; return a member named SUCCESS, or another one."""
        ...

    def shutdown(self) -> None:
        """Close the connection."""
        ...


class OtlpExporter(Generic[_Batch]):
    """An SDK exporter that reports how much of a batch was accepted, and why the rest was not.

    Args:
        exporter: The SDK's exporter of spans or of metrics.
        last_error: Returns why the last attempt failed; None if it succeeded or the
            reason is not known.
        rejected: Returns how many spans or data points the receiver rejected in its last
            answer, although it accepted the request.
        secrets: Texts that are replaced in the messages of exceptions.
        size: Returns the number of spans or data points of a batch.
    """

    def __init__(
        self,
        exporter: _SdkExporter[_Batch],
        last_error: Callable[[], str | None] = lambda: None,
        rejected: Callable[[], int] = lambda: 0,
        secrets: tuple[str, ...] = (),
        size: Callable[[Any], int] = len,
    ) -> None:
        self._exporter = exporter
        self._last_error = last_error
        self._rejected = rejected
        self._secrets = secrets
        self._size = size

    def last_error(self) -> str | None:
        """Return why the last attempt failed; None if it succeeded or that is not known."""
        return self._last_error()

    def send(self, batch: _Batch) -> Sent:
        """Export a batch."""
        try:
            with untraced():
                result = self._exporter.export(batch)
        except requests.RequestException as error:  # of the last attempt, in older SDKs
            return Sent(0, self.last_error() or root_cause(error, self._secrets))
        except Exception as error:  # noqa: BLE001 - the run continues, and its report has the reason
            return Sent(0, root_cause(error, self._secrets))
        if result.name != "SUCCESS":
            return Sent(0, self.last_error() or "not delivered")
        size = self._size(batch)
        rejected = min(max(self._rejected(), 0), size)
        if not rejected:
            return Sent(size, None)
        return Sent(size - rejected, self.last_error() or "rejected by the receiver")

    def send_within(self, timeout_s: float, batch: _Batch) -> Sent:
        """Export a batch in a thread, and leave it if the export does not end in time.

        The SDK's own timeout begins anew with each byte of an answer's headers.
        """
        sent: list[Sent] = []
        if run_with_timeout(timeout_s, lambda: sent.append(self.send(batch))) and sent:
            return sent[0]
        return Sent(0, self.last_error() or f"not delivered within {timeout_s:g} s")

    def shutdown(self) -> None:
        """Close the connection and stop retrying."""
        self._exporter.shutdown()

    def abort(self) -> str | None:
        """Shut down within a moment; return why the last attempt failed, if that is known."""
        reasons: list[str | None] = []

        def stop() -> None:
            reasons.append(self.last_error())
            self.shutdown()

        run_with_timeout(_ABORT_S, stop)
        return reasons[0] if reasons else None


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


def make_exporter(target: OtlpTarget) -> OtlpExporter[Any]:
    """Return an exporter to a receiver, of sequences of spans or of `MetricsData`.

    Headers, timeout, compression and TLS come from the standard variables. From
    now on the SDK's log lines, which may quote a header, do not reach stderr, even from
    a thread that outlives the run; the run's report has the reason of a failure.

    Raises:
        OutputError: A standard variable has a value that the SDK does not know.
    """
    logging.getLogger("opentelemetry").addHandler(_NO_OUTPUT)
    secrets = (*secrets_of(target.url), *_header_values(target.signal))
    make = _grpc_exporter if target.protocol == "grpc" else _http_exporter
    try:
        return make(target, secrets)
    except (ImportError, OutputError):
        raise
    except Exception as error:
        reason = root_cause(error, secrets)
        raise OutputError(f"an OTEL_EXPORTER_OTLP_* variable is not valid: {reason}") from error


def _header_values(signal: Signal) -> tuple[str, ...]:
    """Return the values of the headers, of which an authorization's second word is the token."""
    texts = [os.environ.get(name, "") for name in signal_variables("HEADERS", signal)]
    pairs = [pair.partition("=")[2].strip() for text in texts for pair in text.split(",")]
    values = {form for value in pairs for form in (value, unquote(value))}
    return tuple(values | {word for value in values for word in value.split()})


def _grpc_exporter(target: OtlpTarget, secrets: tuple[str, ...]) -> OtlpExporter[Any]:
    """Return a gRPC exporter.

    The SDK does not expose the error of a call, so a failure is explained by the
    error of a plain connection. Neither does it expose what an answer rejects.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's C core also writes to stderr
    from opentelemetry.exporter.otlp.proto.grpc import (  # noqa: PLC0415
        metric_exporter,
        trace_exporter,
    )

    endpoint = target.url.replace("grpc://", "http://", 1) if target.explicit else None
    last_error = partial(connection_error, target.url)
    if target.signal == "metrics":
        metrics = metric_exporter.OTLPMetricExporter(endpoint)
        return OtlpExporter(metrics, last_error, secrets=secrets, size=_data_points)
    return OtlpExporter(trace_exporter.OTLPSpanExporter(endpoint), last_error, secrets=secrets)


def _http_exporter(target: OtlpTarget, secrets: tuple[str, ...]) -> OtlpExporter[Any]:
    from opentelemetry.exporter.otlp.proto.http import (  # noqa: PLC0415
        metric_exporter,
        trace_exporter,
    )

    session = _session(target.signal)
    session.headers["Accept-Encoding"] = "identity"  # answers are read without decompression
    checked = CheckedAdapter(session.get_adapter(target.url), target.signal, secrets)
    session.adapters.clear()
    session.mount("http://", checked)
    session.mount("https://", checked)
    endpoint = _signal_url(target) if target.explicit else None
    reasons = (lambda: checked.failure), (lambda: checked.rejected), secrets
    if target.signal == "metrics":
        metrics = metric_exporter.OTLPMetricExporter(endpoint, session=session)
        return OtlpExporter(metrics, *reasons, size=_data_points)
    return OtlpExporter(trace_exporter.OTLPSpanExporter(endpoint, session=session), *reasons)


def _data_points(data: MetricsData) -> int:
    """Return the number of data points, which `partial_success` counts."""
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def _signal_url(target: OtlpTarget) -> str:
    """Return a receiver's URL with the path of a signal, which is appended if it is missing."""
    parts = urlsplit(target.url)
    path = f"/v1/{target.signal}"
    full = parts.path.rstrip("/").removesuffix(path) + path
    return parts._replace(path=full).geturl()


def _session(signal: Signal) -> requests.Session:
    """Return a session; that of a credential provider if a standard variable names one.

    Raises:
        OutputError: There is no such provider.
    """
    prefix = "OTEL_PYTHON_EXPORTER_OTLP_HTTP"
    names = (f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{signal.upper()}_CREDENTIAL_PROVIDER")
    variable = next((name for name in names if os.environ.get(name)), None)
    if variable is None:
        return requests.Session()
    name = os.environ[variable]
    for found in entry_points(group="opentelemetry_otlp_credential_provider", name=name):
        session = found.load()()
        if isinstance(session, requests.Session):
            return session
    raise OutputError(f"{variable} is {name!r}, which is no installed provider of sessions")
