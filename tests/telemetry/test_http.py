"""HTTP exports: what is shown of a URL and an answer, and how much of it is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from forwardscope.telemetry.http import (
    MAX_ANSWER_BYTES,
    one_line,
    read_bounded,
    refusal,
    root_cause,
    secrets_of,
    send,
    shown_url,
    without_secrets,
)

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use no proxy."""
    monkeypatch.setenv("no_proxy", "*")


@contextmanager
def http_server(answer: Answer) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """Serve HTTP; yield the URL and the requests."""
    requests: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(self)
            with suppress(OSError):
                answer(self)

        def do_GET(self) -> None:
            requests.append(self)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer with a status and a body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:s3cr3t@host:4318/x", "http://host:4318"),
        ("https://host/v1/traces/?api_key=s3cr3t#s3cr3t", "https://host/v1/traces"),
        ("https://host/s3cr3t/v1/traces", "https://host"),
        ("grpc://[::1]:4317", "grpc://[::1]:4317"),
        ("http://h\x1bost", "http://h\\x1bost"),
        ("s3cr3t", "a URL without a host"),
        ("http://me:s3cr3t@host:99999", "a URL without a host"),
    ],
)
def test_shown_url(url: str, shown: str) -> None:
    """Scheme, host and port are shown, of paths those of OTLP."""
    assert shown_url(url) == shown


def test_secrets_of_a_url() -> None:
    """A message that quotes the hidden parts of a URL has stars in their place."""
    secrets = secrets_of("http://me:pass%40word@host:1/path-token/x?api_key=query-token&n=1")
    said = "no path-token/x for pass@word or pass%40word; api_key=query-token&n=1; query-token"
    assert without_secrets(said, secrets) == "no *** for *** or ***; ***; ***"
    assert secrets_of("http://host:1/v1/traces") == ()


def test_one_line() -> None:
    """Text of others is one printable line of at most 500 characters."""
    assert one_line(" a\n b\x1b[31m ") == "a b\\x1b[31m"
    assert one_line("x" * 501) == "x" * 499 + "…"
    assert one_line("a to\nken b", ("to\nken",)) == "a *** b"


def test_refusal() -> None:
    """A reason has the status and what the server says, unless that is a page for browsers."""
    url = "http://host:1/s3cr3t"
    assert refusal(url, 204, "No Content", None, "") is None
    assert refusal(url, 422, "Unprocessable", None, "a\nb") == "HTTP 422: Unprocessable: a b"
    assert refusal(url, 500, "Error", None, " <html>") == "HTTP 500: Error"
    assert refusal(url, 500, "Error", None, "x\ufffd") == "HTTP 500: Error"
    where = "https://host:1, which is not followed"
    assert refusal(url, 301, "Moved", "https://me:s3cr3t@host:1/s3cr3t?s3cr3t", "") == (
        f"HTTP 301: redirects to {where}"
    )
    assert refusal(url, 302, "Found", "http://[s3cr3t", "") == (
        "HTTP 302: redirects to a URL without a host, which is not followed"
    )
    assert refusal(url, 302, "Found", "/login", "") == (
        "HTTP 302: redirects to http://host:1, which is not followed"
    )


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(code: int) -> None:
    """The other server receives no request, and so no credentials."""
    with (
        http_server(status(200)) as (other, landed),
        http_server(status(code, Location=f"{other}/login")) as (url, asked),
    ):
        with pytest.raises(OSError, match=f"HTTP {code}: redirects to {other}, which is not"):
            send("POST", url, {"Authorization": "Basic s3cr3t"}, b"data", 5.0)
        assert landed == []
    assert [request.headers["Authorization"] for request in asked] == ["Basic s3cr3t"]


def test_an_endless_answer_is_cut() -> None:
    """An accepted request succeeds, however long its answer is."""
    cut = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        try:
            status(200)(handler)
            while True:
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            cut.set()

    with http_server(answer) as (url, _):
        send("POST", url, {}, b"data", 5.0)
        assert cut.wait(30)


def test_a_slow_answer_is_cut() -> None:
    """The body of an answer is read for as long as the timeout, not longer."""
    ended = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status(400, b"s")(handler)
        while not ended.wait(0.02):
            handler.wfile.write(b"s")

    with http_server(answer) as (url, _):
        with pytest.raises(OSError, match="HTTP 400: Bad Request: ss"):
            send("POST", url, {}, b"data", 0.2)  # without the timeout it never returns
        ended.set()


def test_read_bounded() -> None:
    """Reading stops at the bound, and at the deadline."""
    body = read_bounded(bytes, 1000, time.monotonic() + 1)
    assert MAX_ANSWER_BYTES <= len(body) < MAX_ANSWER_BYTES + 1000
    assert read_bounded(bytes, 1000, time.monotonic()) == b""


def test_a_proxy_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the proxy without its credentials."""
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://me:s3cr3t@127.0.0.1:9")
    with pytest.raises(OSError, match=r"^proxy 127\.0\.0\.1:9: Connection refused$"):
        send("POST", "http://192.0.2.1", {}, b"data", 5.0)


def test_root_cause() -> None:
    """The root cause is the innermost error, as one line."""
    outer = ValueError("outer")
    outer.__cause__ = OSError(111, "Connection refused")
    assert root_cause(outer) == "Connection refused"
    assert root_cause(RuntimeError("two\nlines")) == "RuntimeError: two lines"
