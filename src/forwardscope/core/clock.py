"""Where times come from, so that a test can bring its own."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """The two readings that are taken; the standard `time` module is one."""

    def perf_counter_ns(self) -> int:
        """Return nanoseconds that never go back, for durations."""
        ...

    def time_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        ...
