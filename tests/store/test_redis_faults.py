"""Servers that are down, hang, lie or are full: equal values, a bounded cost, and a word."""

from __future__ import annotations

import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from forwardscope.errors import StoreError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.redis import RedisStore
from forwardscope.store.redis_address import RedisAddress

from . import redis_server
from .entries import new, put, value_of

#: What a server may cost a run, and the rest of a run of these tests on a busy machine.
_COST_S = 3.0 + 2.0


@contextmanager
def _hostile(answer: bytes | None, delay_s: float = 0.0) -> Iterator[str]:
    """Yield the URL of a server that answers each request so; None for never."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                if answer is not None:
                    time.sleep(delay_s)
                    connection.sendall(answer)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        listener.close()
        for one in connections:
            one.close()


def _open(url: str) -> RedisStore:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return RedisStore(RedisAddress.parse(url))


def _run(store: RedisStore, lookups: int = 60) -> None:
    """Make lookups, and check their values."""
    backend = BackendInstrumentation(store=store, view_identity=lambda view: view)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for number in range(lookups):
            got = backend.cached("op", "ft", f"{number}", 0, lambda n=number: float(n))
            assert got == float(number)
        backend.close()
        store.close()


@pytest.mark.parametrize(
    "answer", [None, b"garbage\r\n", b"*1000000000\r\n", b"$-7\r\n", b":1\r\n", b"\0" * 4096]
)
def test_a_server_that_is_no_server(answer: bytes | None) -> None:
    """One that hangs or answers garbage costs a run a bounded time, and no value."""
    with _hostile(answer) as url:
        start = time.monotonic()
        store = _open(url)
        _run(store)
        assert time.monotonic() - start < _COST_S
    assert store.stats().unavailable
    assert sum(store.stats().errors.values()) >= 1


def test_a_wrong_password(redis_port: int) -> None:
    """A run goes on without the store, and a command says what is wrong; neither shows it."""
    with redis_server.running("--requirepass", "right") as port:
        url = f"redis://:wrong1@127.0.0.1:{port}/0"
        with pytest.warns(RuntimeWarning, match="does not accept user and password") as warned:
            store = RedisStore(RedisAddress.parse(url))
        _run(store)
        assert store.stats().unavailable
        with pytest.raises(StoreError, match="does not accept user and password") as error:
            RedisStore(RedisAddress.parse(url), required=True)
        assert "wrong1" not in f"{error.value}{[str(one.message) for one in warned]}"
        right = RedisStore(RedisAddress.parse(url.replace("wrong1", "right")), required=True)
        put(right, new("one"))
        assert value_of(right, "one") == 1.5
        right.close()


@pytest.mark.parametrize("user", ["", ":secret@", "me:secret@"])
@pytest.mark.parametrize("answer", [b":1\r\n", b"$-1\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_server_of_something_else(answer: bytes, user: str) -> None:
    """A server that does not speak Redis is named so, also where a password is given."""
    with (
        _hostile(answer) as url,
        pytest.raises(StoreError, match="does not answer as a Redis server") as error,
    ):
        RedisStore(RedisAddress.parse(url.replace("//", f"//{user}")), required=True)
    assert "secret" not in str(error.value)


def test_a_server_that_dies() -> None:
    """One that is killed in the middle of a run costs values that were not written, no more."""
    port = redis_server.free_port()
    process = redis_server.start(port)
    store = _open(f"redis://127.0.0.1:{port}/0")
    put(store, new("one"))
    redis_server.stop(process)
    start = time.monotonic()
    _run(store)
    assert time.monotonic() - start < _COST_S
    assert sum(store.stats().errors.values()) >= 1
    assert store.stats().unavailable


def test_a_server_that_hangs_in_the_middle() -> None:
    """One that stops answering costs a run a bounded time, queued values included."""
    port = redis_server.free_port()
    process = redis_server.start(port)
    store = _open(f"redis://127.0.0.1:{port}/0")
    put(store, new("one"))
    process.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    _run(store)
    assert time.monotonic() - start < _COST_S
    assert store.stats().unavailable
    redis_server.stop(process)


def test_a_server_that_is_restarted_empty() -> None:
    """Its values are misses, and are stored again."""
    port = redis_server.free_port()
    process = redis_server.start(port)
    store = _open(f"redis://127.0.0.1:{port}/0")
    put(store, new("one"))
    redis_server.stop(process)
    process = redis_server.start(port)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            assert value_of(store, "one") is None
            put(store, new("one", 2.5))
            assert value_of(store, "one") == 2.5
        assert not store.stats().unavailable
    finally:
        store.close()
        redis_server.stop(process)


def test_a_full_server() -> None:
    """Where the server evicts nothing, values are dropped and counted; a run goes on."""
    options = "--maxmemory", "2mb", "--maxmemory-policy", "noeviction"
    with redis_server.running(*options) as port:
        store = _open(f"redis://127.0.0.1:{port}/0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for number in range(40):
                put(store, new(f"{number}", "x" * 100_000))
        assert store.stats().dropped > 0
        assert ("put", "OutOfMemoryError") in store.stats().errors
        assert store.stats().max_bytes == 2 * 2**20
        _run(store)


def test_a_server_that_evicts() -> None:
    """With an LRU policy the server makes room, and what it evicted is a miss."""
    options = "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"
    with redis_server.running(*options) as port:
        store = _open(f"redis://127.0.0.1:{port}/0")
        for number in range(60):
            put(store, new(f"{number}", "x" * 100_000))
        assert store.stats().dropped == 0
        found = [number for number in range(60) if value_of(store, f"{number}") is not None]
        assert 0 < len(found) < 60
        store.close()


@pytest.mark.parametrize("delay_s", [0.05, 0.15, 0.4])
def test_a_slow_server(delay_s: float) -> None:
    """One whose every answer takes long is given up after a bounded time."""
    with redis_server.running() as port, _slow(port, delay_s) as url:
        start = time.monotonic()
        store = _open(url)
        _run(store)
        assert time.monotonic() - start < _COST_S
        assert store.stats().unavailable


def test_a_server_that_sends_byte_by_byte() -> None:
    """One whose every byte comes soon, and whose answers never end, is given up as well."""
    with redis_server.running() as port, _slow(port, 0.3, size=1) as url:
        start = time.monotonic()
        store = _open(url)
        _run(store)
        assert time.monotonic() - start < _COST_S
        assert store.stats().unavailable


def test_a_far_server() -> None:
    """One that answers as soon as its distance allows is used to the end."""
    with redis_server.running() as port, _slow(port, 0.01) as url:
        store = _open(url)
        _run(store)
        assert not store.stats().unavailable
        assert store.stats().dropped == 0


@contextmanager
def _slow(port: int, delay_s: float, size: int = 65536) -> Iterator[str]:
    """Yield the URL of a proxy that delays each part of a server's answers."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, wait_s: float) -> None:
        try:
            while data := source.recv(size):
                time.sleep(wait_s)
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            target.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
            except OSError:
                return
            for args in ((client, server, 0.0), (server, client, delay_s)):
                threading.Thread(target=pump, args=args, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    finally:
        listener.close()


def test_a_server_that_may_not_be_used() -> None:
    """A user without the rights is an error that says so."""
    with redis_server.running() as port:
        with redis.Redis(port=port) as client:
            client.acl_setuser("me", enabled=True, passwords=["+pw"], commands=["+ping"])
        with pytest.raises(StoreError, match="may not use"):
            RedisStore(RedisAddress.parse(f"redis://me:pw@127.0.0.1:{port}/0"), required=True)
