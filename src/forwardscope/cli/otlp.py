"""The exporter for an OTLP receiver: over HTTP or gRPC, of spans or metrics."""

from __future__ import annotations

import logging
import os
import socket
from functools import partial
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from opentelemetry.sdk.metrics.export import MetricsData

from forwardscope.cli.otlp_answers import CheckedAdapter
from forwardscope.cli.otlp_exporter import OtlpExporter
from forwardscope.cli.targets import OtlpTarget, Signal, signal_variables
from forwardscope.errors import OutputError
from forwardscope.telemetry.http import root_cause, secrets_of

__all__ = ["connection_error", "make_exporter"]

_CONNECT_TIMEOUT_S = 1.0
#: Added to the SDK's logger, because a logger without handlers prints warnings to stderr.
_NO_OUTPUT = logging.NullHandler()


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
