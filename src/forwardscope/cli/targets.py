"""The OTLP receiver of a run, from the options, the suite and the standard variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from forwardscope.errors import OutputError

__all__ = ["OtlpTarget", "check_url", "otlp_target", "without_credentials"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOLS = ("http/protobuf", "grpc")
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
        environ: The environment.

    Raises:
        OutputError: The URL is not valid, or the protocol or exporter is not known.
    """
    if url is not None:
        check_url("otlp", url, ("http", "https", "grpc"), "http://127.0.0.1:4318")
        return OtlpTarget(url, _protocol(url, protocol, environ), explicit=True)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), None)
    if endpoint is None or exporter == "none":
        return None
    if exporter != "otlp":
        raise OutputError(f"OTEL_TRACES_EXPORTER is {exporter!r}; only otlp and none are known")
    return OtlpTarget(endpoint, _protocol(endpoint, protocol, environ), explicit=False)


def check_url(option: str, url: str, schemes: tuple[str, ...], example: str) -> None:
    """Check that a URL has a known scheme and a host.

    Raises:
        OutputError: It does not.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise OutputError(f"{option}: {url!r} is not the URL of a server; write it like {example}")


def without_credentials(url: str) -> str:
    """Return a URL without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _protocol(url: str, explicit: str | None, environ: Mapping[str, str]) -> str:
    named = explicit or next((environ[n] for n in _PROTOCOL_VARIABLES if environ.get(n)), None)
    if named is None:
        parts = urlsplit(url)
        grpc = parts.scheme == "grpc" or parts.port == _GRPC_PORT
        return "grpc" if grpc else "http/protobuf"
    named = named.strip().lower()
    if named not in _PROTOCOLS:
        raise OutputError(f"OTLP protocol {named!r} is not known; use {' or '.join(_PROTOCOLS)}")
    return named
