"""Outcomes of a forward call."""

from __future__ import annotations

from forwardscope.core.single_flight import Flight
from forwardscope.recorder import misses_of


def test_key_without_an_entry_and_without_an_error() -> None:
    """It counts as interrupted: a second interrupt can come before the error is noted."""
    flight = Flight(generation=0)
    flight.keys, flight.origins = [("op", "base", "prompt", 1)], [None]
    flight.start_ns, flight.end_ns = 1_000, 3_000
    (miss,) = misses_of(flight)
    assert (miss.result, miss.wall_ns, miss.error) == ("miss", 2_000, "KeyboardInterrupt")
