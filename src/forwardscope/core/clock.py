"""The clock interface; tests pass a clock of their own."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Functions that read the time. The standard `time` module implements them."""

    def perf_counter_ns(self) -> int:
        """Return nanoseconds of a clock that never goes back, for durations."""
        ...

    def time_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        ...
