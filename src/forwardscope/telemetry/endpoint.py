"""HTTP endpoint that a Prometheus server scrapes."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry

__all__ = ["ConnectionLimits", "MetricsEndpoint"]

#: Pause after a connection that cannot be accepted, such as without a free descriptor.
_RETRY_S: Final = 0.2
#: A close waits so long for the server's thread.
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What other programs may use of an endpoint.

    Attributes:
        connections: Open connections; a further one closes the oldest.
        request_bytes: Bytes of a request's line and headers; the rest is not read.
        idle_s: Time for one read or write of a connection.
        open_s: Time after which a connection is closed in any case.
    """

    connections: int = 32
    request_bytes: int = 16_384
    idle_s: float = 3.0
    open_s: float = 10.0


class MetricsEndpoint:
    """HTTP endpoint that serves a registry and counts scrapes.

    Args:
        registry: Registry to serve.
        address: Address to listen on.
        port: Port to listen on; 0 selects a free one.
        limits: Limits of its connections.

    Raises:
        OSError: The port is in use, or this machine does not have the address.

    Attributes:
        url: URL to open on this machine.
        place: The URL, and the address where it listens if that is another.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        address: str,
        port: int,
        limits: ConnectionLimits = ConnectionLimits(),
    ) -> None:
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 - import registers collectors

        self._served = threading.Condition()
        self._begun = 0
        self._answered = 0
        self._latest = -1  # highest number of an answered scrape
        self._linger_ended = False
        self._app = make_wsgi_app(registry)
        server = _Server6 if ":" in address else _Server
        self._server = make_server(address, port, self._serve, server, _Handler)
        self._server.limits = limits
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_POLL_S,),
            name="forwardscope-metrics",
            daemon=True,
        )
        self._thread.start()
        self.url, self.place = _places(address, *self._server.server_address[:2])

    @property
    def scrapes(self) -> int:
        """Scrapes that were answered completely."""
        return self._answered

    def linger(self, timeout_s: float) -> bool:
        """Wait for a scrape that begins after this call; return whether it was answered."""
        with self._served:
            first = self._begun
            self._served.wait_for(lambda: self._linger_ended or self._latest >= first, timeout_s)
            return self._latest >= first

    def end_linger(self) -> None:
        """End the wait of `linger`, now or when it begins."""
        with self._served:
            self._linger_ended = True
            self._served.notify_all()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or environ["PATH_INFO"] == "/favicon.ico":
            return self._app(environ, start_response)  # type: ignore[no-any-return]
        # numbered before the values are read, so that `linger` can ignore older scrapes
        with self._served:
            number, self._begun = self._begun, self._begun + 1
        return _Body(self._app(environ, start_response), lambda: self._count(number))

    def _count(self, number: int) -> None:
        with self._served:
            self._answered += 1
            self._latest = max(self._latest, number)
            self._served.notify_all()


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread, and closes old connections."""

    limits = ConnectionLimits()
    request_queue_size = 64
    daemon_threads = True  # an idle connection does not block `close`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._opened: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; wait after a failure, which the next call may meet again."""
        try:
            return super().get_request()
        except OSError:
            self._end_connections(keep=self.limits.connections // 2)
            time.sleep(_RETRY_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread."""
        with self._lock:
            self._opened[request] = time.monotonic()
        self._end_connections(keep=self.limits.connections)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End the connections that are too old; called at each poll."""
        self._end_connections(keep=self.limits.connections)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._opened.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a scraper that disconnects or is too slow."""

    def _end_connections(self, keep: int) -> None:
        """End the connections that are too old or too many; their threads close them."""
        oldest = time.monotonic() - self.limits.open_s
        with self._lock:
            too_many = len(self._opened) - keep
            for number, (request, opened) in enumerate(self._opened.items()):
                if number < too_many or opened < oldest:
                    with suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    server: _Server

    def setup(self) -> None:
        """Limit the time of each read and write."""
        self.request.settimeout(self.server.limits.idle_s)
        super().setup()

    def handle(self) -> None:
        """Read the line and the headers of a request up to a bound, and answer it."""
        head, bound = b"", self.server.limits.request_bytes
        with self.rfile:
            while (line := self.rfile.readline(bound - len(head))) not in (b"", b"\n", b"\r\n"):
                head += line
        self.rfile = io.BytesIO(head + b"\r\n")
        super().handle()

    def get_stderr(self) -> Any:
        """Do not print the error of a scraper that is too slow."""
        return io.StringIO()

    def log_message(self, *_: object) -> None:
        """Do not log scrapes."""


class _Body:
    """Response that calls `sent` when the server closes it after the last byte."""

    def __init__(self, chunks: Iterable[bytes], sent: Callable[[], None]) -> None:
        self._chunks = iter(chunks)
        self._sent = sent
        self._ended = False

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            self._ended = True
            raise

    def close(self) -> None:
        if self._ended:
            self._sent()


def _places(address: str, bound: Any, port: Any) -> tuple[str, str]:
    """Return the URL to open for an address, and the same with the address where it listens.

    No client can connect to an address such as 0.0.0.0, which means all addresses.
    """
    ip = ip_address(bound)
    host, note = address, ""
    if ip.is_unspecified:
        host = "::1" if isinstance(ip, IPv6Address) else "127.0.0.1"
        note = f" (listens on all addresses, {ip})"
    url = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
    return url, url + note
