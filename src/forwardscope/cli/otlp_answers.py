"""Answers of OTLP receivers over HTTP: bounded, checked, and with what they reject."""

from __future__ import annotations

import io
import time
from contextlib import closing
from typing import Any, Final, TypeVar

import requests
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.adapters import BaseAdapter
from requests.utils import select_proxy

from forwardscope.cli.targets import Signal
from forwardscope.telemetry.http import (
    MAX_ANSWER_BYTES,
    one_line,
    read_bounded,
    refusal,
    root_cause,
    shown_url,
)

__all__ = ["CheckedAdapter"]

_Message = TypeVar("_Message", bound=Message)

#: The answer to a signal's request, and the field of its `partial_success` that counts.
_ANSWERS: Final[dict[Signal, tuple[type[Message], str]]] = {
    "traces": (ExportTraceServiceResponse, "rejected_spans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points"),
}
#: Time to read the body of an answer.
_ANSWER_S = 5.0


class CheckedAdapter(BaseAdapter):
    """Checks the answers of an adapter of requests, and records the last one.

    An answer is read to a bound. One that does not come from an OTLP receiver, such as
    a redirect or a login page, is an error.

    Args:
        adapter: Sends the requests.
        signal: What the requests have.
        secrets: Texts that are replaced in reasons.

    Attributes:
        failure: Why the last request failed, or its content was rejected; None if neither.
        rejected: Number of spans or data points that the receiver rejected in its last answer.
    """

    def __init__(
        self, adapter: BaseAdapter, signal: Signal = "traces", secrets: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self._adapter = adapter
        self._signal = signal
        self._secrets = secrets
        self.failure: str | None = None
        self.rejected = 0

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Send a request and check its answer.

        The SDK's last retry may have no time left. It is not made, and the reason of the
        attempt before stays.

        Raises:
            requests.RequestException: The server was not reached, or is no OTLP receiver.
        """
        timeout = kwargs.get("timeout")
        if isinstance(timeout, int | float) and timeout <= 0:
            raise requests.Timeout("no time is left")
        self.failure, self.rejected = None, 0
        try:
            response = self._adapter.send(request, *args, **kwargs)
            with closing(response.raw):
                body = _body(response)
        except Exception as error:
            cause = root_cause(error, self._secrets)
            self.failure = _of_proxy(request.url or "", kwargs.get("proxies")) + cause
            raise
        response.raw = io.BytesIO(body)
        self.failure = _refusal(request.url or "", response, body, self._secrets)
        if self.failure is None:
            self.rejected, said = _partial_success(self._signal, response, body)
            self.failure = one_line(said, self._secrets) if self.rejected else None
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


def _of_proxy(url: str, proxies: dict[str, str] | None) -> str:
    """Return the proxy of a URL as the start of a reason; empty without one."""
    proxy = select_proxy(url, proxies)
    return f"proxy {shown_url(proxy)}: " if proxy else ""


def _refusal(
    url: str, response: requests.Response, body: bytes, secrets: tuple[str, ...]
) -> str | None:
    """Return why an answer is not that of an OTLP receiver that accepted a request."""
    kind = response.headers.get("Content-Type", "")
    message = body.decode(errors="replace")
    if "protobuf" in kind:
        message = _parsed(body, Status(), kind).message
    location = response.headers.get("Location")
    status, phrase = response.status_code, response.reason or ""
    if reason := refusal(url, status, phrase, location, message, secrets):
        return reason
    if len(body) >= MAX_ANSWER_BYTES:
        return f"the answer is longer than {MAX_ANSWER_BYTES // 1024} KiB; is it an OTLP receiver?"
    if "html" in kind:
        return f"HTTP {response.status_code} with a web page; is it an OTLP receiver?"
    return None


def _partial_success(signal: Signal, response: requests.Response, body: bytes) -> tuple[int, str]:
    """Return what is rejected, as a number and the reason; 0 if the answer is not readable."""
    answer, field = _ANSWERS[signal]
    kind = response.headers.get("Content-Type", "")
    partial = _parsed(body, answer(), kind).partial_success
    said = partial.error_message.strip()
    rejected: int = max(0, getattr(partial, field))
    return rejected, f"rejected by the receiver{': ' if said else ''}{said}"


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
