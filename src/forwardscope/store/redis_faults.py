"""The time that a slow server costs a run, and when the server is given up.

An answer is slow where it takes longer than 40 ms, and 10 ms more for each value that it
brings: each value spares a forward pass. A run spends at most two seconds on slow answers and
on failures, as no wait is longer than what is left of them. Each answer that is not slow gives
back a tenth of what it was allowed, so that rare stalls of a busy machine do not add up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Final, TypeVar

from forwardscope.core.forks import reset_in_children
from forwardscope.store.base import Operation
from forwardscope.store.bounded_calls import BoundedCalls
from forwardscope.store.counting import StoreCounts

__all__ = ["TIMEOUT_S", "Breaker"]

T = TypeVar("T")

#: Bound of a connection attempt, and of a wait for a part of an answer.
TIMEOUT_S: Final = 0.75
#: What slow answers and failures may cost a run.
BUDGET_S: Final = 2.0
_ALLOWED_S: Final = 0.04
_ALLOWED_PER_VALUE_S: Final = 0.01
_GIVEN_BACK: Final = 0.1
#: A failure costs so much at least, so that no server fails at each lookup.
_FAILURE_S: Final = 0.1


class Breaker:
    """Runs the operations of a store, and gives the server up after faults. Safe under threads.

    Args:
        counts: Where durations and failures are counted.
        reason_of: Returns class and text of an error, without secrets.
        clock: Seconds; a test may bring its own.
    """

    def __init__(
        self,
        counts: StoreCounts,
        reason_of: Callable[[BaseException], tuple[str, str]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._counts = counts
        self._reason_of = reason_of
        self._clock = clock
        self._calls = BoundedCalls()
        self._left_s = BUDGET_S
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the server is given up."""
        return self._counts.unavailable

    def run(
        self,
        operation: Operation,
        call: Callable[[], T],
        *,
        is_awaited: Callable[[], bool] = lambda: True,
        is_decisive: bool = False,
    ) -> T | None:
        """Return the result of an operation; None where it failed or the server is given up.

        Args:
            operation: What is counted.
            call: The operation.
            is_awaited: Returns at its end whether the run has waited for it.
            is_decisive: Whether a failure gives the server up.
        """
        if self.is_open:
            return None
        start = self._clock()
        try:
            result = self._calls.run(call, self._left_s)
        except Exception as error:  # noqa: BLE001 - whatever a hostile server makes of an answer
            seconds = inf if is_decisive else max(_FAILURE_S, self._clock() - start)
            self._spend(seconds)
            self._counts.failed(operation, *self._reason_of(error))
            return None
        seconds = self._clock() - start
        self._counts.observe(operation, seconds)
        if is_awaited() and self._spend(_cost_of(seconds, _values_in(result))):
            self._counts.failed(operation, *self._reason_of(TimeoutError()))
        return result

    def _spend(self, seconds: float) -> bool:
        """Spend some of the budget, or give back; return whether the server is given up now."""
        with self._lock:
            self._left_s = min(BUDGET_S, self._left_s - seconds)
            if self._left_s > 0.0 or self._counts.unavailable:
                return False
            self._counts.unavailable = True
            return True


def _values_in(answer: object) -> int:
    """Return how many values the answer to a get or a claim brings."""
    return sum(type(one) is bytes for one in answer) if isinstance(answer, list) else 0


def _cost_of(seconds: float, values: int) -> float:
    """Return what an answer costs; less than 0 where it gives something back."""
    allowed = _ALLOWED_S + _ALLOWED_PER_VALUE_S * values
    return seconds if seconds > allowed else -_GIVEN_BACK * allowed
