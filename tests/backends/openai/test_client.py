"""Requests are bounded in time and size, repeated where that helps, and show no secret."""

from __future__ import annotations

import gzip
import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from forwardscope.backends.openai.client import MAX_BODY_BYTES, NOT_FINITE, ServerClient
from forwardscope.backends.openai.retries import Retries
from forwardscope.backends.server_url import KEY_VARIABLE, ServerUrl
from forwardscope.core.server_requests import Exchange
from forwardscope.errors import ServerError, ViewError

from .conftest import QUICK
from .vllm_double import Fault, VllmDouble

_URL = ServerUrl.parse("http://server:8000")
_NONE = Retries(attempts=1)
Ask = Callable[..., bytes]
MakeClient = Callable[..., ServerClient]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Make clients, and close them after the test."""
    with ExitStack() as closing:

        def made(url: ServerUrl = _URL, **options: Any) -> ServerClient:
            client = ServerClient(url, **{"retries": QUICK, **options})
            closing.callback(client.close)
            return client

        yield made


@pytest.fixture
def ask(server: VllmDouble, make_client: MakeClient) -> Ask:
    """Send a request to the double."""

    def asked(operation: str = "models", body: Any = None, **options: Any) -> bytes:
        client = make_client(ServerUrl.parse(server.url), **options)
        faults = list(server.faults)
        server.faults.clear()
        client.request("version")  # so that the server has answered before
        server.faults += faults
        server.requests.clear()
        return client.request(operation, body)

    return asked


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, b"slow down", (("Retry-After", "0"),)),
        Fault(502),
        Fault(503),
        Fault(504),
        Fault(),
        Fault(200, b'{"data":[]}', cut=4),
    ],
)
def test_faults_that_pass(ask: Ask, server: VllmDouble, fault: Fault) -> None:
    """A busy server and a lost connection, also in the middle of an answer, are asked again."""
    server.faults += [fault, fault]
    assert b"base" in ask()
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500])
def test_faults_that_stay(ask: Ask, server: VllmDouble, status: int) -> None:
    """An answer that would be the same again is an error at once, with its status."""
    server.faults.append(Fault(status, b'{"error":{"message":"no"}}'))
    with pytest.raises(ServerError) as refused:
        ask()
    assert refused.value.status == status
    assert len(server.requests) == 1


def test_completion_that_failed(ask: Ask, server: VllmDouble) -> None:
    """It is repeated, as another request may have disturbed it; NaN would be NaN again."""
    request = {"model": "base", "prompt": [[0]], "max_tokens": 1, "temperature": 0.0}
    server.faults += [Fault(500, b"disturbed"), Fault(200, b"{}")]
    assert ask("completions", request) == b"{}"
    server.faults += [Fault(500, b'{"error":{"message":"Out of range: not JSON compliant"}}')]
    with pytest.raises(ServerError, match=NOT_FINITE):
        ask("completions", request)
    assert len(server.requests) == 1


def test_server_without_tls(server: VllmDouble, make_client: MakeClient) -> None:
    """A server that speaks http is told from one that is not there."""
    client = make_client(ServerUrl.parse(server.url.replace("http:", "https:")))
    with pytest.raises(ServerError, match="does it speak http:// and not https://") as refused:
        client.request("models")
    assert not refused.value.is_gone


def test_attempts_are_bounded(ask: Ask, server: VllmDouble) -> None:
    """The error says how often the server was asked."""
    server.faults += [Fault(503)] * 9
    with pytest.raises(ServerError, match=r"HTTP 503.*after 4 attempts"):
        ask()
    assert len(server.requests) == QUICK.attempts


def test_server_that_is_not_there(make_client: MakeClient) -> None:
    """It is not waited for, and the error says what to check."""
    client = make_client(ServerUrl.parse("http://127.0.0.1:1"), retries=Retries(first_s=60))
    with pytest.raises(
        ServerError, match=r"http://127\.0\.0\.1:1 did not answer /models: .*refused"
    ) as gone:
        client.request("models")
    assert "model.server" in str(gone.value)
    assert (gone.value.status, gone.value.is_gone) == (None, True)


@pytest.mark.parametrize("host", ["a..b", "xn--", "a" * 64])
def test_host_that_is_no_name(make_client: MakeClient, host: str) -> None:
    """The error says to correct the URL; a longer time would not help."""
    client = make_client(ServerUrl.parse(f"http://{host}:8000"))
    with pytest.raises(ServerError, match=r"; correct model\.server$"):
        client.request("models")


def test_server_that_is_lost_costs_its_time_once(make_client: MakeClient) -> None:
    """Requests after one that failed with its last attempt have one attempt each."""
    asked: list[str] = []
    gone = threading.Event()

    def transport(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if gone.is_set():
            raise httpx.ConnectError("refused")
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    client = make_client(_URL, transport=httpx.MockTransport(transport))
    client.request("version")
    gone.set()
    for _ in range(2):
        with pytest.raises(ServerError):
            client.request("models")
    assert len(asked) == 1 + QUICK.attempts + 1
    gone.clear()
    client.request("models")
    gone.set()
    with pytest.raises(ServerError):
        client.request("models")
    assert len(asked) == 1 + QUICK.attempts + 2 + QUICK.attempts


def test_time_out(ask: Ask, server: VllmDouble) -> None:
    """A request that takes too long is not repeated: the server may still work on it."""
    server.faults.append(Fault(200, b"{}", delay_s=0.6, operation="models"))
    with pytest.raises(
        ServerError, match=r"no answer within 0\.2 s; raise model\.timeout, or lower"
    ):
        ask(timeout_s=0.2)
    assert len(server.requests) == 1


def test_answer_that_drips(make_client: MakeClient) -> None:
    """The time of a whole answer is bounded, also where each part comes in time."""

    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            while True:
                time.sleep(0.02)
                yield b" "

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Drip()))
    client = make_client(_URL, timeout_s=0.1, retries=_NONE, transport=transport)
    with pytest.raises(ServerError, match="no whole answer within"):
        client.request("models")


def test_answer_that_is_too_long(make_client: MakeClient) -> None:
    """No more than the bound is read."""
    read = []

    class Endless(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            while True:
                read.append(1 << 22)
                yield b" " * (1 << 22)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    client = make_client(_URL, retries=_NONE, transport=transport)
    with pytest.raises(ServerError, match="over 64 MiB"):
        client.request("models")
    assert sum(read) <= MAX_BODY_BYTES + (1 << 23)


def test_compressed_answer(make_client: MakeClient) -> None:
    """It was not requested, and could be larger than its bytes."""
    answer = httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(b"{}"))
    client = make_client(_URL, retries=_NONE, transport=httpx.MockTransport(lambda _: answer))
    with pytest.raises(ServerError, match="compressed"):
        client.request("models")


def test_redirect_is_not_followed(ask: Ask, server: VllmDouble) -> None:
    """The key goes to no other host; the error has no secret of the location."""
    target = "http://other.example/secret"
    server.faults.append(Fault(307, b"", (("Location", target),), operation="models"))
    with pytest.raises(ServerError, match=r"redirects to http://other\.example, which") as refused:
        ask()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "said", [b'{"error":{"message":"bad open  sesame"}}', b'{"said":"bad open  sesame"}']
)
def test_key(ask: Ask, server: VllmDouble, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """It is sent as a bearer token, and shown in no message that quotes it."""
    monkeypatch.setenv(KEY_VARIABLE, "open  sesame")
    server.faults.append(Fault(400, said, operation="models"))
    with pytest.raises(ServerError, match=r"bad \*\*\*") as refused:
        ask()
    assert server.keys[-1] == "Bearer open  sesame"
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "fix"), [("", "put its API key into the variable"), ("wrong", "correct the key in")]
)
def test_key_that_is_refused(
    ask: Ask, server: VllmDouble, monkeypatch: pytest.MonkeyPatch, key: str, fix: str
) -> None:
    """The error says whether a key is missing or is not the server's."""
    monkeypatch.setenv(KEY_VARIABLE, key)
    server.faults.append(Fault(401, b"{}", operation="models"))
    with pytest.raises(ServerError, match=f"HTTP 401; {fix} {KEY_VARIABLE}"):
        ask()


@pytest.mark.parametrize("key", ["sesame\n", "sesame ", "sésame"])
def test_key_that_no_header_can_have(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """The error names the variable, and nothing of its value."""
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(ServerError, match=KEY_VARIABLE) as refused:
        ServerClient(_URL)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"<html>busy</html>", "HTTP 400: Bad Request"),
        (b"\xff\xfe", "HTTP 400: Bad Request"),
        (b"[" * 60_000, "HTTP 400: Bad Request:…"),
        (b'{"detail":"Not Found"}', "HTTP 400: Bad Request: Not Found"),
        (b'{"detail":"Bad Request"}', "HTTP 400: Bad Request"),
        (b'{"error":{"message":"a\\u001b[31m b"}}', "HTTP 400: Bad Request: a\\x1b[31m b"),
    ],
)
def test_messages_of_the_server(ask: Ask, server: VllmDouble, said: bytes, shown: str) -> None:
    """They are one printable line; pages for browsers are left out."""
    server.faults.append(Fault(400, said, operation="models"))
    with pytest.raises(ServerError) as refused:
        ask()
    assert str(refused.value).endswith(f"did not accept /models: {shown}")


def test_server_without_the_api(make_client: MakeClient, server: VllmDouble) -> None:
    """A path that is not that of the API is named as what to check."""
    client = make_client(ServerUrl.parse(server.url))
    server.absent.add("models")
    with pytest.raises(ServerError, match=r"HTTP 404: Not Found; does model\.server end with /v1"):
        client.request("models")


def test_answer_that_is_nested_deeply(ask: Ask, server: VllmDouble) -> None:
    """An answer that is used is not searched for a message."""
    server.faults.append(Fault(200, b"[" * 60_000, operation="models"))
    assert ask() == b"[" * 60_000


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HTTP_PROXY", "socks5://user:sesame@127.0.0.1:1", "socksio"),
        ("ALL_PROXY", "gopher://user:sesame@127.0.0.1", "is no URL that can be used"),
        ("HTTP_PROXY", "http://user:sesame", "is no URL that can be used"),
        ("SSL_CERT_FILE", "/nowhere/sesame.pem", "SSL_CERT_FILE"),
    ],
)
def test_environment_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """The error names what to correct, and nothing of a value that may be secret."""
    if "socksio" in message and importlib.util.find_spec("socksio"):
        pytest.skip("socksio is installed")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ServerError, match=message) as refused:
        ServerClient(_URL)
    assert "sesame" not in str(refused.value)


def test_proxy_that_is_down(
    monkeypatch: pytest.MonkeyPatch, make_client: MakeClient, server: VllmDouble
) -> None:
    """The error names the proxy, which is not the server; NO_PROXY is honoured."""
    monkeypatch.setenv("HTTP_PROXY", "http://user:sesame@127.0.0.1:1")
    url = ServerUrl.parse(server.url)
    with pytest.raises(ServerError, match="NO_PROXY") as lost:
        make_client(url).request("models")
    assert "sesame" not in str(lost.value)
    assert not lost.value.is_gone
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert b"base" in make_client(url).request("models")
    with pytest.raises(ServerError) as down:
        make_client(ServerUrl.parse("http://127.0.0.1:1")).request("models")
    assert "proxy" not in str(down.value)


def test_closed_client(make_client: MakeClient) -> None:
    """It sends nothing."""
    client = make_client()
    client.close()
    with pytest.raises(ViewError, match="closed"):
        client.request("models")


def test_client_that_is_closed_meanwhile(make_client: MakeClient) -> None:
    """A request of another thread loses its connection, and is not sent again."""

    def transport(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/version":
            return httpx.Response(200, stream=httpx.ByteStream(b"{}"))
        client.close()
        raise httpx.ReadError("closed")

    client = make_client(_URL, transport=httpx.MockTransport(transport))
    client.request("version")
    with pytest.raises(ViewError, match="closed"):
        client.request("models")


def test_stop_ends_the_waiting(ask: Ask, server: VllmDouble) -> None:
    """A stop that is requested while a client waits for its next attempt ends the request."""
    stop = threading.Event()
    server.faults.append(Fault(503, operation="models"))
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(ServerError, match="HTTP 503"):
        ask(retries=Retries(first_s=600.0, longest_s=600.0), stopping=stop.is_set)
    timer.join()
    assert len(server.requests) == 1


def test_exchanges_are_observed(ask: Ask, server: VllmDouble) -> None:
    """Each request is told once, with its attempts and how often it was throttled."""
    seen: list[Exchange] = []
    server.faults += [
        Fault(429, operation="models"),
        Fault(503, operation="models"),
    ]
    ask(observe=seen.append)
    told = [(one.operation, one.attempts, one.throttled, one.status) for one in seen]
    assert told == [("version", 1, 0, 200), ("models", 3, 1, 200)]
    assert all(one.seconds > 0 for one in seen)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_has_connections_of_its_own(
    server: VllmDouble, make_client: MakeClient
) -> None:
    """Parent and child do not read each other's answers."""
    client = make_client(ServerUrl.parse(server.url))
    client.request("models")
    child = os.fork()
    if child == 0:
        os._exit(0 if b"base" in client.request("models") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"base" in client.request("models")
