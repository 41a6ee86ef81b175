"""Three ways out for metrics: an endpoint to scrape, a Pushgateway, and a file.

None of them can make a run fail or wait: what does not arrive is told by
`close`, as a sentence.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry

__all__ = ["JOB", "MetricsEndpoint", "Pusher", "write_metrics_file"]

#: The label `job` of everything that is pushed.
JOB: Final = "forwardscope"

_PUSH_EVERY_S = 10.0
_PUSH_TIMEOUT_S = 4.0


class MetricsEndpoint:
    """An HTTP endpoint that serves a registry, and knows how often it was read.

    Args:
        registry: What is served.
        address: Where to listen.
        port: Which port; 0 takes a free one.

    Raises:
        OSError: The port is taken, or the address is not this machine's.

    Attributes:
        url: Where it can be scraped.
    """

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 - it has global collectors

        self._served = threading.Condition()
        self._asked = 0
        self._answered: list[int] = []
        self._app = make_wsgi_app(registry)
        server = _Server6 if ":" in address else _Server
        self._server = make_server(address, port, self._serve, server, _QuietHandler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="forwardscope-metrics", daemon=True
        )
        self._thread.start()
        host = f"[{address}]" if ":" in address else address
        self.url: Final = f"http://{host}:{self._server.server_port}/metrics"

    @property
    def scrapes(self) -> int:
        """Scrapes that were answered to the last byte."""
        return len(self._answered)

    def linger(self, timeout_s: float) -> bool:
        """Wait for one scrape that begins from now on; say whether it came."""
        with self._served:
            first = self._asked
            return self._served.wait_for(
                lambda: any(number >= first for number in self._answered), timeout_s
            )

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or environ["PATH_INFO"] == "/favicon.ico":
            return self._app(environ, start_response)  # type: ignore[no-any-return]
        with self._served:  # before the values are read, for `linger` to know how old they are
            number, self._asked = self._asked, self._asked + 1
        return _Body(self._app(environ, start_response), lambda: self._note(number))

    def _note(self, number: int) -> None:
        with self._served:
            self._answered.append(number)
            self._served.notify_all()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a scraper that connects and says nothing keeps nobody waiting

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a scraper that went away in the middle."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log no scrape."""


class _Body:
    """A response that tells when it was sent; the server closes it after its last byte."""

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


class Pusher:
    """Pushes a registry to a Pushgateway, as a run goes on and at its end.

    It POSTs, so that what a push does not have (the last success, where a run
    failed) stays as it was. One thread pushes; nobody waits for it but `close`.

    Args:
        url: Of the gateway; a user and password in it are sent as basic authentication.
        registry: What is pushed.
        labels: With `job`, the group that it is pushed to.
    """

    def __init__(self, url: str, registry: CollectorRegistry, labels: Mapping[str, str]) -> None:
        self.url: Final = url
        self._address, self._handler = _split_credentials(url)
        self._registry = registry
        self._labels = dict(labels)
        self._changed = threading.Condition()
        self._wanted = 0
        self._tried = 0
        self._pushes = 0
        self._failure: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="forwardscope-push", daemon=True)
        self._thread.start()

    @property
    def pushes(self) -> int:
        """Pushes that the gateway took."""
        return self._pushes

    def push(self) -> None:
        """Ask for a push soon."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    def close(self, timeout_s: float) -> str | None:
        """Push a last time; return why that did not arrive, or None."""
        with self._changed:
            self._wanted += 1
            self._closing = True
            goal = self._wanted
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._tried >= goal, timeout_s):
                return self._failure or "no answer in time"
            return self._failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted > self._tried, _PUSH_EVERY_S)
                goal = self._wanted
                last = self._closing
            failure = self._push()
            with self._changed:
                self._tried = goal
                self._failure = failure
                self._pushes += failure is None
                self._changed.notify_all()
                if last and self._tried == self._wanted:
                    return

    def _push(self) -> str | None:
        from prometheus_client import pushadd_to_gateway  # noqa: PLC0415 - global collectors

        try:
            pushadd_to_gateway(
                self._address, JOB, self._registry, self._labels, _PUSH_TIMEOUT_S, self._handler
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on and tells it
            return _reason(error)
        return None


def write_metrics_file(path: Path, registry: CollectorRegistry) -> None:
    """Write a registry for node_exporter's textfile collector, whole or not at all.

    Raises:
        OSError: It cannot be written; what stood there before still does.
    """
    from prometheus_client import write_to_textfile  # noqa: PLC0415 - it has global collectors

    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def _split_credentials(url: str) -> tuple[str, Callable[..., Callable[[], None]]]:
    """Return a URL that can be opened, and what opens it with the user that stood in it."""
    from prometheus_client import exposition  # noqa: PLC0415 - it has global collectors

    parts = urlsplit(url)
    if parts.username is None:
        return url, exposition.default_handler
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = unquote(parts.username), unquote(parts.password or "")
    return address, partial(exposition.basic_auth_handler, username=user, password=password)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        told = error.read(200).decode("utf-8", "replace").strip().partition("\n")[0]
        return f"HTTP {error.code}: {told or error.reason}"
    reason: Any = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
