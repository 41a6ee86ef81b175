"""One thread computes a key; the others wait for its value."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import pytest

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import DisabledCache, Entry
from forwardscope.core.single_flight import Flight, SingleFlight

Together = Callable[[int, Callable[[int], Any]], list[Any]]
AtMoment = Callable[[int, Callable[[], None], Callable[[], Any]], bool]
InThread = Callable[[Callable[[], Any]], "Future[Any]"]

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class _Key:
    """A key whose hash and equality are functions of Python, in which threads can switch."""

    number: int


class _Lookups:
    """Looks keys up as a backend does, and counts the computes."""

    def __init__(self, cache: ForwardCache) -> None:
        self.cache = cache
        self.flights = SingleFlight(cache)
        self.computed: list[Hashable] = []

    def claim(self, key: Hashable) -> Entry | Flight | None:
        """Claim a key with a flight that ends at once."""
        flight = Flight(self.cache.generation)
        with flight.lock:
            return self.flights.claim(key, flight)

    def look_up(self, key: Hashable, compute: Callable[[], Any] = object) -> Any:
        while True:
            flight = Flight(self.cache.generation)
            with flight.lock:
                found = self.flights.claim(key, flight)
                if found is None:
                    return self._lead(key, flight, compute)
            entry = found if isinstance(found, Entry) else found.wait(key)
            if entry is not None:
                return entry.value

    def _lead(self, key: Hashable, flight: Flight, compute: Callable[[], Any]) -> Any:
        flight.keys = (key,)
        self.computed.append(key)
        try:
            return self.flights.land(key, flight, flight.run(compute), None).value
        except BaseException:
            self.flights.release(flight)
            raise

    def until_waiting(self, key: Hashable, n: int) -> None:
        deadline = time.monotonic() + 30
        while (waiting := self.flights.waiters(key)) != n:
            assert time.monotonic() < deadline, f"{waiting} lookups wait for {key}, not {n}"
            time.sleep(0.0005)


@pytest.fixture
def lookups() -> _Lookups:
    """Lookups of a cache in which an integer is its own size."""
    return _Lookups(ForwardCache(sizeof=lambda value: value if isinstance(value, int) else 1))


def test_first_claim_leads_and_later_ones_wait(lookups: _Lookups, in_thread: InThread) -> None:
    """The leader gets None, another thread the flight, and after it landed the entry."""
    cache, flights = lookups.cache, lookups.flights
    leader = Flight(cache.generation)
    with leader.lock:
        assert flights.claim("key", leader) is None
        assert in_thread(lambda: lookups.claim("key")).result(timeout=30) is leader
        assert lookups.claim("another key") is None
        waiter = in_thread(lambda: leader.wait("key"))
        landed = flights.land("key", leader, "value", "origin")
        assert (landed.value, landed.origin) == ("value", "origin")
        assert lookups.claim("key") is landed
        assert not waiter.done()
    assert waiter.result(timeout=30) is landed
    assert cache.find("key") is landed
    assert leader.entries == {"key": landed}


def test_stored_key_has_no_leader() -> None:
    """A key that is stored after its lookup missed is found by the claim, and refreshed."""
    cache = ForwardCache(2)
    lookups = _Lookups(cache)
    for key in ("a", "b"):
        cache.put(key, key.upper())
    found = lookups.claim("a")
    assert isinstance(found, Entry)
    assert found.value == "A"
    cache.put("c", "C")
    assert (cache.get("a"), cache.get("b")) == ("A", MISS)


@pytest.mark.parametrize("value", [None, False, MISS])
def test_any_value_lands(lookups: _Lookups, in_thread: InThread, value: object) -> None:
    """A waiter gets a None, or anything else, as it was computed."""
    flight = Flight(lookups.cache.generation)
    with flight.lock:
        assert lookups.flights.claim("key", flight) is None
        waiter = in_thread(lambda: lookups.look_up("key"))
        lookups.until_waiting("key", 1)
        lookups.flights.land("key", flight, value, None)
    assert waiter.result(timeout=30) is value
    assert lookups.computed == []


def test_release_lets_the_next_claim_lead(lookups: _Lookups, in_thread: InThread) -> None:
    """Where the leader fails, the waiters get None, all its keys are free, and others are not."""
    cache, flights = lookups.cache, lookups.flights
    failed, other = Flight(cache.generation), Flight(cache.generation)
    with other.lock:
        assert flights.claim("other", other) is None
        with failed.lock:
            failed.keys = ["a", "b", "other"]
            assert (flights.claim("a", failed), flights.claim("b", failed)) == (None, None)
            assert flights.claim("other", failed) is other
            waiter = in_thread(lambda: failed.wait("a"))
            flights.release(failed)
            assert (lookups.claim("a"), lookups.claim("b")) == (None, None)
        assert waiter.result(timeout=30) is None
        assert lookups.claim("other") is other


def test_flight_that_was_replaced_leaves_the_later_one() -> None:
    """Neither its release nor its landing takes the key of the other out of flight."""
    lookups = _Lookups(ForwardCache(1))
    early, late = Flight(0), Flight(0)
    early.keys = ["key"]
    with early.lock:
        assert lookups.flights.claim("key", early) is None
    with late.lock:
        assert lookups.flights.claim("key", late) is None
        lookups.flights.release(early)
        assert lookups.claim("key") is late
        lookups.flights.land("key", early, "value", None)
        lookups.cache.put("another key", "evicts it")
        assert lookups.claim("key") is late


def test_registration_with_a_free_lock_is_replaced(lookups: _Lookups) -> None:
    """A leader that was interrupted before it could release its key blocks nobody."""
    interrupted = Flight(lookups.cache.generation)
    with interrupted.lock:
        assert lookups.flights.claim("key", interrupted) is None
    assert lookups.look_up("key", lambda: "value") == "value"
    assert lookups.computed == ["key"]


def test_flight_from_before_a_clear(lookups: _Lookups, in_thread: InThread) -> None:
    """It stores nothing, a later lookup does not join it, and its earlier waiters get its value."""
    cache, flights = lookups.cache, lookups.flights
    before = Flight(cache.generation)
    with before.lock:
        assert flights.claim("key", before) is None
        waiter = in_thread(lambda: lookups.look_up("key"))
        lookups.until_waiting("key", 1)
        cache.clear()
        after = Flight(cache.generation)
        with after.lock:
            assert flights.claim("key", after) is None
            flights.land("key", before, 111, None)
            assert (cache.get("key"), len(cache), cache.nbytes) == (MISS, 0, 0)
            assert lookups.claim("key") is after
            flights.land("key", after, 222, None)
    assert waiter.result(timeout=30) == 111
    assert cache.get("key") == 222
    assert lookups.computed == []


def test_landing_after_a_clear_takes_the_key_out_of_flight(lookups: _Lookups) -> None:
    """The next lookup computes, although the flight has not ended yet."""
    flight = Flight(lookups.cache.generation)
    with flight.lock:
        assert lookups.flights.claim("key", flight) is None
        lookups.cache.clear()
        lookups.flights.land("key", flight, 1, None)
        assert lookups.claim("key") is None


def test_waiters_are_counted(lookups: _Lookups, in_thread: InThread) -> None:
    """Each lookup that waits for a key counts; without a flight there is none."""
    assert lookups.flights.waiters("key") == 0
    flight = Flight(lookups.cache.generation)
    with flight.lock:
        lookups.flights.claim("key", flight)
        assert lookups.flights.waiters("key") == 0
        waiting = [in_thread(lambda: lookups.look_up("key")) for _ in range(3)]
        lookups.until_waiting("key", 3)
        assert lookups.flights.waiters("another key") == 0
        lookups.flights.land("key", flight, "value", None)
        assert lookups.flights.waiters("key") == 0
    assert [one.result(timeout=30) for one in waiting] == ["value"] * 3


def test_disabled_cache_has_single_flight(in_thread: InThread) -> None:
    """Lookups at the same time share a compute, and later ones pay again."""
    lookups = _Lookups(DisabledCache())
    flight = Flight(lookups.cache.generation)
    with flight.lock:
        lookups.flights.claim("key", flight)
        waiter = in_thread(lambda: lookups.look_up("key"))
        lookups.until_waiting("key", 1)
        lookups.flights.land("key", flight, "value", None)
    assert waiter.result(timeout=30) == "value"
    assert lookups.claim("key") is None


def test_thread_inside_a_compute_does_not_wait(in_thread: InThread) -> None:
    """It computes what another thread has in flight, and leaves the key to that thread."""
    lookups = _Lookups(ForwardCache(1))
    flight = Flight(0)
    with flight.lock:
        assert lookups.flights.claim("key", flight) is None
        inner = in_thread(lambda: lookups.look_up("outer", lambda: lookups.look_up("key")))
        inner.result(timeout=30)
        assert lookups.computed == ["outer", "key"]
        assert lookups.cache.get("outer") is inner.result()
        assert lookups.cache.get("key") is MISS
        assert lookups.claim("key") is flight


def test_key_within_its_own_compute(lookups: _Lookups) -> None:
    """A compute that looks its own key up computes it; the outer value is stored last."""
    value = lookups.look_up("key", lambda: (lookups.look_up("key", lambda: 1), 2))
    assert value == (1, 2)
    assert lookups.cache.get("key") == (1, 2)
    assert lookups.computed == ["key", "key"]


def test_mutually_nested_computes_end(lookups: _Lookups, together: Together) -> None:
    """Two threads that look each other's key up within their computes both compute it."""
    both = threading.Barrier(2)

    def compute(me: int) -> Any:
        both.wait(30)
        return (me, lookups.look_up(1 - me, lambda: (1 - me, both.wait(30) >= 0)))

    values = together(2, lambda me: lookups.look_up(me, lambda: compute(me)))
    assert values == [(0, (1, True)), (1, (0, True))]
    assert sorted(lookups.computed, key=str) == [0, 0, 1, 1]


@pytest.mark.usefixtures("fast_switching")
def test_stampede_has_one_leader(together: Together) -> None:
    """Of 32 threads that miss a key at once, one computes it, and all get the same value."""
    keys = [_Key(number) for number in range(100)]
    for _ in range(5):
        lookups = _Lookups(ForwardCache())

        def work(_: int, lookups: _Lookups = lookups) -> list[Any]:
            return [lookups.look_up(key) for key in keys]

        values = together(32, work)
        assert Counter(lookups.computed) == dict.fromkeys(keys, 1)
        assert all(mine == values[0] for mine in values)
        assert [lookups.cache.get(key) for key in keys] == values[0]
        assert all(lookups.flights.waiters(key) == 0 for key in keys)


@pytest.mark.parametrize("outer_claims", [True, False])
def test_landing_and_claim_at_any_moment_of_each_other(
    at_moment: AtMoment, in_thread: InThread, outer_claims: bool
) -> None:
    """A key is in flight until it is stored: while one thread lands it, no other can lead."""
    moment, came = 0, True
    while came:
        lookups, leader, both = _Lookups(ForwardCache()), Flight(0), []

        def land(lookups: _Lookups = lookups, leader: Flight = leader) -> None:
            lookups.flights.land("key", leader, "value", None)

        def claim(lookups: _Lookups = lookups) -> None:
            assert lookups.claim("key") is not None

        outer, inner = (claim, land) if outer_claims else (land, claim)

        def meanwhile(inner: Callable[[], None] = inner, both: list[Any] = both) -> None:
            both.append(in_thread(inner))
            wait(both, timeout=0.02)  # longer where this thread has the lock

        with leader.lock:
            assert lookups.flights.claim("key", leader) is None
            came = at_moment(moment, meanwhile, outer)
            for future in both:
                future.result(timeout=30)
        moment += 1
    assert moment > 5


@pytest.mark.usefixtures("fast_switching")
def test_one_waiter_takes_over(lookups: _Lookups, together: Together) -> None:
    """Where the leader fails, its error is its own, and one of the waiters computes."""

    def compute() -> str:
        if lookups.computed == ["key"]:
            lookups.until_waiting("key", 7)
            raise ZeroDivisionError
        lookups.until_waiting("key", 6)
        return "value"

    def work(_: int) -> object:
        try:
            return lookups.look_up("key", compute)
        except ZeroDivisionError:
            return "failed"

    assert sorted(together(8, work)) == ["failed"] + ["value"] * 7
    assert lookups.computed == ["key", "key"]


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fails", [False, True])
def test_interrupt_at_any_moment(at_moment: AtMoment, in_thread: InThread, fails: bool) -> None:
    """No waiter is stuck, the bytes are right, and the next lookup is answered."""
    moment, came = 0, True
    while came:
        lookups, waiters = _Lookups(ForwardCache(2, sizeof=int)), []
        for key in (1, 2):
            lookups.cache.put(key, 3)

        def compute(lookups: _Lookups = lookups, waiters: list[Any] = waiters) -> int:
            waiters.append(in_thread(lambda: lookups.look_up(0, lambda: 7)))
            in_thread(lambda: lookups.until_waiting(0, 1)).result(timeout=30)
            if fails:
                raise KeyboardInterrupt
            return 5

        came = at_moment(moment, _interrupt, lambda: lookups.look_up(0, compute))  # noqa: B023
        assert all(waiter.result(timeout=30) in (5, 7) for waiter in waiters)
        assert in_thread(lambda: lookups.look_up(0, lambda: 9)).result(timeout=30) in (5, 7, 9)  # noqa: B023
        kept = [value for value in map(lookups.cache.get, range(3)) if value is not MISS]
        assert (len(lookups.cache), lookups.cache.nbytes) == (len(kept), sum(kept))
        assert lookups.flights.waiters(0) == 0
        moment += 1
    assert moment > 5


def test_evicted_values_are_released_without_the_lock(in_thread: InThread) -> None:
    """Another thread uses the cache while a value that was evicted by a landing is released."""
    lookups, seen = _Lookups(ForwardCache(1)), []

    class Final:
        def __del__(self) -> None:
            seen.append(in_thread(lambda: lookups.cache.get("key")).result(timeout=30))

    lookups.cache.put("final", Final())
    lookups.look_up("key", lambda: "value")
    assert seen == ["value"]
