"""`cached` under threads: one forward pass a key, exact counts, and no stuck waiter."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation
from forwardscope.core.cache import size_of, size_of_strings
from forwardscope.core.series import Counts, SeriesKey

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
UntilWaiting = Callable[..., None]
Interrupt = Callable[[threading.Event], None]
Together = Callable[[int, Callable[[int], Any]], list[Any]]

_KEY = ("next_token_dist", "base", "prompt", 8)
_OTHER_KEY = ("next_token_dist", "base", "other prompt", 8)
_PATIENCE_S = 60


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot().series[SeriesKey(None, "base", "next_token_dist")]


def _look_up(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached("next_token_dist", "base", prompt, 8, compute)


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def _crowd(in_thread: InThread, size: int, look_up: Callable[[], Any]) -> list[Future[Any]]:
    """Call a function in threads that start at once, and wait until all have ended."""
    start = threading.Barrier(size)

    def run() -> Any:
        start.wait(_PATIENCE_S)
        return look_up()

    futures = [in_thread(run) for _ in range(size)]
    for future in futures:
        future.exception(_PATIENCE_S)
    return futures


@pytest.mark.parametrize("enabled", [True, False], ids=["cache on", "cache off"])
def test_stampede_pays_one_pass(
    in_thread: InThread, until_waiting: UntilWaiting, tmp_path: Path, enabled: bool
) -> None:
    """Of 32 threads that miss one key at once, one pays a pass and 31 are coalesced."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path, cache_enabled=enabled)
    value, calls = object(), []

    def compute() -> object:
        calls.append(threading.get_ident())
        until_waiting(backend, _KEY, 31)
        return value

    futures = _crowd(in_thread, 32, lambda: backend.cached(*_KEY, compute))
    assert all(future.result() is value for future in futures)
    assert len(calls) == 1
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 31, 1)
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (31, 1)
    assert Counter((record["hit"], record.get("result")) for record in _records(path)) == {
        (False, None): 1,
        (True, "coalesced"): 31,
    }


@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize("threads", [8, 32])
def test_counts_are_exact(tmp_path: Path, together: Together, threads: int) -> None:
    """Threads that race for each key pay one pass a key; every other lookup is a hit."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(cache_maxsize=400, trace_path=path)
    calls, lock = Counter[int](), threading.Lock()

    def compute(number: int) -> int:
        with lock:
            calls[number] += 1
        return -number

    def work(_: int) -> None:
        for number in [*range(200), *range(200)]:
            assert _look_up(backend, str(number), lambda number=number: compute(number)) == -number  # type: ignore[misc]

    together(threads, work)
    assert calls == Counter(range(200))
    counts, snapshot = _counts(backend), backend.ledger.snapshot()
    assert (counts.forward_passes, counts.hits + counts.coalesced) == (200, threads * 400 - 200)
    assert snapshot.durations["next_token_dist"].count == 200
    assert (len(backend.cache), backend.cache.evictions) == (200, 0)
    records = _records(path)
    assert sum(not record["hit"] for record in records) == 200
    assert sum(record.get("result") == "coalesced" for record in records) == counts.coalesced
    assert len(records) == backend.trace.records == threads * 400


class _Slow(str):
    """A prompt that lets other threads run whenever a dictionary looks it up."""

    __slots__ = ()

    def __hash__(self) -> int:
        time.sleep(0)
        return super().__hash__()


@pytest.mark.parametrize("threads", [8, 32])
@pytest.mark.parametrize("max_bytes", [None, 2], ids=["no byte bound", "two entries in bytes"])
@pytest.mark.parametrize("maxsize", [1, 3])
def test_bounds_and_counts_under_evictions(
    together: Together, threads: int, max_bytes: int | None, maxsize: int
) -> None:
    """Where each store evicts, bounds hold at any moment and each pass is kept or evicted."""
    keys = [("next_token_dist", "base", _Slow(f"prompt {number:3}"), 8) for number in range(800)]
    size = size_of("value") + size_of_strings(keys[0])
    max_bytes = max_bytes and max_bytes * size
    backend = BackendInstrumentation(cache_maxsize=maxsize, cache_max_bytes=max_bytes)

    def work(me: int) -> None:
        for key in keys[me::threads]:
            assert backend.cached(*key, lambda: "value") == "value"
            assert len(backend.cache) <= maxsize
            assert max_bytes is None or backend.cache.nbytes <= max_bytes

    together(threads, work)
    assert _counts(backend).forward_passes == _counts(backend).lookups == 800
    assert len(backend.cache) + backend.cache.evictions == 800
    kept = [key for key in keys if backend.cache.get(key) is not MISS]
    assert len(kept) == len(backend.cache) == (maxsize if max_bytes is None else min(maxsize, 2))
    assert backend.cache.nbytes == len(kept) * size


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("threads", [8, 32])
def test_failed_leader_is_succeeded_by_one_waiter(
    in_thread: InThread, until_waiting: UntilWaiting, error: BaseException, threads: int
) -> None:
    """Its exception goes to its caller alone; one waiter takes over, the others wait on."""
    backend, calls = BackendInstrumentation(), []

    def compute() -> str:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            until_waiting(backend, _KEY, threads - 1)
            raise error
        until_waiting(backend, _KEY, threads - 2)
        return "value"

    futures = _crowd(in_thread, threads, lambda: backend.cached(*_KEY, compute))
    assert [future.exception() for future in futures if future.exception()] == [error]
    values = [future.result() for future in futures if not future.exception()]
    assert values == ["value"] * (threads - 1)
    assert len(calls) == 2
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, threads - 2, 1)
    assert counts.errors == Counter({type(error).__name__: 1})


def test_each_leader_gets_its_own_error(in_thread: InThread, until_waiting: UntilWaiting) -> None:
    """Where every pass fails, each thread takes over once and gets its own exception."""
    backend, raised = BackendInstrumentation(), {}

    def compute() -> None:
        error = raised[threading.get_ident()] = ValueError("no")
        until_waiting(backend, _KEY, 8 - len(raised))
        raise error

    def look_up() -> int:
        with pytest.raises(ValueError, match="no") as caught:
            backend.cached(*_KEY, compute)
        assert caught.value is raised[threading.get_ident()]
        return threading.get_ident()

    futures = _crowd(in_thread, 8, look_up)
    assert sorted(future.result() for future in futures) == sorted(raised)
    assert len(raised) == 8
    assert _counts(backend).lookups == _counts(backend).errors["ValueError"] == 8
    assert len(backend.cache) == 0


@pytest.mark.parametrize("same", [True, False], ids=["one backend", "two backends"])
def test_computes_that_look_up_each_others_keys(in_thread: InThread, same: bool) -> None:
    """Two passes in flight that each need the other's key compute it a second time."""
    one = BackendInstrumentation()
    two = one if same else BackendInstrumentation()
    outer, inner = threading.Barrier(2), threading.Barrier(2)

    def both_inside() -> str:
        inner.wait(_PATIENCE_S)
        return "inner"

    def look_up(
        mine: BackendInstrumentation, key: tuple[str, str, str, int], theirs: BackendInstrumentation
    ) -> str:
        def compute() -> str:
            outer.wait(_PATIENCE_S)
            other = _OTHER_KEY if key is _KEY else _KEY
            return "outer and " + theirs.cached(*other, both_inside)

        return mine.cached(*key, compute)

    futures = [
        in_thread(lambda: look_up(one, _KEY, two)),
        in_thread(lambda: look_up(two, _OTHER_KEY, one)),
    ]
    assert [future.result(_PATIENCE_S) for future in futures] == ["outer and inner"] * 2
    backends = {id(backend): backend for backend in (one, two)}.values()
    assert sum(backend.stats.forward_passes for backend in backends) == 4
    assert sum(backend.stats.cache_hits for backend in backends) == 0


@pytest.mark.parametrize("fails", [False, True])
def test_compute_that_looks_up_its_own_key_keeps_its_waiters(
    in_thread: InThread, until_waiting: UntilWaiting, fails: bool
) -> None:
    """A lookup inside a compute of the same key does not take the outer pass out of flight."""
    backend = BackendInstrumentation(cache_enabled=False)

    def inner() -> str:
        if fails:
            raise ValueError("no")
        return "inner"

    def compute() -> str:
        waiter.append(in_thread(lambda: backend.cached(*_KEY, lambda: "waiter")))
        until_waiting(backend, _KEY)
        try:
            backend.cached(*_KEY, inner)
        except ValueError:
            assert fails
        waiter.append(in_thread(lambda: backend.cached(*_KEY, lambda: "late waiter")))
        until_waiting(backend, _KEY, 2)
        return "outer"

    waiter: list[Future[str]] = []
    assert backend.cached(*_KEY, compute) == "outer"
    assert [one.result(_PATIENCE_S) for one in waiter] == ["outer", "outer"]
    counts = _counts(backend)
    assert (counts.coalesced, counts.forward_passes, counts.forward_errors) == (
        2,
        2 - fails,
        int(fails),
    )


def test_stored_value_is_not_waited_for(in_thread: InThread) -> None:
    """A stored value is a hit, though a pass of the same key is in flight."""
    backend, answers = BackendInstrumentation(), []

    def compute() -> str:
        backend.cached(*_KEY, lambda: "inner")
        other = in_thread(lambda: backend.cached(*_KEY, lambda: "again"))
        answers.append(other.result(_PATIENCE_S))
        return "outer"

    assert backend.cached(*_KEY, compute) == "outer"
    assert answers == ["inner"]
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (1, 2)


def test_coalesced_lookup_shows_the_time_that_it_waited(
    in_thread: InThread, until_waiting: UntilWaiting, clock: Any, tmp_path: Path
) -> None:
    """Its wall time is the wait; the miss has the compute's, and scoring time is both."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path, clock=clock)
    in_flight = threading.Event()

    def compute() -> None:
        clock.advance_ms(3)
        in_flight.set()
        until_waiting(backend, _KEY)
        clock.advance_ms(5)

    leader = in_thread(lambda: backend.cached(*_KEY, compute))
    assert in_flight.wait(_PATIENCE_S)
    backend.cached(*_KEY, lambda: None)
    leader.result(_PATIENCE_S)
    assert {record["hit"]: record["wall_ms"] for record in _records(path)} == {False: 8, True: 5}
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (13_000_000, 8_000_000)


def test_lookup_after_clear_does_not_join_an_earlier_pass(
    in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """It computes anew and its value stays; who waits since before the clear gets the old value."""
    backend, cleared = BackendInstrumentation(), threading.Event()
    old_value, new_value = object(), object()

    def compute() -> object:
        until_waiting(backend, _KEY)
        in_flight.set()
        assert cleared.wait(_PATIENCE_S)
        return old_value

    in_flight = threading.Event()
    old = [in_thread(lambda: backend.cached(*_KEY, compute)) for _ in range(2)]
    assert in_flight.wait(_PATIENCE_S)
    backend.cache.clear()
    assert backend.cached(*_KEY, lambda: new_value) is new_value
    cleared.set()
    assert [future.result(_PATIENCE_S) for future in old] == [old_value, old_value]
    assert backend.cache.get(_KEY) is new_value
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 1, 2)


def test_pass_that_ends_after_a_clear_stores_nothing(in_thread: InThread) -> None:
    """It leaves the cache empty, and the next lookup pays."""
    backend, cleared, in_flight = BackendInstrumentation(), threading.Event(), threading.Event()

    def compute() -> str:
        in_flight.set()
        assert cleared.wait(_PATIENCE_S)
        return "old"

    old = in_thread(lambda: backend.cached(*_KEY, compute))
    assert in_flight.wait(_PATIENCE_S)
    backend.cache.clear()
    cleared.set()
    assert old.result(_PATIENCE_S) == "old"
    assert backend.cache.get(_KEY) is MISS
    assert backend.cached(*_KEY, lambda: "new") == "new"


@pytest.mark.usefixtures("fast_switching")
def test_clears_among_32_threads(together: Together) -> None:
    """No lookup that begins after a clear gets a value from before it; counts are exact."""
    backend, computed, lock = BackendInstrumentation(), Counter[int](), threading.Lock()
    begun = cleared = 0

    def compute() -> int:
        epoch = begun
        with lock:
            computed[epoch] += 1
        return epoch

    def work(me: int) -> None:
        nonlocal begun, cleared
        for number in range(150):
            if me == 0:
                begun += 1
                backend.cache.clear()
                cleared = begun
            least = cleared
            assert _look_up(backend, str(number % 3), compute) >= least

    together(32, work)
    counts = _counts(backend)
    assert counts.forward_passes == computed.total()
    assert computed.keys() >= set(range(1, 151))
    assert counts.lookups == 32 * 150
    assert len(backend.cache) <= 3


def test_interrupted_waiter(
    in_thread: InThread, until_waiting: UntilWaiting, interrupt: Interrupt, tmp_path: Path
) -> None:
    """It is neither counted nor traced; the pass and its other waiter go on."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")
    in_flight, came_out = threading.Event(), threading.Event()

    def compute() -> str:
        in_flight.set()
        until_waiting(backend, _KEY, 2)
        interrupt(came_out)
        return "value"

    def look_up() -> Any:
        return backend.cached(*_KEY, compute)

    leader = in_thread(look_up)
    assert in_flight.wait(_PATIENCE_S)
    waiter = in_thread(look_up)
    with pytest.raises(KeyboardInterrupt):
        look_up()
    came_out.set()
    assert leader.result(_PATIENCE_S) == waiter.result(_PATIENCE_S) == "value"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.misses) == (0, 1, 1)
    assert backend.stats.total_lookups == backend.trace.records == 2
    assert look_up() == "value"
    assert _counts(backend).hits == 1
