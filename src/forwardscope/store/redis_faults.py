"""The time that a server costs a run, and when the server is given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

from forwardscope.core.forks import reset_in_children
from forwardscope.store.base import Operation
from forwardscope.store.counting import StoreCounts

__all__ = ["TIMEOUT_S", "Breaker"]

T = TypeVar("T")

#: Bound of a connection attempt, and of a wait for an answer.
TIMEOUT_S: Final = 0.75
#: A server that does not answer is given up after so much lost time; one more operation and the
#: close then end within three seconds. One that answers slowly costs more, as what each answer
#: is expected to take is not lost.
_PATIENCE_S: Final = 1.2
#: An operation that takes no longer is not slow. With less, a busy machine, whose threads wait
#: for the processor, gives up a server that answers at once.
_EXPECTED_S: Final = 0.1
#: A failure counts as so much lost time at least, so that no server fails at each lookup.
_FAILURE_S: Final = 0.1


class Breaker:
    """Runs the operations of a store, and gives the server up after faults. Safe under threads.

    Args:
        counts: Where durations and failures are counted.
        reason_of: Returns class and text of an error, without secrets.
    """

    def __init__(
        self, counts: StoreCounts, reason_of: Callable[[BaseException], tuple[str, str]]
    ) -> None:
        self._counts = counts
        self._reason_of = reason_of
        self._lost_s = 0.0
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the server is given up."""
        return self._counts.unavailable

    def run(self, operation: Operation, call: Callable[[], T]) -> T | None:
        """Return the result of an operation; None where it failed or the server is given up."""
        if self.is_open:
            return None
        expected_s = inf if operation == "put" else _EXPECTED_S
        try:
            result, seconds = self.timed(call, expected_s=expected_s)
        except Exception as error:  # noqa: BLE001 - whatever a hostile server makes of an answer
            self._counts.failed(operation, *self._reason_of(error))
            return None
        self._counts.observe(operation, seconds)
        if self._counts.unavailable:  # by this operation, or another meanwhile
            self._counts.failed(operation, "Slow", "the server answers too slowly")
        return result

    def timed(self, call: Callable[[], T], *, expected_s: float = _EXPECTED_S) -> tuple[T, float]:
        """Return the result of a call and its duration; it may raise.

        Its time beyond what is expected is lost; a write costs the run none, as a thread of
        its own waits for it.
        """
        start = time.perf_counter()
        try:
            result = call()
        except Exception:
            self._lose(max(_FAILURE_S, time.perf_counter() - start))
            raise
        seconds = time.perf_counter() - start
        self._lose(seconds - expected_s)
        return result, seconds

    def _lose(self, seconds: float) -> None:
        with self._lock:
            self._lost_s += max(0.0, seconds)
            if self._lost_s > _PATIENCE_S:
                self._counts.unavailable = True
