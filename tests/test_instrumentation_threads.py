"""`cached` under threads: one pass a question, and nobody is left waiting."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation
from forwardscope.core.cache import Shelf
from forwardscope.core.series import QUEUED, Counts, SeriesKey

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
UntilWaiting = Callable[..., None]
Interrupt = Callable[[threading.Event], None]

_KEY = ("next_token_dist", "base", "prompt", 8)
_OTHER_KEY = ("next_token_dist", "base", "other prompt", 8)
_PATIENCE_S = 60


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot()[SeriesKey(None, "base", "next_token_dist")]


def _never() -> str:
    raise AssertionError("this was to be a hit")


def _crowd(in_thread: InThread, size: int, ask: Callable[[], Any]) -> list[Future[Any]]:
    """Let many threads ask at the same moment, and wait until all have ended."""
    start = threading.Barrier(size)

    def run() -> Any:
        start.wait(_PATIENCE_S)
        return ask()

    futures = [in_thread(run) for _ in range(size)]
    for future in futures:
        future.exception(_PATIENCE_S)
    return futures


def test_stampede_pays_one_pass(
    in_thread: InThread, until_waiting: UntilWaiting, tmp_path: Path
) -> None:
    """Thirty-two threads that miss one key pay one pass; thirty-one are coalesced."""
    path = tmp_path / "trace.jsonl"
    backend, value, calls = BackendInstrumentation(trace_path=path), object(), []

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
    records = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert Counter((record["hit"], record.get("result")) for record in records) == {
        (False, None): 1,
        (True, "coalesced"): 31,
    }


def test_hits_wait_for_no_lock(in_thread: InThread) -> None:
    """Hits go on while another thread holds the lock; when it is free, all of them are counted."""
    backend, hits = BackendInstrumentation(), 2 * QUEUED + 3
    backend.cached(*_KEY, lambda: "value")
    backend.cached(*_KEY, _never)

    def ask() -> int:
        return sum(backend.cached(*_KEY, _never) == "value" for _ in range(hits))

    with backend.cache.lock, backend.ledger.lock:
        assert in_thread(ask).result(_PATIENCE_S) == hits
    assert len(backend.ledger.series(None, "base", "next_token_dist").hits) == hits + 1
    assert (_counts(backend).hits, backend.stats.cache_misses) == (hits + 1, 1)


def test_hits_in_the_queue_are_bounded() -> None:
    """Without a reader, what was put down is added up now and then."""
    backend = BackendInstrumentation()
    for _ in range(3 * QUEUED + 2):
        backend.cached(*_KEY, lambda: "value")
    assert len(backend.ledger.series(None, "base", "next_token_dist").hits) == 1
    assert _counts(backend).hits == 3 * QUEUED + 1


def test_undisturbed_misses_wait_for_no_lock(in_thread: InThread) -> None:
    """They go on while another thread holds the lock, evict what they have to, and are counted."""
    backend, misses = BackendInstrumentation(cache_maxsize=16), 2 * QUEUED + 3
    backend.cached("next_token_dist", "base", "first", 8, lambda: 0)
    backend.spans.next_look_ns = sys.maxsize  # none of them is to look for a tracer

    def ask() -> list[int]:
        return [
            backend.cached("next_token_dist", "base", f"prompt {n}", 8, lambda n=n: n)
            for n in range(misses)
        ]

    with backend.cache.lock, backend.ledger.lock:
        assert in_thread(ask).result(_PATIENCE_S) == list(range(misses))
    counts = _counts(backend)
    assert (counts.forward_passes, counts.hits) == (misses + 1, 0)
    assert backend.ledger.books().durations["next_token_dist"].count == misses + 1
    assert (len(backend.cache), backend.cache.evictions) == (16, misses + 1 - 16)


@pytest.mark.parametrize("batched", [False, True])
def test_hit_of_what_is_evicted_meanwhile(monkeypatch: pytest.MonkeyPatch, batched: bool) -> None:
    """What was there when it was looked up is a hit, though another thread evicts it at once."""
    backend = BackendInstrumentation(cache_maxsize=1)
    backend.cached(*_KEY, lambda: "value")

    class Late(OrderedDict[Any, Any]):
        def move_to_end(self, key: Any, last: bool = True) -> None:
            del self[key]
            super().move_to_end(key, last)

    entries = Late(backend.cache.shelf.entries)
    monkeypatch.setattr(Shelf, "entries", property(lambda shelf: entries))
    op, view, prompt, top_k = _KEY
    if batched:
        assert backend.cached_batch(op, view, [prompt], top_k, lambda _: [_never()]) == ["value"]
    else:
        assert backend.cached(*_KEY, _never) == "value"
    assert (_counts(backend).hits, len(backend.cache)) == (1, 0)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_failed_leader_is_succeeded_by_one_waiter(
    in_thread: InThread, until_waiting: UntilWaiting, error: BaseException
) -> None:
    """Its very exception goes to its caller alone; one waiter takes over, the others wait on."""
    backend, calls = BackendInstrumentation(), []

    def compute() -> str:
        calls.append(threading.get_ident())
        if len(calls) == 1:
            until_waiting(backend, _KEY, 7)
            raise error
        until_waiting(backend, _KEY, 6)
        return "value"

    futures = _crowd(in_thread, 8, lambda: backend.cached(*_KEY, compute))
    assert [future.exception() for future in futures if future.exception()] == [error]
    assert [future.result() for future in futures if not future.exception()] == ["value"] * 7
    assert len(calls) == 2
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 6, 1)
    assert counts.errors == Counter({type(error).__name__: 1})


def test_each_leader_gets_its_own_error(in_thread: InThread, until_waiting: UntilWaiting) -> None:
    """Where every pass fails, each thread takes over once and sees what it raised itself."""
    backend, raised = BackendInstrumentation(), {}

    def compute() -> None:
        error = raised[threading.get_ident()] = ValueError()
        until_waiting(backend, _KEY, 8 - len(raised))
        raise error

    def ask() -> int:
        with pytest.raises(ValueError) as caught:
            backend.cached(*_KEY, compute)
        assert caught.value is raised[threading.get_ident()]
        return threading.get_ident()

    futures = _crowd(in_thread, 8, ask)
    assert sorted(future.result() for future in futures) == sorted(raised)
    assert len(raised) == 8
    assert _counts(backend).lookups == _counts(backend).errors["ValueError"] == 8
    assert len(backend.cache) == 0


@pytest.mark.parametrize("same", [True, False], ids=["one backend", "two backends"])
def test_computes_that_ask_for_each_others_keys(in_thread: InThread, same: bool) -> None:
    """Two passes under way that each need the other's key compute it for themselves."""
    one = BackendInstrumentation()
    two = one if same else BackendInstrumentation()
    outer, inner = threading.Barrier(2), threading.Barrier(2)

    def both_inside() -> str:
        inner.wait(_PATIENCE_S)
        return "inner"

    def ask(
        mine: BackendInstrumentation, key: tuple[str, str, str, int], theirs: BackendInstrumentation
    ) -> str:
        def compute() -> str:
            outer.wait(_PATIENCE_S)
            other = _OTHER_KEY if key is _KEY else _KEY
            return "outer and " + theirs.cached(*other, both_inside)

        return mine.cached(*key, compute)

    futures = [in_thread(lambda: ask(one, _KEY, two)), in_thread(lambda: ask(two, _OTHER_KEY, one))]
    assert [future.result(_PATIENCE_S) for future in futures] == ["outer and inner"] * 2
    backends = {id(backend): backend for backend in (one, two)}.values()
    assert sum(backend.stats.forward_passes for backend in backends) == 4
    assert sum(backend.stats.cache_hits for backend in backends) == 0


def test_waiter_is_served_though_the_compute_asked_its_own_key(
    in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """A pass inside a pass of the same key neither ends the outer one nor loses its waiters."""
    backend = BackendInstrumentation()

    def compute() -> str:
        waiter.append(in_thread(lambda: backend.cached(*_KEY, lambda: "waiter")))
        until_waiting(backend, _KEY)
        backend.cached(*_KEY, lambda: "inner")
        until_waiting(backend, _KEY)
        return "outer"

    waiter: list[Future[str]] = []
    assert backend.cached(*_KEY, compute) == "outer"
    assert waiter[0].result(_PATIENCE_S) == "outer"
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (1, 2)


def test_stored_value_is_not_waited_for(in_thread: InThread) -> None:
    """Where the cache has a value, a pass of the same key that is under way keeps no one."""
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
    under_way = threading.Event()

    def compute() -> None:
        clock.advance_ms(3)
        under_way.set()
        until_waiting(backend, _KEY)
        clock.advance_ms(5)

    leader = in_thread(lambda: backend.cached(*_KEY, compute))
    assert under_way.wait(_PATIENCE_S)
    backend.cached(*_KEY, lambda: None)
    leader.result(_PATIENCE_S)
    records = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert [record["wall_ms"] for record in records] == [8.0, 5.0]
    assert (_counts(backend).scoring_ns, _counts(backend).forward_ns) == (13_000_000, 8_000_000)


def test_lookup_after_clear_does_not_join_the_pass_from_before(
    in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """It computes anew and its value stays; who joined before the clear gets the old value."""
    backend, cleared = BackendInstrumentation(), threading.Event()
    old_value, new_value = object(), object()

    def compute() -> object:
        until_waiting(backend, _KEY)
        under_way.set()
        assert cleared.wait(_PATIENCE_S)
        return old_value

    under_way = threading.Event()
    old = [in_thread(lambda: backend.cached(*_KEY, compute)) for _ in range(2)]
    assert under_way.wait(_PATIENCE_S)
    backend.cache.clear()
    assert backend.cached(*_KEY, lambda: new_value) is new_value
    cleared.set()
    assert [future.result(_PATIENCE_S) for future in old] == [old_value, old_value]
    assert backend.cache.get(_KEY) is new_value
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 1, 2)


def test_lookup_after_clear_during_a_compute_stores_nothing_old(in_thread: InThread) -> None:
    """A pass that ends after the clear leaves the cache empty, and the next lookup pays."""
    backend, cleared, under_way = BackendInstrumentation(), threading.Event(), threading.Event()

    def compute() -> str:
        under_way.set()
        assert cleared.wait(_PATIENCE_S)
        return "old"

    old = in_thread(lambda: backend.cached(*_KEY, compute))
    assert under_way.wait(_PATIENCE_S)
    backend.cache.clear()
    cleared.set()
    assert old.result(_PATIENCE_S) == "old"
    assert backend.cache.get(_KEY) is MISS
    assert backend.cached(*_KEY, lambda: "new") == "new"


def test_interrupted_waiter(
    in_thread: InThread,
    until_waiting: UntilWaiting,
    interrupt: Interrupt,
    tmp_path: Path,
) -> None:
    """It leaves uncounted and untraced; the pass and its other waiter go on."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")
    under_way, came_out = threading.Event(), threading.Event()

    def compute() -> str:
        under_way.set()
        until_waiting(backend, _KEY, 2)
        interrupt(came_out)
        return "value"

    def ask() -> Any:
        return backend.cached(*_KEY, compute)

    leader = in_thread(ask)
    assert under_way.wait(_PATIENCE_S)
    waiter = in_thread(ask)
    with pytest.raises(KeyboardInterrupt):
        ask()
    came_out.set()
    assert leader.result(_PATIENCE_S) == waiter.result(_PATIENCE_S) == "value"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.misses) == (0, 1, 1)
    assert backend.stats.total_lookups == backend.trace.records == 2
    assert ask() == "value"
    assert _counts(backend).hits == 1
