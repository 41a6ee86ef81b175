"""The OTLP receiver of a run, from the options, the suite and the standard variables."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from forwardscope.errors import OutputError
from forwardscope.text import printable

__all__ = ["OtlpTarget", "check_url", "otlp_target"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
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
    """

    url: str
    protocol: str
    explicit: bool


def otlp_target(
    url: str | None, protocol: str | None, environ: Mapping[str, str] = os.environ
) -> OtlpTarget | None:
    """Return the receiver of spans; None if spans are off.

    Args:
        url: URL from the options or the suite; None to use the standard variables.
        protocol: Protocol from the options or the suite; None to choose one.
        environ: The environment. A protocol or an exporter there that is not known
            is warned of, since the variables may be meant for other programs.

    Raises:
        OutputError: The URL is not valid.
    """
    if url is not None:
        check_url("otlp", url, _SCHEMES, _EXAMPLE)
        return OtlpTarget(url, _named(protocol, environ) or _usual(url), explicit=True)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    variable = next((name for name in _ENDPOINTS if environ.get(name)), None)
    if variable is None or not _exports_otlp(environ):
        return None
    endpoint, named = environ[variable], _named(protocol, environ)
    if named != "grpc" or endpoint.startswith("http"):  # gRPC also knows host:port and unix:path
        check_url(variable, endpoint, _SCHEMES, _EXAMPLE)
    return OtlpTarget(endpoint, named or _usual(endpoint), explicit=False)


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


def _exports_otlp(environ: Mapping[str, str]) -> bool:
    """Return whether OTEL_TRACES_EXPORTER, a list that several programs may read, has otlp."""
    text = environ.get("OTEL_TRACES_EXPORTER", "")
    exporters = [name.strip().lower() for name in text.split(",") if name.strip()] or ["otlp"]
    if "otlp" in exporters:
        return True
    if exporters != ["none"]:
        _warn(f"OTEL_TRACES_EXPORTER is {printable(text)!r}, without otlp: no spans are exported")
    return False


def _named(protocol: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the protocol that the settings or a variable name; None if they do not."""
    variable = next((name for name in _PROTOCOL_VARIABLES if environ.get(name)), None)
    if protocol is not None or variable is None:
        return protocol
    named = environ[variable].strip().lower()
    if named in _PROTOCOLS:
        return named
    _warn(f"{variable} is {printable(named)!r}, which is not known; use {' or '.join(_PROTOCOLS)}")
    return None


def _usual(url: str) -> str:
    """Return the usual protocol of a URL's scheme or port."""
    parts = urlsplit(url)
    grpc = parts.scheme == "grpc" or parts.port == _GRPC_PORT
    return "grpc" if grpc else "http/protobuf"


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
