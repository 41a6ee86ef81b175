"""Scrape endpoint: what it serves, and what other programs at its port can do."""

from __future__ import annotations

import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from forwardscope.telemetry.endpoint import ConnectionLimits, MetricsEndpoint

Limited = Callable[[ConnectionLimits], MetricsEndpoint]

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


@pytest.fixture
def limited(
    registry: CollectorRegistry,
) -> Iterator[Limited]:
    """Yield a function that makes an endpoint with limits."""
    with ExitStack() as closing:

        def make(limits: ConnectionLimits) -> MetricsEndpoint:
            served = MetricsEndpoint(registry, "127.0.0.1", 0, limits)
            closing.callback(served.close)
            return served

        yield make


def connect(endpoint: MetricsEndpoint, sent: bytes = b"") -> socket.socket:
    """Return a connection to an endpoint on which bytes are sent."""
    port = int(endpoint.url.rpartition(":")[2].partition("/")[0])
    connection = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
    connection.sendall(sent)
    return connection


@pytest.mark.parametrize("sent", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: a\r\n"])
def test_an_idle_connection_is_closed(limited: Limited, sent: bytes) -> None:
    """A client that sends nothing more is disconnected."""
    endpoint = limited(ConnectionLimits(idle_s=0.2, open_s=_PATIENCE_S))
    with connect(endpoint, sent) as connection:
        connection.settimeout(_PATIENCE_S / 2)
        assert connection.recv(1) == b""


def test_a_slow_connection_is_closed(limited: Limited) -> None:
    """A client that sends a byte now and then is disconnected as well."""
    endpoint = limited(ConnectionLimits(idle_s=_PATIENCE_S, open_s=0.2))
    with connect(endpoint) as connection, suppress(ConnectionError):
        connection.settimeout(0.1)
        for _ in range(300):
            connection.sendall(b"x")
            with suppress(TimeoutError):
                assert connection.recv(1) == b""
                return
        pytest.fail("the connection is still open")


def test_the_oldest_of_many_connections_is_closed(limited: Limited) -> None:
    """Connections are bounded, and a scrape is answered among many idle ones."""
    endpoint = limited(ConnectionLimits(connections=4, idle_s=_PATIENCE_S, open_s=_PATIENCE_S))
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(endpoint)) for _ in range(20)]
        assert "seen 7.0" in scrape(endpoint.url)
        connections[0].settimeout(_PATIENCE_S / 2)
        assert connections[0].recv(1) == b""


def test_a_long_request_is_not_read(endpoint: MetricsEndpoint) -> None:
    """Headers beyond the bound are neither awaited nor kept."""
    with connect(endpoint, b"GET /metrics HTTP/1.0\r\n") as connection:
        header = b"X: " + b"x" * 1000 + b"\r\n"
        with suppress(ConnectionError):  # the endpoint answers and closes before all is sent
            for _ in range(10_000):
                connection.sendall(header)
            pytest.fail("ten megabytes of headers were read")


def cpu_seconds() -> float:
    """Return the CPU time of the endpoint's own thread; others of the process may be busy."""
    threads = [one for one in threading.enumerate() if one.name == "forwardscope-metrics"]
    ident = threads[-1].ident
    assert ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def test_no_free_descriptor(endpoint: MetricsEndpoint) -> None:
    """Without a descriptor for a connection no core is kept busy; later scrapes are answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connect(endpoint), socket.socket() as waiting:
        waiting.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting.fileno() + 1, hard))
        try:
            with suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", int(endpoint.url.split(":")[2].split("/")[0])))
            before = cpu_seconds()
            time.sleep(1.0)
            used = cpu_seconds() - before
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert used < 0.5
    assert "seen 7.0" in scrape(endpoint.url)


@pytest.mark.parametrize(
    ("address", "host"),
    [("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1")],  # noqa: S104 - told apart
)
def test_all_addresses(registry: CollectorRegistry, address: str, host: str) -> None:
    """The URL can be opened on this machine; the place says where the endpoint listens."""
    served = MetricsEndpoint(registry, address, 0)
    try:
        assert served.url.startswith(f"http://{host}:")
        assert served.place == f"{served.url} (listens on all addresses, 0.0.0.0)"
        assert "seen 7.0" in scrape(served.url)
    finally:
        served.close()


def test_one_address(endpoint: MetricsEndpoint) -> None:
    """The place is the URL."""
    assert endpoint.place == endpoint.url
