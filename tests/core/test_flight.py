"""Flights: one leader a key, and whoever joins is woken."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from forwardscope import MISS
from forwardscope.core.flight import Flight, Flights, ForwardPass

InThread = Callable[[Callable[[], Any]], "Future[Any]"]


def test_first_leads_and_second_joins() -> None:
    """The one who comes first owns the pass, and the next is given that very flight."""
    flights, first = Flights(), Flight(0)
    assert flights.join("key", first) is None
    assert flights.join("key", Flight(0)) is first
    assert flights.join("another key", Flight(0)) is None


def test_landed_flight_is_not_joined() -> None:
    """After a pass has ended the next one leads."""
    flights, first = Flights(), Flight(0)
    flights.join("key", first)
    flights.land("key", first)
    assert flights.join("key", Flight(0)) is None


def test_joined_flight_gives_its_value(in_thread: InThread) -> None:
    """A waiter gets the value when the flight lands, and `MISS` where there is none."""
    flights = Flights()
    for value in ("value", None, MISS):
        led = Flight(0)
        flights.join("key", led)
        other = flights.join("key", Flight(0))
        assert other is not None
        waiter = in_thread(other.wait)
        led.value = value
        flights.land("key", led)
        assert not waiter.done()
        led.wake()
        assert waiter.result(timeout=60) is value


def test_flight_from_before_a_clear_is_not_joined() -> None:
    """A newer generation leads a flight of its own, and the old one's end leaves it alone."""
    flights, old, new = Flights(), Flight(0), Flight(1)
    flights.join("key", old)
    assert flights.join("key", new) is None
    flights.land("key", old)
    assert flights.join("key", Flight(1)) is new


def test_older_lookup_joins_a_newer_flight() -> None:
    """One that read its generation just before a clear takes the newer pass, not its place."""
    flights, new = Flights(), Flight(1)
    flights.join("key", new)
    assert flights.join("key", Flight(0)) is new
    assert flights.join("key", Flight(1)) is new


def test_landing_what_never_led_changes_nothing() -> None:
    """Who joined owes no landing, and one made in error ends nobody's flight."""
    flights, led, joined = Flights(), Flight(0), Flight(0)
    flights.join("key", led)
    flights.join("key", joined)
    flights.land("key", joined)
    flights.land("unknown", joined)
    assert flights.join("key", Flight(0)) is led


def test_innermost_pass_is_the_current_one() -> None:
    """Passes nest, and the mark is gone after the outermost, on errors too."""
    assert ForwardPass.current() is None
    try:
        with ForwardPass() as outer:
            assert ForwardPass.current() is outer
            with ForwardPass() as inner:
                assert ForwardPass.current() is inner
            assert ForwardPass.current() is outer
            raise ValueError
    except ValueError:
        pass
    assert ForwardPass.current() is None


def test_mark_of_a_pass_is_its_threads_own(in_thread: InThread) -> None:
    """Another thread is not computing because this one is."""
    with ForwardPass():
        assert in_thread(ForwardPass.current).result(timeout=60) is None
