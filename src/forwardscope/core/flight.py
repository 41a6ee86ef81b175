"""Single flight: a forward pass that is under way is paid once and shared."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Any, Final

from forwardscope.core.cache import MISS
from forwardscope.core.clock import Clock

__all__ = ["Flight", "Flights", "ForwardPass"]


class Flight:
    """One forward pass under way, and whoever waits for it.

    Attributes:
        generation: The cache's generation when the pass was claimed. A lookup
            made after `clear()` does not join a flight from before it.
        leads: Whether it can be joined, or is about to be; it has to land then.
        value: What the pass gave; `MISS` while it is under way or when it failed.
    """

    __slots__ = ("_landed", "generation", "leads", "value")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.leads = True
        self.value: Any = MISS
        self._landed: threading.Event | None = None

    def wake(self) -> None:
        """Wake whoever waits, once it has landed."""
        if self._landed is not None:
            self._landed.set()

    def wait(self) -> Any:
        """Wait until the pass has ended; return its value, or `MISS` where it failed."""
        if self._landed is not None:
            self._landed.wait()
        return self.value


class Flights:
    """The forward passes under way, at most one a key that can be joined.

    An event is made only when someone joins, so an undisturbed miss pays for
    none. Its owner's lock is held around each call.

    Attributes:
        under_way: By key. Without the lock, `setdefault` alone may be used on it: it is one
            step, and says whose flight leads. Who then leads looks into the cache again.
    """

    def __init__(self) -> None:
        self.under_way: Final[dict[Hashable, Flight]] = {}

    def join(self, key: Hashable, flight: Flight) -> Flight | None:
        """Join the flight of a key, or register the caller's own.

        Returns:
            The flight to wait for, or None where the caller now leads with
            `flight` and owes a `land` and a `Flight.wake`.
        """
        other = self.under_way.setdefault(key, flight)
        if other is not flight and other.generation < flight.generation:
            self.under_way[key] = other = flight
        if other is flight:
            return None
        flight.leads = False
        if other._landed is None:
            other._landed = threading.Event()
        return other

    def land(self, key: Hashable, flight: Flight) -> None:
        """End a flight, so that nobody joins it any more; does nothing for one that never led."""
        if self.under_way.get(key) is flight:
            del self.under_way[key]
        flight.leads = False


class ForwardPass:
    """One call of a compute: marks its thread as inside, and keeps what came of it.

    A thread that computes never waits for another's pass. The mark is one per
    thread, over all backends, since a wait on any of them could close a circle.

    Args:
        clock: What times it.
        size: Prompts that are computed.

    Attributes:
        size: Prompts that are computed.
        tokens: Tokens of each prompt, where the compute told them.
        reused: Of these, how many were taken over from an earlier pass, likewise.
        start_ns: The clock when it began.
        end_ns: The clock when it ended.
        error: Class of the exception where it failed.
        trace_id: The trace that has its span, 32 hex digits; None without one.
    """

    tokens: Sequence[int] = ()
    reused: Sequence[int] = ()
    start_ns = 0
    end_ns = 0
    error: str | None = None
    trace_id: str | None = None

    def __init__(self, clock: Clock = time, size: int = 1) -> None:
        self.size = size
        self._now = clock.perf_counter_ns

    @property
    def spent_ns(self) -> int:
        """Wall time of the call in nanoseconds."""
        return self.end_ns - self.start_ns

    def token_sums(self) -> tuple[int, int]:
        """Return how many tokens of its prompts were computed, and how many taken over.

        Both are 0 where nothing was told, or no count: it costs no lookup.
        """
        if not self.tokens:
            return 0, 0
        try:
            reused = sum(map(int, self.reused[: self.size]))
            tokens = sum(map(int, self.tokens[: self.size]))
        except (TypeError, ValueError):
            return 0, 0
        return max(0, tokens - reused), max(0, reused)

    @staticmethod
    def current() -> ForwardPass | None:
        """Return the innermost pass of this thread, or None outside any."""
        return _inside.innermost

    def __enter__(self) -> ForwardPass:
        self._outer = _inside.innermost
        _inside.innermost = self
        self.start_ns = self._now()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end_ns = self._now()
        if exc_type is not None:
            self.error = exc_type.__name__
        _inside.innermost = self._outer


class _Inside(threading.local):
    innermost: ForwardPass | None = None


_inside = _Inside()
