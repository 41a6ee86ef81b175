"""A forked child has locks of its own, and computes what its parent had in flight."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache
from forwardscope.core.forks import reset_in_children
from forwardscope.core.ledger import Ledger
from forwardscope.core.series import SeriesKey
from forwardscope.core.single_flight import Flight, SingleFlight
from forwardscope.recorder import Outcome

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
InChild = Callable[[Callable[[], object]], None]

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.timeout(120),
    pytest.mark.no_cover,  # a child hangs where another thread holds the lock of coverage's data
]

_KEY = SeriesKey(None, "base", "op")
_HIT = Outcome(("op", "base", "prompt", 1), None, "hit", 0, 1)
_MISS = Outcome(("op", "base", "prompt", 1), None, "miss", 0, 1)


@contextlib.contextmanager
def _meanwhile(in_thread: InThread, hold: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """Run the block while another thread is inside of `hold`, where it called its argument."""
    began, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        began.set()
        assert go_on.wait(50)

    holding = in_thread(lambda: hold(pause))
    assert began.wait(30)
    yield
    go_on.set()
    holding.result(timeout=30)


def _lead(cache: ForwardCache, flights: SingleFlight, key: str, compute: Callable[[], Any]) -> None:
    flight = Flight(cache.generation)
    with flight.lock:
        assert flights.claim(key, flight) is None
        flight.keys = (key,)
        flights.land(key, flight, flight.run(compute), None)


def test_child_uses_a_cache_whose_lock_was_held(in_thread: InThread, in_child: InChild) -> None:
    """It looks up, stores and reads; the parent sees nothing of it."""
    cache = ForwardCache(2, sizeof=int)
    cache.put(1, 3)

    def hold(pause: Callable[[], None]) -> None:
        with cache.lock:
            pause()

    def child() -> None:
        assert cache.get(1) == 3
        cache.put(2, 4)
        assert (len(cache), cache.nbytes) == (2, 7)
        cache.clear()
        assert (len(cache), cache.nbytes, cache.get(1)) == (0, 0, MISS)

    with _meanwhile(in_thread, hold):
        in_child(child)
    assert (len(cache), cache.nbytes, cache.get(1)) == (1, 3, 3)


def test_child_of_a_thread_that_holds_the_lock(in_child: InChild) -> None:
    """The child leaves the block that its parent entered, and counts on."""
    cache = ForwardCache()
    with cache.lock:
        in_child(lambda: cache.put("key", 1))

    def child() -> None:
        with cache.lock:
            in_child(lambda: cache.put("key", 1))
        assert cache.get("key") is MISS

    in_child(child)


def test_child_computes_what_its_parent_had_in_flight(
    in_thread: InThread, in_child: InChild
) -> None:
    """No lookup of the child waits for a leader that it does not have."""
    cache = ForwardCache()
    flights = SingleFlight(cache)

    def child() -> None:
        assert flights.waiters("key") == 0
        _lead(cache, flights, "key", lambda: "the child's")
        assert cache.get("key") == "the child's"

    def compute(pause: Callable[[], None]) -> str:
        pause()
        return "the parent's"

    with _meanwhile(in_thread, lambda pause: _lead(cache, flights, "key", lambda: compute(pause))):
        in_child(child)
        assert isinstance(flights.claim("key", Flight(0)), Flight)
    assert cache.get("key") == "the parent's"


def test_child_that_was_forked_within_a_compute(in_child: InChild) -> None:
    """It computes the same key for itself, and the parent's compute goes on."""
    cache = ForwardCache()
    flights = SingleFlight(cache)

    def child() -> None:
        _lead(cache, flights, "key", lambda: "the child's")
        assert cache.get("key") == "the child's"

    def compute() -> str:
        in_child(child)
        return "the parent's"

    _lead(cache, flights, "key", compute)
    assert cache.get("key") == "the parent's"


def test_child_reads_a_ledger_that_was_being_changed(
    in_thread: InThread, in_child: InChild
) -> None:
    """It has what was counted until then, and counts on for itself."""
    ledger = Ledger()
    ledger.add(_KEY, [_MISS], 1)

    def hold(pause: Callable[[], None]) -> None:
        def outcomes() -> Iterator[Outcome]:
            pause()
            yield _HIT

        ledger.add(_KEY, outcomes(), 1)

    def child() -> None:
        assert ledger.totals().total_lookups == 1
        ledger.add(_KEY, [_HIT], 1)
        assert (ledger.totals().cache_hits, ledger.totals().cache_misses) == (1, 1)

    with _meanwhile(in_thread, hold):
        in_child(child)
    assert (ledger.totals().cache_hits, ledger.totals().cache_misses) == (1, 1)


@pytest.mark.usefixtures("fast_switching")
def test_many_forks_beside_busy_threads(in_thread: InThread, in_child: InChild) -> None:
    """At whatever moment a process is forked, its child looks up, computes, counts and reads."""
    cache, ledger, stop = ForwardCache(8, max_bytes=60, sizeof=int), Ledger(), threading.Event()
    flights = SingleFlight(cache)

    def look_up(number: int) -> None:
        flight = Flight(cache.generation)
        with flight.lock:
            found = flights.claim(number % 12, flight)
            if found is None:
                flights.land(number % 12, flight, number % 9, None)
            ledger.add(_KEY, [_HIT if found else _MISS], 1, [1])

    def busy() -> int:
        number = 0
        while not stop.is_set():
            look_up(number)
            number += 1
        return number

    def child() -> None:
        before = ledger.totals()
        for number in range(24):
            look_up(number)
        assert ledger.totals().total_lookups == before.total_lookups + 24
        assert len(cache) <= 8
        kept = [value for value in map(cache.get, range(12)) if value is not MISS]
        assert (len(cache), cache.nbytes) == (len(kept), sum(kept))
        assert cache.nbytes <= 60

    threads = [in_thread(busy) for _ in range(3)]
    try:
        for _ in range(50):
            in_child(child)
    finally:
        stop.set()
    assert sum(thread.result(timeout=30) for thread in threads) == ledger.totals().total_lookups


class _Counting:
    """Counts the calls of `after_fork`."""

    def __init__(self) -> None:
        self.calls = 0

    def after_fork(self) -> None:
        self.calls += 1


def test_objects_are_reset_in_children_only(in_child: InChild) -> None:
    """Each is reset once a fork, in the child, also where it was registered in a child."""
    one, other = _Counting(), _Counting()
    reset_in_children(one)
    reset_in_children(one)

    def grandchild() -> None:
        assert (one.calls, other.calls) == (2, 1)

    def child() -> None:
        assert (one.calls, other.calls) == (1, 0)
        reset_in_children(other)
        in_child(grandchild)

    in_child(child)
    assert (one.calls, other.calls) == (0, 0)


def test_registration_keeps_no_object_alive() -> None:
    """An object that is no longer used is released."""
    one = _Counting()
    reset_in_children(one)
    released = weakref.ref(one)
    del one
    gc.collect()
    assert released() is None
