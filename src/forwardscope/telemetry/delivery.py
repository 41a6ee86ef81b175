"""Metrics delivery through a scrape endpoint, a Pushgateway or a text file.

The endpoint and the pusher have threads of their own, so they do not delay a
run. A failed push raises nothing: `Pusher.close` returns the reason.
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

#: Value of the label `job` of all pushed metrics.
JOB: Final = "forwardscope"

_PUSH_EVERY_S = 10.0
_PUSH_TIMEOUT_S = 4.0


class MetricsEndpoint:
    """HTTP endpoint that serves a registry and counts scrapes.

    Args:
        registry: Registry to serve.
        address: Address to listen on.
        port: Port to listen on; 0 selects a free one.

    Raises:
        OSError: The port is in use, or this machine does not have the address.

    Attributes:
        url: URL to scrape.
    """

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 - import registers collectors

        self._served = threading.Condition()
        self._begun = 0
        self._answered = 0
        self._latest = -1  # highest number of an answered scrape
        self._linger_ended = False
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
    daemon_threads = True  # an idle connection does not block `close`

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a scraper that disconnects during a response."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
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


class Pusher:
    """Pushes a registry to a Pushgateway during a run and at its end.

    Pushes are POST requests, so a metric that a push lacks (the last success,
    after a failed run) keeps its value at the gateway. One thread sends all
    pushes; only `close` waits for it.

    Args:
        url: URL of the gateway; a user and password in it are sent as basic authentication.
        registry: Registry to push.
        labels: Labels that form the group at the gateway, together with `job`.
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
        """Pushes that the gateway accepted."""
        return self._pushes

    def push(self) -> None:
        """Request a push without waiting for it."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    def close(self, timeout_s: float) -> str | None:
        """Push a last time; return why that push failed, or None."""
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
        from prometheus_client import pushadd_to_gateway  # noqa: PLC0415 - registers collectors

        try:
            pushadd_to_gateway(
                self._address, JOB, self._registry, self._labels, _PUSH_TIMEOUT_S, self._handler
            )
        except Exception as error:  # noqa: BLE001 - no failure ends the run
            return _reason(error)
        return None


def write_metrics_file(path: Path, registry: CollectorRegistry) -> None:
    """Write a registry atomically to a file for node_exporter's textfile collector.

    Raises:
        OSError: The file cannot be written; an existing file is unchanged.
    """
    from prometheus_client import write_to_textfile  # noqa: PLC0415 - import registers collectors

    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def _split_credentials(url: str) -> tuple[str, Callable[..., Callable[[], None]]]:
    """Return the URL without its credentials, and a handler that sends them."""
    from prometheus_client import exposition  # noqa: PLC0415 - import registers collectors

    parts = urlsplit(url)
    if parts.username is None:
        return url, exposition.default_handler
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    user, password = unquote(parts.username), unquote(parts.password or "")
    return address, partial(exposition.basic_auth_handler, username=user, password=password)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        first_line = error.read(200).decode("utf-8", "replace").strip().partition("\n")[0]
        return f"HTTP {error.code}: {first_line or error.reason}"
    reason: Any = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__
