"""Pushgateway and metrics file, with servers in this process."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from prometheus_client import CollectorRegistry, Gauge, Metric
from prometheus_client.registry import Collector

from forwardscope.telemetry.delivery import Pusher, write_metrics_file

_PATIENCE_S = 60.0


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry with one gauge, at 7."""
    made = CollectorRegistry()
    Gauge("seen", "One number.", registry=made).set(7)
    return made


class Gateway(ThreadingHTTPServer):
    """Records pushes; answers with the next of `statuses`, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _GatewayHandler)
        self.statuses: list[int] = []
        self.location = ""
        self.pushes: list[tuple[str, str, str]] = []
        self.authorization: list[str | None] = []
        self.pushed = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _GatewayHandler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.server.pushes.append((self.command, self.path, body))
        self.server.authorization.append(self.headers["Authorization"])
        answer = b"inconsistent help\nand more" if status >= 400 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(answer)
        self.server.pushed.release()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Yield a gateway that listens."""
    server = Gateway()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_pusher_posts_to_its_group(gateway: Gateway, registry: CollectorRegistry) -> None:
    """A push is a POST to the group of job, suite and model; labels are encoded."""
    pusher = Pusher(gateway.url, registry, {"suite": "a suite", "model": "a/b"})
    pusher.push()
    assert gateway.pushed.acquire(timeout=_PATIENCE_S)
    assert pusher.close(_PATIENCE_S) is None
    assert pusher.pushes == len(gateway.pushes) == 2
    method, path, body = gateway.pushes[-1]
    model, suite = (base64.urlsafe_b64encode(text).decode() for text in (b"a/b", b"a suite"))
    assert method == "POST"
    assert path == f"/metrics/job/forwardscope/model@base64/{model}/suite@base64/{suite}"
    assert "seen 7.0" in body


def test_user_in_the_url_is_sent_as_basic_authentication(
    gateway: Gateway, registry: CollectorRegistry
) -> None:
    """User and password are unquoted; without them no header is sent."""
    url = gateway.url.replace("//", "//me:a%40b@")
    assert Pusher(url, registry, {"suite": "s"}).close(_PATIENCE_S) is None
    assert Pusher(gateway.url, registry, {"suite": "s"}).close(_PATIENCE_S) is None
    assert gateway.authorization == ["Basic " + base64.b64encode(b"me:a@b").decode(), None]


@pytest.mark.parametrize("model", [".", ".."])
def test_a_label_of_dots_is_encoded(
    gateway: Gateway, registry: CollectorRegistry, model: str
) -> None:
    """A server would take it for a folder of the path."""
    assert Pusher(gateway.url, registry, {"model": model}).close(_PATIENCE_S) is None
    path = gateway.pushes[0][1]
    encoded = path.removeprefix("/metrics/job/forwardscope/model@base64/")
    assert base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)) == model.encode()


def test_a_query_follows_the_path(gateway: Gateway, registry: CollectorRegistry) -> None:
    """The query of the gateway's URL is sent, after the path of the group."""
    pusher = Pusher(f"{gateway.url}/prefix/?token=t", registry, {"suite": "s"})
    assert pusher.close(_PATIENCE_S) is None
    assert gateway.pushes[0][1] == "/prefix/metrics/job/forwardscope/suite/s?token=t"


def test_a_redirect_is_a_failed_push(gateway: Gateway, registry: CollectorRegistry) -> None:
    """The push is not repeated elsewhere, and the password does not leave for elsewhere."""
    other = Gateway()
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    gateway.statuses, gateway.location = [302], f"{other.url}/login?token=s3cr3t"
    pusher = Pusher(gateway.url.replace("//", "//me:s3cr3t@"), registry, {"suite": "s"})
    reason = pusher.close(_PATIENCE_S)
    other.shutdown()
    other.server_close()
    thread.join()
    assert reason == f"HTTP 302: redirects to {other.url}, which is not followed"
    assert (pusher.pushes, other.pushes) == (0, [])


def test_a_gateway_that_quotes_the_token(gateway: Gateway, registry: CollectorRegistry) -> None:
    """The reason has stars in place of the URL's secrets."""
    gateway.statuses = [400]
    pusher = Pusher(f"{gateway.url}/?token=inconsistent", registry, {"suite": "s"})
    assert pusher.close(_PATIENCE_S) == "HTTP 400: Bad Request: *** help and more"


def test_a_push_is_not_traced(gateway: Gateway, registry: CollectorRegistry) -> None:
    """Instrumentations of HTTP clients are suppressed, since a push is no work of the run."""
    seen: list[object] = []

    class Probe(Collector):
        def collect(self) -> list[Metric]:
            seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
            return []

    registry.register(Probe())
    seen.clear()
    assert Pusher(gateway.url, registry, {"suite": "s"}).close(_PATIENCE_S) is None
    assert seen == [True]
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


def test_last_push_succeeds_after_an_earlier_failure(
    gateway: Gateway, registry: CollectorRegistry
) -> None:
    """`close` returns None, and counts one push."""
    gateway.statuses = [500]
    pusher = Pusher(gateway.url, registry, {"suite": "s"})
    pusher.push()
    assert gateway.pushed.acquire(timeout=_PATIENCE_S)
    assert pusher.close(_PATIENCE_S) is None
    assert pusher.pushes == 1


def test_the_last_push_is_requested_before_the_close(
    gateway: Gateway, registry: CollectorRegistry
) -> None:
    """`close` waits for it, and pushes no second time."""
    pusher = Pusher(gateway.url, registry, {"suite": "s"})
    pusher.begin_close()
    assert gateway.pushed.acquire(timeout=_PATIENCE_S)
    assert pusher.close(_PATIENCE_S) is None
    assert pusher.pushes == len(gateway.pushes) == 1


def test_refused_push(gateway: Gateway, registry: CollectorRegistry) -> None:
    """`close` returns the status and the answer."""
    gateway.statuses = [400]
    pusher = Pusher(gateway.url, registry, {"suite": "s"})
    assert pusher.close(_PATIENCE_S) == "HTTP 400: Bad Request: inconsistent help and more"
    assert pusher.pushes == 0


def test_gateway_that_does_not_listen(registry: CollectorRegistry) -> None:
    """`close` returns the reason."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    pusher = Pusher(f"http://127.0.0.1:{port}", registry, {"suite": "s"})
    assert pusher.close(_PATIENCE_S) == "Connection refused"


def test_metrics_file(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Its folders are created, and no temporary file is left."""
    path = tmp_path / "deep" / "run.prom"
    write_metrics_file(path, registry)
    assert "seen 7.0" in path.read_text()
    assert [one.name for one in path.parent.iterdir()] == ["run.prom"]


def test_metrics_file_that_cannot_be_written(tmp_path: Path, registry: CollectorRegistry) -> None:
    """A folder of its name is an error, and no file is left."""
    path = tmp_path / "run.prom"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_metrics_file(path, registry)
    assert [one.name for one in tmp_path.iterdir()] == ["run.prom"]
