"""OTLP exporters: the URL they send to, and the reasons of failures."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
import threading
import timeit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from socket import socket
from urllib.parse import quote

import pytest
from google.protobuf.json_format import MessageToJson
from google.rpc.status_pb2 import Status
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags
from prometheus_client.core import GaugeMetricFamily

from forwardscope.cli.otlp import connection_error, make_exporter
from forwardscope.cli.otlp_exporter import OtlpExporter, Sent
from forwardscope.cli.otlp_metrics import metrics_data
from forwardscope.cli.otlp_provider import make_provider
from forwardscope.cli.targets import OtlpTarget
from forwardscope.errors import OutputError

pytestmark = pytest.mark.timeout(900)

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
def http_server(
    *statuses: int, body: bytes = b"", **headers: str
) -> Iterator[tuple[str, list[str]]]:
    """Serve HTTP with the given statuses in turn; yield the URL and the requested paths."""
    remaining, paths = iter(statuses), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(next(remaining))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def do_GET(self) -> None:
            paths.append(f"GET {self.path}")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
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
        sent = exporter.send([_SPAN])
    finally:
        exporter.shutdown()
    assert sent.accepted == (sent.failure is None)
    return sent.failure


@pytest.mark.parametrize("query", ["", "?tenant=a"])
@pytest.mark.parametrize("suffix", ["", "/", "/v1/traces", "/v1/traces/"])
def test_http_url_has_the_traces_path(suffix: str, query: str) -> None:
    """The path is appended if it is missing, before the query."""
    with http_server(200) as (url, paths):
        assert send_to(url + suffix + query) is None
    assert paths == [f"/v1/traces{query}"]


def test_http_url_with_a_prefix() -> None:
    """Another path is a prefix."""
    with http_server(200) as (url, paths):
        assert send_to(f"{url}/otlp/") is None
    assert paths == ["/otlp/v1/traces"]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_http_error_status(status: int) -> None:
    """The reason is the HTTP status and its phrase."""
    with http_server(status) as (url, _):
        reason = send_to(url)
    assert reason is not None
    assert reason.startswith(f"HTTP {status}: ")
    assert len(reason) > len("HTTP 400: ")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            Status(code=3, message="name\x1b too\nlong").SerializeToString(),
            "application/x-protobuf",
        ),
        (b"name\x1b too\nlong", "text/plain"),
    ],
)
def test_the_message_of_an_error(body: bytes, kind: str) -> None:
    """The reason has what the receiver says, as one printable line."""
    with http_server(422, body=body, Content_Type=kind) as (url, _):
        assert send_to(url) == "HTTP 422: Unprocessable Entity: name\\x1b too long"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """The spans are not delivered, and the other server receives no request."""
    with http_server() as (other, landed):
        with http_server(status, Location=f"{other}/login?s3cr3t") as (url, _):
            reason = send_to(url)
        assert landed == []
    assert reason == f"HTTP {status}: redirects to {other}, which is not followed"


def test_a_login_page() -> None:
    """A web page is no answer of an OTLP receiver, although its status is 200."""
    with http_server(200, body=b"<html>", Content_Type="text/html; charset=utf-8") as (url, _):
        assert send_to(url) == "HTTP 200 with a web page; is it an OTLP receiver?"


def test_a_long_answer() -> None:
    """An answer is read up to a bound, and one beyond it is no OTLP receiver's."""
    with http_server(200, body=b"x" * 10_000_000) as (url, _):
        assert send_to(url) == "the answer is longer than 64 KiB; is it an OTLP receiver?"


def test_a_compressed_answer_is_not_expanded() -> None:
    """A compressed answer is read as it is."""
    bomb = gzip.compress(b"x" * 10_000_000)
    with http_server(200, body=bomb, Content_Encoding="gzip") as (url, _):
        assert send_to(url) is None


def _partial(rejected: int, message: str = "") -> ExportTraceServiceResponse:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = message
    return answer


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        (_partial(2, "quota\nexceeded"), Sent(1, "rejected by the receiver: quota exceeded")),
        (_partial(1), Sent(2, "rejected by the receiver")),
        (_partial(7), Sent(0, "rejected by the receiver")),
        (_partial(-1), Sent(3, None)),
        (_partial(0, "a warning"), Sent(3, None)),
    ],
)
@pytest.mark.parametrize("kind", ["application/x-protobuf", "application/json"])
def test_partial_success(answer: ExportTraceServiceResponse, sent: Sent, kind: str) -> None:
    """Spans that the receiver rejects are not delivered, and the reason is its message."""
    json = MessageToJson(answer).encode()
    body = json if kind.endswith("json") else answer.SerializeToString()
    with http_server(200, body=body, Content_Type=kind) as (url, _):
        exporter = make_exporter(OtlpTarget(url, "http/protobuf", explicit=True))
        assert exporter.send([_SPAN] * 3) == sent
        exporter.shutdown()


@pytest.mark.parametrize("kind", ["application/x-protobuf", "application/json"])
def test_partial_success_of_metrics(kind: str) -> None:
    """Data points that the receiver rejects are not delivered."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 2
    json = MessageToJson(answer).encode()
    body = json if kind.endswith("json") else answer.SerializeToString()
    families = [GaugeMetricFamily(name, "One number.", 1.0) for name in ("a", "b", "c")]
    data = metrics_data(families, Resource({}), InstrumentationScope("test"), 1, 2)
    with http_server(200, body=body, Content_Type=kind) as (url, paths):
        exporter = make_exporter(OtlpTarget(url, "http/protobuf", explicit=True, signal="metrics"))
        assert exporter.send(data) == Sent(1, "rejected by the receiver")
        exporter.shutdown()
    assert paths == ["/v1/metrics"]


@pytest.mark.parametrize("kind", ["application/x-protobuf", "application/json"])
def test_an_answer_that_is_not_readable(kind: str) -> None:
    """Its status alone counts."""
    with http_server(200, body=b"\xff{[", Content_Type=kind) as (url, _):
        assert send_to(url) is None


def test_a_receiver_that_quotes_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason has stars in place of tokens of the URL and the headers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t0ken,x-key=k3y-value")
    said = b"t0ken k3y-value qu3ry"
    with http_server(401, body=said) as (url, paths):
        assert send_to(f"{url}?key=qu3ry") == "HTTP 401: Unauthorized: *** *** ***"
    assert paths == ["/v1/traces?key=qu3ry"]


@pytest.mark.parametrize("status", [401, 200])
def test_secrets_are_replaced_before_the_answer_is_escaped(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Also a secret that is not printable, has two spaces, or is where the reason is cut."""
    secrets = "l\xadine  feed", "t0ken" * 40
    headers = f"x-one={quote(secrets[0])},x-two={secrets[1]}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
    said = f"{secrets[0]}; {'word ' * 70}{secrets[1]}"
    body, kind = said.encode(), "text/plain"
    if status == 200:
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 1
        answer.partial_success.error_message = said
        body, kind = answer.SerializeToString(), "application/x-protobuf"
    with http_server(status, body=body, Content_Type=kind) as (url, _):
        reason = send_to(url)
    assert reason is not None
    assert ": ***; word" in reason
    assert reason.endswith("word ***")


def test_an_export_is_not_traced() -> None:
    """Instrumentations of HTTP clients are suppressed while spans are sent."""
    seen: list[object] = []

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
            return SpanExportResult.SUCCESS

    assert OtlpExporter(Exporter()).send([_SPAN]) == (1, None)
    assert seen == [True]
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


def test_an_export_that_does_not_end() -> None:
    """A receiver that sends a byte now and then does not hold an export for ever."""
    ended = threading.Event()

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            ended.wait(60)
            return SpanExportResult.SUCCESS

    sent = OtlpExporter(Exporter()).send_within(0.1, [_SPAN])
    assert (sent, ended.is_set()) == ((0, "not delivered within 0.1 s"), False)
    ended.set()


def test_a_proxy_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the proxy without its credentials."""
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "http://me:s3cr3t@127.0.0.1:9")
    assert send_to("http://192.0.2.1") == "proxy http://127.0.0.1:9: Connection refused"


def test_success_after_a_failure() -> None:
    """A delivered batch clears the last error."""
    with http_server(400, 200) as (url, _):
        exporter = make_exporter(OtlpTarget(url, "http/protobuf", explicit=True))
        assert exporter.send([_SPAN]) == (0, "HTTP 400: Bad Request")
        assert exporter.send([_SPAN]) == (1, None)
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
    """The error names the variable of a provider that is not installed."""
    variable = "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER"
    monkeypatch.setenv(variable, "unknown")
    with pytest.raises(OutputError, match=f"{variable} is 'unknown', which is no installed"):
        send_to(f"http://{refused}")


def test_invalid_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that the SDK does not know is an error before anything is sent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "many")
    with pytest.raises(OutputError, match=r"^an OTEL_EXPORTER_OTLP_\* variable .*many"):
        send_to("http://127.0.0.1:9", "grpc")


def test_invalid_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning names the variable and its value, and spans keep the default limits."""
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "many")
    with pytest.warns(RuntimeWarning, match=r"OTEL_SPAN_LINK_COUNT_LIMIT must be .* got many"):
        provider = make_provider(SpanProcessor())
    span = provider.get_tracer("test").start_span("s")
    span.set_attributes({str(number): number for number in range(200)})
    assert len(span.attributes) == 128


def test_hash_of_a_resource() -> None:
    """A span's resource has the SDK's hash, but computes it once, not for each span."""
    ours = make_provider(SpanProcessor()).resource
    plain = Resource(ours.attributes, ours.schema_url)
    assert hash(ours) == hash(plain)
    assert 5 * _seconds(ours) < _seconds(plain)


def _seconds(resource: Resource) -> float:
    return min(timeit.repeat(lambda: hash(resource), number=100))


@pytest.mark.parametrize("url", ["unix:///run/otel.sock", "localhost:4317", "http://host"])
def test_connection_error_of_a_url_without_host_or_port(url: str) -> None:
    """No connection is tried, so there is no reason."""
    assert connection_error(url) is None


_PROGRAM = """
import sys
from forwardscope.cli.otlp import make_exporter
from forwardscope.cli.otlp_provider import make_provider
from forwardscope.cli.span_delivery import SpanDelivery
from forwardscope.cli.targets import OtlpTarget

delivery = SpanDelivery(make_exporter(OtlpTarget(sys.argv[1], sys.argv[2], explicit=True)))
make_provider(delivery).get_tracer("test").start_span("span").end()
delivery.close(10.0)
print(delivery.failure)
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_log_lines_on_stderr(
    refused: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's log lines, which quote malformed headers, are not printed."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "s3cr3t")
    command = [sys.executable, "-c", _PROGRAM, f"http://{refused}", protocol]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
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
