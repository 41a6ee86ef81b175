"""The time of day of a reading follows the system's, without looking each time."""

from __future__ import annotations

from forwardscope.core.clock import TimeOfDay


class _TwoClocks:
    """One that only goes on, and one that can be set; it counts how often that is read."""

    def __init__(self) -> None:
        self.ns, self.ahead_ns, self.reads = 1_000, 5_000_000_000, 0

    def perf_counter_ns(self) -> int:
        return self.ns

    def time_ns(self) -> int:
        self.reads += 1
        return self.ns + self.ahead_ns


def test_time_of_day_is_looked_up_now_and_then() -> None:
    """Readings that are close to each other share one look."""
    clock = _TwoClocks()
    day = TimeOfDay(clock)
    for ns in range(1_000, 11_000_000, 500_000):
        clock.ns = ns
        assert day.at(ns) == 5_000_000_000 + ns
    assert clock.reads == 1


def test_clock_that_was_set_is_noticed() -> None:
    """Within a fraction of a second the time is the new one, and earlier readings are late."""
    clock = _TwoClocks()
    day = TimeOfDay(clock)
    assert day.at(1_000) == 5_000_001_000
    clock.ns, clock.ahead_ns = 50_000_000, 9_000_000_000
    assert day.at(49_999_999) == 9_049_999_999
    assert clock.reads == 2
