"""Flights: who leads, who waits, and the token counts of a call.

test_instrumentation_threads.py tests lookups that share a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import wait
from typing import Any

import numpy as np
import pytest

from forwardscope import MISS, ForwardCache
from forwardscope.core.cache import Entry
from forwardscope.core.single_flight import Flight, SingleFlight

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def cache() -> ForwardCache:
    """Return a cache of two entries."""
    return ForwardCache(2)


@pytest.fixture
def flights(cache: ForwardCache) -> SingleFlight:
    """Return the flights of the cache."""
    return SingleFlight(cache)


@pytest.fixture
def claim(cache: ForwardCache, flights: SingleFlight, in_thread: Any) -> Any:
    """Claim a key in another thread, with a flight that ends at once."""

    def claim(key: str) -> Entry | Flight | None:
        flight = Flight(cache.generation)
        with flight.lock:
            return flights.claim(key, flight)

    return lambda key: in_thread(lambda: claim(key)).result(timeout=30)


def test_first_claim_leads_and_later_ones_wait(
    cache: ForwardCache, flights: SingleFlight, claim: Any, in_thread: Any
) -> None:
    """A leader gets None, another thread gets the flight, and both get the stored entry."""
    leader = Flight(0)
    with leader.lock:
        assert flights.claim("key", leader) is None
        assert flights.waiters("key") == 0
        assert claim("key") is leader
        assert claim("another key") is None
        assert (flights.waiters("key"), flights.waiters("another key")) == (1, 0)
        waiter = in_thread(lambda: leader.wait("key"))
        landed = flights.land("key", leader, "value", "origin", None)
        assert (landed.value, landed.origin) == ("value", "origin")
        assert claim("key") is landed
        assert (flights.waiters("key"), waiter.done()) == (0, False)
    assert waiter.result(timeout=30) is landed
    assert cache.find("key") is landed
    assert leader.entries == {"key": landed}


def test_claim_of_a_stored_key_refreshes_it(cache: ForwardCache, claim: Any) -> None:
    """A key that was stored since its lookup missed is found by the claim."""
    for key in ("a", "b"):
        cache.put(key, key.upper())
    found = claim("a")
    assert isinstance(found, Entry)
    assert found.value == "A"
    cache.put("c", "C")
    assert (cache.get("a"), cache.get("b")) == ("A", MISS)


def test_release_lets_the_next_claim_lead(
    flights: SingleFlight, claim: Any, in_thread: Any
) -> None:
    """Where a leader fails, its waiters get None and its own keys are free."""
    other = Flight(0)

    def fail() -> Any:
        failed = Flight(0)
        with failed.lock:
            assert (flights.claim("a", failed), flights.claim("b", failed)) == (None, None)
            assert flights.claim("other", failed) is other
            waiter = in_thread(lambda: failed.wait("a"))
            flights.release(failed, ("a", "b", "other"))
            assert (claim("a"), claim("b"), claim("other")) == (None, None, other)
        return waiter.result(timeout=30)

    with other.lock:
        assert flights.claim("other", other) is None
        assert in_thread(fail).result(timeout=60) is None


def test_registration_with_a_free_lock_is_replaced(
    cache: ForwardCache, flights: SingleFlight, claim: Any
) -> None:
    """A flight that an interrupt left registered blocks no key, and later frees no other flight."""
    early, late = Flight(0), Flight(0)
    with early.lock:
        assert flights.claim("key", early) is None
    with late.lock:
        assert flights.claim("key", late) is None
        flights.release(early, ("key",))
        assert claim("key") is late
        flights.land("key", early, "value", None, None)
        for other in ("a", "b"):
            cache.put(other, "evicts it")
        assert claim("key") is late


def test_flight_from_before_a_clear(cache: ForwardCache, flights: SingleFlight, claim: Any) -> None:
    """It stores nothing, and a later lookup computes even before the flight has ended."""
    before = Flight(0)
    with before.lock:
        assert flights.claim("key", before) is None
        cache.clear()
        after = Flight(1)
        with after.lock:
            assert flights.claim("key", after) is None
            flights.land("key", before, 111, None, None)
            assert (cache.get("key"), len(cache), cache.nbytes) == (MISS, 0, 0)
            assert claim("key") is after
            cache.clear()
            flights.land("key", after, 222, None, None)
            assert claim("key") is None


@pytest.mark.parametrize("outer_claims", [True, False])
def test_landing_and_claim_at_any_moment_of_each_other(
    at_moment: Any, in_thread: Any, outer_claims: bool
) -> None:
    """A key is in flight until it is stored: while one thread stores it, no other can lead."""
    moment, came = 0, True
    while came:
        flights, inner = SingleFlight(ForwardCache()), []
        leader = in_thread(lambda: Flight(0)).result(timeout=30) if outer_claims else Flight(0)

        def land(flights: SingleFlight = flights, leader: Flight = leader) -> None:
            flights.land("key", leader, "value", None, None)

        def claim(flights: SingleFlight = flights) -> None:
            flight = Flight(0)
            with flight.lock:
                assert flights.claim("key", flight) is not None

        first, second = (claim, land) if outer_claims else (land, claim)

        def meanwhile(second: Any = second, inner: list[Any] = inner) -> None:
            inner.append(in_thread(second))
            wait(inner, timeout=0.02)  # longer where this thread has the lock

        with leader.lock:
            assert flights.claim("key", leader) is None
            came = at_moment(moment, meanwhile, first)
            for future in inner:
                future.result(timeout=30)
        moment += 1
    assert moment > 5


def test_evicted_values_are_released_without_the_lock(in_thread: Any) -> None:
    """Another thread uses the cache while a value that `land` evicted is released."""
    cache, seen = ForwardCache(1), []

    class Finalised:
        def __del__(self) -> None:
            seen.append(in_thread(lambda: cache.get("key")).result(timeout=30))

    cache.put("finalised", Finalised())
    SingleFlight(cache).land("key", Flight(0), "value", None, None)
    assert seen == ["value"]


def _counts(tokens: Any, reused: Any = None) -> list[tuple[int | None, int | None]]:
    """Return the token counts of a flight of two prompts."""
    flight = Flight(0)
    flight.keys, flight.tokens, flight.reused = range(2), tokens, reused
    return flight.token_counts()


def _failing() -> Iterable[int]:
    yield 1
    raise OSError("a device is gone")


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda each: map(np.int64, each)])
def test_token_counts_of_any_type_are_read(kind: Any) -> None:
    """Sequences, iterators, arrays and their scalars become Python integers."""
    counts = _counts(kind([5, 7]), kind([0, 3]))
    assert counts == [(5, 0), (7, 3)]
    assert all(type(count) is int for pair in counts for count in pair)
    assert _counts(kind([5, 7])) == [(5, None), (7, None)]
    assert _counts(None, kind([1, 2])) == [(None, None)] * 2


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (list, [None, None]),
        (lambda: [5], [5, None]),
        (lambda: [5, 7, 9], [5, 7]),
        (lambda: [-1, 7], [0, 7]),
        (lambda: [5.9, True], [5, 1]),
        (lambda: [5, None], [None, None]),
        (lambda: [float("nan"), 7], [None, None]),
        (object, [None, None]),
        (lambda: 3, [None, None]),
        (lambda: np.array(3), [None, None]),
        (lambda: np.zeros((2, 2)), [None, None]),
        (_failing, [None, None]),
        (lambda: iter(int, 1), [0, 0]),
    ],
)
def test_token_counts_that_do_not_fit(tokens: Any, expected: list[int | None]) -> None:
    """Missing or unreadable ones are None, additional ones are not read, negative ones are 0."""
    assert [count for count, _ in _counts(tokens())] == expected
    assert [count for _, count in _counts([1, 1], tokens())] == expected
