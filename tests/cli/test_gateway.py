"""Groups at a Pushgateway, whose answers are of unknown origin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from forwardscope.cli.gateway import groups

_LABELS = '{"job": "forwardscope", "suite": "s", "model": "m"}'
Serve = Callable[[bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve one answer to every request; the paths that were asked for are in `seen`."""
    servers: list[HTTPServer] = []

    def start(answer: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    seen.clear()
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


seen: list[str] = []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"data": 5}',
        f'{{"data": [{{"labels": {_LABELS}, "push_time_seconds": {{"metrics": []}}}}]}}'.encode(),
        (
            f'{{"data": [{{"labels": {_LABELS}, "push_time_seconds": '
            f'{{"metrics": [{{"value": {10**400}}}]}}}}]}}'
        ).encode(),
    ],
)
def test_an_answer_that_is_none(serve: Serve, answer: bytes) -> None:
    """What is no list of groups is one error, whatever it is instead."""
    with pytest.raises(ValueError, match=r".+"):
        groups(serve(answer), {"suite": "s"})


def test_a_token_in_the_query_is_sent(serve: Serve) -> None:
    """A gateway behind a proxy gets the query of its URL with each request."""
    assert groups(serve(b'{"data": []}') + "/?token=abc", {"suite": "s"}) == []
    assert seen == ["/api/v1/metrics?token=abc"]
