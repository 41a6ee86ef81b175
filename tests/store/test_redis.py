"""A store on a server: leases, expiry, and what others do to its keys."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

import pytest
import redis

from forwardscope.core.series import Counts
from forwardscope.errors import StoreError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store import maintenance
from forwardscope.store.codec import encode
from forwardscope.store.keys import entry_digest
from forwardscope.store.redis import RedisStore
from forwardscope.store.redis_address import RedisAddress
from forwardscope.store.redis_entries import entry_key, lease_key
from forwardscope.store.redis_leases import RedisLease

from .entries import new, put, value_of

_HOLDER = """
import sys, time
from forwardscope.store.redis import RedisStore
from forwardscope.store.redis_address import RedisAddress
store = RedisStore(RedisAddress.parse(sys.argv[1]), required=True)
store.lease([bytes.fromhex(sys.argv[2])])
print("held", flush=True)
time.sleep(300)
"""


def _open(url: str) -> RedisStore:
    return RedisStore(RedisAddress.parse(url), required=True)


@pytest.fixture
def pair(redis_url: str) -> Iterator[tuple[RedisStore, RedisStore]]:
    """Yield two machines' stores on one server."""
    stores = _open(redis_url), _open(redis_url)
    yield stores
    for one in stores:
        one.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def _backend(store: RedisStore) -> BackendInstrumentation:
    return BackendInstrumentation(store=store, view_identity=lambda view: f"id of {view}")


def test_machines_compute_each_question_once(
    redis_url: str, together: Callable[[int, Callable[[int], object]], list[object]]
) -> None:
    """Machines that begin at once pay one forward pass for each question between them."""
    computed: Counter[str] = Counter()
    lock = threading.Lock()
    prompts = [f"prompt {n}" for n in range(40)]

    def work(me: int) -> list[float]:
        store = _open(redis_url)
        backend = _backend(store)

        def compute(at: list[int]) -> list[float]:
            with lock:
                computed.update(chosen[index] for index in at)
            time.sleep(0.02)
            return [float(chosen[index].split()[1]) for index in at]

        chosen = prompts[me * 10 :] + prompts[: me * 10]
        values: list[float] = []
        for start in range(0, 40, 8):
            chosen_part = chosen[start : start + 8]
            values += backend.cached_batch(
                "op", "ft", chosen_part, 0, lambda at, s=start: compute([s + i for i in at])
            )
        total = sum(backend.ledger.snapshot().series.values(), start=Counts())
        assert total.hits + total.coalesced + total.misses == 40
        assert total.demand == 40
        store.close()
        return sorted(values)

    results = together(4, work)
    assert results == [[float(n) for n in range(40)]] * 4
    assert computed == Counter(prompts)


def test_a_waiter_gets_the_value_with_its_tier(pair: tuple[RedisStore, RedisStore]) -> None:
    """What another machine computes is coalesced, of the tier remote, and needs no pass here."""
    first, second = map(_backend, pair)
    begun, go = threading.Event(), threading.Event()

    def compute() -> float:
        begun.set()
        assert go.wait(60)
        return 1.5

    leader = threading.Thread(target=first.cached, args=("op", "ft", "p", 0, compute))
    leader.start()
    assert begun.wait(60)
    threading.Timer(0.2, go.set).start()
    assert second.cached("op", "ft", "p", 0, lambda: 2.5) == 1.5
    leader.join()
    (counts,) = second.ledger.snapshot().series.values()
    assert (counts.coalesced, counts.remote_coalesced, counts.hits, counts.misses) == (1, 1, 0, 0)
    assert counts.demand == 1


def test_a_failed_compute_gives_its_lease_up(pair: tuple[RedisStore, RedisStore]) -> None:
    """Another machine computes at once what one failed to."""
    first, second = map(_backend, pair)
    with pytest.raises(ZeroDivisionError):
        first.cached("op", "ft", "p", 0, lambda: 1 // 0)
    start = time.monotonic()
    assert second.cached("op", "ft", "p", 0, lambda: 2.5) == 2.5
    assert time.monotonic() - start < 5  # a lease that is left lasts ten seconds


def test_a_value_that_cannot_be_decoded_is_computed(
    pair: tuple[RedisStore, RedisStore], client: redis.Redis
) -> None:
    """A value of a program that knows more types is computed here, not waited for."""
    entry = new("p")
    put(pair[0], entry)
    content = client.get(entry_key(entry.digest))
    assert isinstance(content, bytes)
    value = encode(entry.value, entry.digest)
    body = bytearray(value[:-16])
    body[4] += 1  # the format
    newer = bytes(body) + sha256(entry.digest + body).digest()[:16]
    client.set(entry_key(entry.digest), content.replace(value, newer))
    lease = pair[1].lease([entry.digest])
    assert (lease.owned, lease.others, lease.found) == ({entry.digest}, frozenset(), {})
    lease.release()
    assert pair[1].stats().corrupt == 0


def test_a_stop_ends_a_wait(pair: tuple[RedisStore, RedisStore]) -> None:
    """A requested stop ends a wait for another machine."""
    held = _backend(pair[0])
    backend = _backend(pair[1])
    begun, go = threading.Event(), threading.Event()

    def compute() -> float:
        begun.set()
        assert go.wait(60)
        return 1.5

    leader = threading.Thread(target=held.cached, args=("op", "ft", "p", 0, compute))
    leader.start()
    assert begun.wait(60)
    threading.Timer(0.2, backend.request_stop).start()
    with pytest.raises(KeyboardInterrupt):
        backend.cached("op", "ft", "p", 0, lambda: 2.5)
    go.set()
    leader.join()


def test_a_killed_holder_is_replaced(redis_url: str, client: redis.Redis) -> None:
    """Where the holder of a lease is killed, its lease ends and a waiter computes."""
    digest = new("one").digest
    command = [sys.executable, "-c", _HOLDER, redis_url, digest.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    store = _open(redis_url)
    lease = store.lease([digest])
    assert lease.others == {digest}
    client.pexpire(lease_key(digest), 300)  # as if ten seconds had passed
    assert lease.wait() == {}
    assert lease.owned == {digest}
    store.close()
    assert not client.exists(lease_key(digest))


def test_a_lease_of_another_thread_is_waited_for(redis_url: str) -> None:
    """What a process has claimed is not claimed again by it."""
    store, digest = _open(redis_url), new("one").digest
    assert store.lease([digest]).owned == {digest}
    assert store.lease([digest]).others == {digest}
    store.close()


@pytest.mark.usefixtures("redis_url")
def test_a_claim_without_its_answer_is_made_again(redis_port: int) -> None:
    """Where a claim was taken and its answer was lost, the caller does not wait for itself."""
    digest = new("one").digest
    with _losing_an_answer(redis_port, b"'NX'") as url:
        store = _open(url)
        assert store.lease([digest]).owned == {digest}
        store.close()


@contextmanager
def _losing_an_answer(port: int, word: bytes) -> Iterator[str]:
    """Yield the URL of a proxy that once loses the answer to a request with a word in it."""
    lost = threading.Event()

    def forward(client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while request := client.recv(65536):
                server.sendall(request)
                answer = server.recv(65536)
                if word in request and not lost.is_set():
                    lost.set()
                    return
                client.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=forward, args=(client, server), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        assert lost.is_set()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_holds_no_lease_of_its_parent(
    redis_url: str, in_child: Callable[[Callable[[], object]], None]
) -> None:
    """What the parent computes, its child waits for."""
    store, digest = _open(redis_url), new("one").digest
    assert store.lease([digest]).owned == {digest}

    def child() -> None:
        assert store.lease([digest]).others == {digest}

    in_child(child)
    store.close()


def test_a_holder_renews_its_lease(redis_url: str, client: redis.Redis) -> None:
    """The lease of what is being computed does not end."""
    store, digest = _open(redis_url), new("one").digest
    assert store.lease([digest]).owned == {digest}
    client.pexpire(lease_key(digest), 4000)
    time.sleep(4.5)
    assert client.pttl(lease_key(digest)) > 4000
    store.close()


def test_an_interrupted_lookup_holds_no_lease(
    redis_url: str, at_moment: Callable[..., bool]
) -> None:
    """After Ctrl-C at any moment of a lookup, no entry waits for what nothing computes."""

    def stop() -> None:
        raise KeyboardInterrupt

    store, moment, more = _open(redis_url), 0, True
    inst = _backend(store)
    while more:
        prompt = f"prompt {moment}"

        def look_up(prompt: str = prompt) -> float:
            return inst.cached("op", "base", prompt, 8, lambda: 1.5)

        more = at_moment(moment, stop, look_up)
        assert store.flush(60)
        lease = store.lease([entry_digest("id of base", "op", prompt, 8)])
        assert not lease.others
        lease.release()
        moment += 1
    store.close()


def test_a_wait_ends(pair: tuple[RedisStore, RedisStore]) -> None:
    """What another machine does not store in time is the caller's, and is counted."""
    digests = [new("one").digest, new("two").digest]
    assert pair[0].lease(digests).others == frozenset()
    lease = RedisLease(pair[1], digests, wait_s=0.05)
    assert lease.others == set(digests)
    assert lease.wait() == {}
    assert (lease.owned, lease.others) == (set(digests), frozenset())
    assert pair[1].stats().expired_waits == 2
    assert pair[0].stats().expired_waits == 0


def test_a_value_that_came_in_between_is_found(pair: tuple[RedisStore, RedisStore]) -> None:
    """A lease of what was stored since has the entry, and none owns it."""
    put(pair[0], new("one"))
    lease = pair[1].lease([new("one").digest, new("two").digest])
    assert lease.found[new("one").digest].value == 1.5
    assert (lease.owned, lease.others) == ({new("two").digest}, frozenset())


@pytest.mark.parametrize("at", [0, 10, 40, -1])
def test_a_damaged_entry_is_a_miss(redis_url: str, client: redis.Redis, at: int) -> None:
    """An entry with any wrong byte is counted as corrupt, and removed."""
    store = _open(redis_url)
    put(store, new("one"))
    key = entry_key(new("one").digest)
    content = bytearray(client.get(key) or b"")
    content[at] ^= 1
    client.set(key, bytes(content))
    assert value_of(store, "one") is None
    assert store.flush(60)
    assert store.stats().corrupt == 1
    assert not client.exists(key)
    store.close()


def test_entries_expire(redis_url: str, client: redis.Redis) -> None:
    """With a ttl in the URL entries expire; what expired is in no count for long."""
    store = _open(f"{redis_url}?ttl=1h")
    put(store, new("one"), new("two"))
    assert 3500 < client.ttl(entry_key(new("one").digest)) <= 3600
    client.delete(entry_key(new("one").digest))  # as if it had expired
    for number in range(20):
        put(store, new(f"{number}"))
    assert store.stats().entries == 21
    store.close()


def test_clear_removes_our_keys_alone(redis_url: str, client: redis.Redis) -> None:
    """Clearing leaves the keys of other programs."""
    store = _open(redis_url)
    store.describe_identity("base-1", {}, model="m", adapter=None, view_family="base")
    put(store, *(new(f"{n}") for n in range(30)))
    client.set("other", "1")
    assert maintenance.prune(store) == 30
    store.close()
    assert client.keys("*") == [b"other"]


def test_mode_read_changes_nothing(redis_url: str, client: redis.Redis) -> None:
    """In mode read nothing is stored, claimed or noted."""
    store = RedisStore(RedisAddress.parse(redis_url), mode="read")
    put(store, new("one"))
    assert store.lease([new("one").digest]).owned == {new("one").digest}
    store.close()
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host/x", "number of a database"),
        ("redis://:secret@/0", "no host"),
        ("redis://:secret@host:port/0", "cannot be read"),
        ("redis://host/0?socket_timeout=9", "unknown option socket_timeout"),
        ("redis://host/0?ttl=soon", "ttl is a time"),
        ("redis://host/0?ssl_ca_certs=x", "use rediss://"),
        ("rediss://host/0?ssl_check_hostname=maybe", "true or false"),
    ],
)
def test_mistakes_in_a_url(url: str, message: str) -> None:
    """Each is one sentence, without the password."""
    with pytest.raises(StoreError, match=message) as error:
        RedisAddress.parse(url)
    assert "secret" not in str(error.value)


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the URL or of the environment is an argument of the client, and in no text."""
    address = RedisAddress.parse("valkeys://me:sec%40ret@host/3?ttl=7d")
    assert "sec@ret" in address.arguments.values()
    assert (address.name, address.ttl_s) == ("valkeys://me@host:6379/3", 604800)
    assert address.arguments["ssl_cert_reqs"] == "required"
    assert "ret" not in repr(address).replace("certs", "")
    monkeypatch.setenv("FORWARDSCOPE_STORE_PASSWORD", "hidden")
    address = RedisAddress.parse("redis://host")
    assert "hidden" in address.arguments.values()
    assert "hidden" not in repr(address)
