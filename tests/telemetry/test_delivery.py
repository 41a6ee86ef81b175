"""Scrape endpoint, Pushgateway and metrics file, with servers in this process."""

from __future__ import annotations

import base64
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from forwardscope.telemetry.delivery import MetricsEndpoint, Pusher, write_metrics_file

_PATIENCE_S = 60.0


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry with one gauge, at 7."""
    made = CollectorRegistry()
    Gauge("seen", "One number.", registry=made).set(7)
    return made


@pytest.fixture
def endpoint(registry: CollectorRegistry) -> Iterator[MetricsEndpoint]:
    """Yield an endpoint of the registry on a free port."""
    served = MetricsEndpoint(registry, "127.0.0.1", 0)
    yield served
    served.close()


class Gateway(ThreadingHTTPServer):
    """Records pushes; answers with the next of `statuses`, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _GatewayHandler)
        self.statuses: list[int] = []
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


def scrape(url: str, accept: str = "text/plain") -> str:
    """Return the text of an endpoint."""
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310 - the same
        text: str = answer.read().decode()
    return text


def test_endpoint_serves_the_registry_and_counts_scrapes(endpoint: MetricsEndpoint) -> None:
    """A scrape counts when its last byte was sent; a browser's icon does not."""
    assert "seen 7.0" in scrape(endpoint.url)
    assert scrape(endpoint.url.replace("metrics", "favicon.ico")) == ""
    assert "# EOF" in scrape(endpoint.url, "application/openmetrics-text; version=1.0.0")
    assert endpoint.linger(0.0) is False
    assert endpoint.scrapes == 2


def test_linger_waits_for_a_scrape_that_begins_later(endpoint: MetricsEndpoint) -> None:
    """An earlier scrape does not count."""
    scrape(endpoint.url)
    assert endpoint.linger(0.01) is False
    scraper = threading.Timer(0.05, scrape, [endpoint.url])
    scraper.start()
    assert endpoint.linger(_PATIENCE_S) is True
    scraper.join()


def test_linger_can_be_ended(endpoint: MetricsEndpoint, in_thread: Callable[..., Any]) -> None:
    """A waiting `linger` returns, and a later one does not wait."""
    waiting = in_thread(lambda: endpoint.linger(600))
    endpoint.end_linger()
    assert waiting.result(_PATIENCE_S) is False
    assert endpoint.linger(600) is False
    scrape(endpoint.url)
    assert endpoint.scrapes == 1


def test_port_in_use_is_an_os_error(endpoint: MetricsEndpoint, registry: CollectorRegistry) -> None:
    """Two endpoints cannot share a port."""
    port = int(endpoint.url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(OSError, match="in use"):
        MetricsEndpoint(registry, "127.0.0.1", port)


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


def test_refused_push(gateway: Gateway, registry: CollectorRegistry) -> None:
    """`close` returns the status and the first line of the answer."""
    gateway.statuses = [400]
    pusher = Pusher(gateway.url, registry, {"suite": "s"})
    assert pusher.close(_PATIENCE_S) == "HTTP 400: inconsistent help"
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
