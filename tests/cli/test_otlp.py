"""OTLP exporters: the URL they send to, and the reasons of failures."""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from socket import socket

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags

from forwardscope.cli.otlp import connection_error, make_exporter, make_provider, root_cause
from forwardscope.cli.targets import OtlpTarget

pytestmark = pytest.mark.timeout(120)

_SPAN = ReadableSpan(
    "span",
    context=SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1)),
    start_time=1,
    end_time=2,
)


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a timeout of one second, and use no proxy."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def http_server(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """Serve HTTP with the given statuses in turn; yield the URL and the requested paths."""
    remaining, paths = iter(statuses), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(next(remaining))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


@pytest.fixture
def refused() -> Iterator[str]:
    """An address on which no server listens."""
    with socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def send_to(url: str, protocol: str = "http/protobuf") -> str | None:
    """Send a span; return None, or why it was not delivered."""
    exporter = make_exporter(OtlpTarget(url, protocol, explicit=True))
    try:
        return exporter.send([_SPAN])
    finally:
        exporter.shutdown()


@pytest.mark.parametrize("suffix", ["", "/", "/v1/traces"])
def test_http_url_has_the_traces_path(suffix: str) -> None:
    """The path is appended if it is missing."""
    with http_server(200) as (url, paths):
        assert send_to(url + suffix) is None
    assert paths == ["/v1/traces"]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_http_error_status(status: int) -> None:
    """The reason is the HTTP status and its phrase."""
    with http_server(status) as (url, _):
        reason = send_to(url)
    assert reason is not None
    assert reason.startswith(f"HTTP {status}: ")
    assert len(reason) > len("HTTP 400: ")


def test_success_after_a_failure() -> None:
    """A delivered batch clears the last error."""
    with http_server(400, 200) as (url, _):
        exporter = make_exporter(OtlpTarget(url, "http/protobuf", explicit=True))
        assert exporter.send([_SPAN]) == "HTTP 400: Bad Request"
        assert exporter.send([_SPAN]) is None
        assert exporter.last_error() is None
        exporter.shutdown()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_refused_connection(refused: str, protocol: str) -> None:
    """The reason is the system's message only."""
    assert send_to(f"http://{refused}", protocol) == "Connection refused"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_unknown_host(protocol: str) -> None:
    """The reason is the error of the name resolution."""
    reason = send_to("http://no-such-host.invalid:4317", protocol)
    assert reason is not None
    assert "name" in reason.lower()


def test_receiver_without_tls() -> None:
    """The reason is the TLS error."""
    with http_server() as (url, _):
        reason = send_to(url.replace("http://", "https://"))
    assert reason is not None
    assert reason.startswith("[SSL")


def test_grpc_failure_without_a_known_reason() -> None:
    """If the server accepts connections but the call fails, the reason is generic."""
    with http_server() as (url, _):
        assert send_to(url, "grpc") == "not delivered"


def test_credential_provider(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    """The SDK loads the provider's session (here one that does not exist)."""
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "unknown")
    with pytest.raises(RuntimeError, match="'unknown' not found in entry point"):
        send_to(f"http://{refused}")


@pytest.mark.parametrize("url", ["unix:///run/otel.sock", "localhost:4317", "http://host"])
def test_connection_error_of_a_url_without_host_or_port(url: str) -> None:
    """No connection is tried, so there is no reason."""
    assert connection_error(url) is None


def _chained(*errors: Exception) -> Exception:
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("gone"), "RuntimeError: gone"),
        (_chained(ValueError("outer"), OSError(111, "Connection refused")), "Connection refused"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionError(), "ConnectionError"),
        (ssl.SSLError(1, "two\nlines"), "two lines"),
        (RuntimeError("x" * 1000), f"RuntimeError: {'x' * 146}"),
    ],
)
def test_root_cause(error: Exception, reason: str) -> None:
    """The root cause is the innermost error, as one line of bounded length."""
    assert root_cause(error) == reason


_PROGRAM = """
import sys
from forwardscope.cli.otlp import make_exporter, make_provider
from forwardscope.cli.span_delivery import SpanDelivery
from forwardscope.cli.targets import OtlpTarget

delivery = SpanDelivery(make_exporter(OtlpTarget(sys.argv[1], sys.argv[2], explicit=True)))
make_provider(delivery).get_tracer("test").start_span("span").end()
delivery.close(10.0)
print(delivery.failure)
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_log_lines_on_stderr(refused: str, protocol: str) -> None:
    """The SDK's log lines are not printed in a program that does not configure logging."""
    command = [sys.executable, "-c", _PROGRAM, f"http://{refused}", protocol]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert (ran.stdout, ran.stderr) == ("Connection refused\n", "")


def test_configured_logging_receives_the_log_lines(
    refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers of the program still receive the SDK's records."""
    send_to(f"http://{refused}")
    caplog.clear()
    logging.getLogger("opentelemetry.exporter").error("refused")
    assert "refused" in caplog.messages  # threads of other tests may log as well


@pytest.mark.parametrize(
    ("environ", "name"),
    [({}, "forwardscope"), ({"OTEL_SERVICE_NAME": "nightly"}, "nightly")],
)
def test_service_name(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str) -> None:
    """The default is forwardscope; OTEL_SERVICE_NAME overrides it."""
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    provider = make_provider(SpanProcessor())
    assert isinstance(provider, TracerProvider)
    assert provider.resource.attributes["service.name"] == name
