"""Where times come from, so that a test can bring its own."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["Clock", "TimeOfDay"]


class Clock(Protocol):
    """The two readings that are taken; the standard `time` module is one."""

    def perf_counter_ns(self) -> int:
        """Return nanoseconds that never go back, for durations."""
        ...

    def time_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        ...


#: How long the two clocks are taken to go alike, in nanoseconds.
_ALIKE_NS: Final = 20_000_000


class TimeOfDay:
    """Tells what time of day a reading of the clock for durations was.

    It adds what the one clock is ahead of the other, which it looks up fifty times a second:
    a machine that has slept, or whose clock was set, is noticed. Looking each time would take
    a good part of what the line of a hit takes. Safe under threads.

    Args:
        clock: The clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = (0, 0)

    def at(self, now_ns: int) -> int:
        """Return the nanoseconds since the epoch at a reading that was just taken."""
        until, ahead = self._seen  # one read: the two are of one moment
        if now_ns >= until:
            reading = self._clock.perf_counter_ns()
            ahead = self._clock.time_ns() - reading
            self._seen = (reading + _ALIKE_NS, ahead)
        return now_ns + ahead
