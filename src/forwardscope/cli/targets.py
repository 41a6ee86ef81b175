"""The OTLP receivers of a run, from the options, the suite and the standard variables."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from forwardscope.errors import MissingExtraError, OutputError

__all__ = [
    "OtlpTarget",
    "Signal",
    "check_url",
    "needs_sdk",
    "otlp_target",
    "positive_setting",
    "signal_variables",
]

#: What an OTLP receiver receives, as OpenTelemetry names it in paths and variables.
Signal = Literal["traces", "metrics"]

_SETTINGS = {"traces": "otlp", "metrics": "otlp_metrics"}
_NOUNS = {"traces": "spans", "metrics": "metrics"}
_PROTOCOLS = ("http/protobuf", "grpc")
_SCHEMES = ("http", "https", "grpc")
_EXAMPLE = "http://127.0.0.1:4318"
_GRPC_PORT = 4317


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """An OTLP receiver.

    Attributes:
        url: Its URL.
        protocol: `http/protobuf` or `grpc`.
        explicit: Whether the URL is from an option or the suite. Otherwise it is from
            the standard variables, which the SDK's exporter also reads.
        signal: What it receives.
    """

    url: str
    protocol: str
    explicit: bool
    signal: Signal = "traces"


def otlp_target(
    url: str | None,
    protocol: str | None,
    environ: Mapping[str, str] = os.environ,
    *,
    signal: Signal = "traces",
) -> OtlpTarget | None:
    """Return the receiver of a signal; None if the signal is not exported over OTLP.

    The general endpoint of the standard variables is one for metrics only if
    OTEL_METRICS_EXPORTER names otlp, since many receivers of spans accept no metrics.

    Args:
        url: URL from the options or the suite; None to use the standard variables.
        protocol: Protocol from the options or the suite; None to choose one.
        signal: Spans or metrics.
        environ: The environment. A protocol or an exporter there that is not known
            is warned of, since the variables may be meant for other programs.

    Raises:
        OutputError: The URL is not valid.
    """
    if url is not None:
        check_url(_SETTINGS[signal], url, _SCHEMES, _EXAMPLE)
        named = _named(protocol, signal, environ)
        return OtlpTarget(url, named or _usual(url), explicit=True, signal=signal)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    names = signal_variables("ENDPOINT", signal)
    variable = next((name for name in names if environ.get(name)), None)
    if variable is None or not _exports_otlp(signal, variable, environ):
        return None
    endpoint, named = environ[variable], _named(protocol, signal, environ)
    if named != "grpc" or endpoint.startswith("http"):  # gRPC also knows host:port and unix:path
        check_url(variable, endpoint, _SCHEMES, _EXAMPLE)
    return OtlpTarget(endpoint, named or _usual(endpoint), explicit=False, signal=signal)


def signal_variables(setting: str, signal: Signal) -> tuple[str, str]:
    """Return the standard variables of an exporter's setting, the signal's own first."""
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{setting}", f"OTEL_EXPORTER_OTLP_{setting}"


def positive_setting(variable: str, default: int) -> int:
    """Return the whole number of a variable, or the default without one.

    Raises:
        OutputError: The variable is no whole number above 0.
    """
    text = os.environ.get(variable, "").strip()
    if text and not (text.isdecimal() and int(text) > 0):
        raise OutputError(f"{variable} is {text!r}; write a whole number above 0")
    return int(text or default)


@contextmanager
def needs_sdk(package: str) -> Iterator[None]:
    """Import the OpenTelemetry SDK and its exporters.

    Args:
        package: What is not installed, as the first words of a sentence.

    Raises:
        MissingExtraError: It is not installed.
        OutputError: It refuses the value of a standard variable.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, "otel") from error
    except ValueError as error:  # its message names the variable
        raise OutputError(f"nothing can be exported: {error}; correct the environment") from error


def check_url(setting: str, url: str, schemes: tuple[str, ...], example: str) -> None:
    """Check that a URL has a known scheme and a host.

    Args:
        setting: The option or variable that has the URL.
        url: The URL.
        schemes: The known schemes.
        example: A valid URL.

    Raises:
        OutputError: It does not. The message does not quote the URL, which may hold
            a password.
    """
    if mistake := _mistake(url, schemes):
        raise OutputError(
            f"{setting} is not the URL of a server: {mistake}; write it like {example}"
        )


def _mistake(url: str, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "its port is no number up to 65535, or its address is not valid"
    if "://" not in url:
        return "it does not begin with a scheme and ://"
    if parts.scheme not in schemes:
        return f"its scheme is none of {', '.join(schemes)}"
    if not host:
        return "it has no host"
    return "its port is 0" if port == 0 else None


def _exports_otlp(signal: Signal, endpoint: str, environ: Mapping[str, str]) -> bool:
    """Return whether OTEL_*_EXPORTER, a list that several programs may read, has otlp."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    text = environ.get(variable, "")
    exporters = [name.strip().lower() for name in text.split(",") if name.strip()]
    meant = signal == "traces" or endpoint == signal_variables("ENDPOINT", signal)[0]
    if not exporters or "otlp" in exporters:
        return meant or "otlp" in exporters
    if meant and exporters != ["none"]:
        noun = _NOUNS[signal]
        _warn(f"{variable} is {text!r}, without otlp: no {noun} are exported over OTLP")
    return False


def _named(protocol: str | None, signal: Signal, environ: Mapping[str, str]) -> str | None:
    """Return the protocol that the settings or a variable name; None if they do not."""
    names = signal_variables("PROTOCOL", signal)
    variable = next((name for name in names if environ.get(name)), None)
    if protocol is not None or variable is None:
        return protocol
    named = environ[variable].strip().lower()
    if named in _PROTOCOLS:
        return named
    _warn(f"{variable} is {named!r}, which is not known; use {' or '.join(_PROTOCOLS)}")
    return None


def _usual(url: str) -> str:
    """Return the usual protocol of a URL's scheme or port."""
    parts = urlsplit(url)
    grpc = parts.scheme == "grpc" or parts.port == _GRPC_PORT
    return "grpc" if grpc else "http/protobuf"


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
