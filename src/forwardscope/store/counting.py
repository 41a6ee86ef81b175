"""What a store counts in this process, and the one warning that it gives."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from contextlib import suppress
from typing import Final

from forwardscope.core.forks import reset_in_children
from forwardscope.core.ledger import OPERATION_BOUNDS_S, Histogram
from forwardscope.store.base import Operation, StoreStats
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["StoreCounts"]

_VERBS: Final = {"get": "read", "put": "write", "lease": "claim"}


class StoreCounts:
    """The counts of one store in this process. Safe under threads and in signal handlers.

    Args:
        name: The store, for the warning.

    Attributes:
        unavailable: Whether the store gave up after a failure.
    """

    def __init__(self, name: str) -> None:
        self.unavailable = False
        self._name = name
        self._numbers: Counter[str] = Counter()
        self._errors: Counter[tuple[Operation, str]] = Counter()
        # they begin at 0, so that a scraper sees the first operations as an increase
        self._durations: dict[Operation, Histogram] = {
            "get": Histogram(OPERATION_BOUNDS_S),
            "put": Histogram(OPERATION_BOUNDS_S),
        }
        self._warned = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.RLock()

    def add(self, what: str, number: int = 1) -> None:
        """Count `evictions`, `corrupt`, `unsupported`, `dropped` or `expired_waits`."""
        with self._lock:
            self._numbers[what] += number

    def observe(self, operation: Operation, seconds: float) -> None:
        """Count the duration of an operation."""
        with self._lock:
            histogram = self._durations.get(operation)
            if histogram is None:
                histogram = self._durations[operation] = Histogram(OPERATION_BOUNDS_S)
            histogram.observe(seconds)

    def failed(self, operation: Operation, error: str, message: str) -> None:
        """Count a failure; warn of the first one."""
        with self._lock:
            self._errors[operation, error] += 1
            warned, self._warned = self._warned, True
        if not warned:
            consequence = "it is not used any more" if self.unavailable else "the run goes on"
            with suppress(RuntimeWarning):  # where warnings are errors, no lookup fails
                warnings.warn(
                    f"the store {self._name} could not {_VERBS[operation]} values "
                    f"({shown(message, MAX_SENTENCE)}); {consequence}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def snapshot(self, entries: int, nbytes: int, max_bytes: int | None) -> StoreStats:
        """Return the counts of now, with what is known of the whole store."""
        with self._lock:
            return StoreStats(
                *(entries, nbytes, max_bytes),
                evictions=self._numbers["evictions"],
                corrupt=self._numbers["corrupt"],
                unsupported=self._numbers["unsupported"],
                dropped=self._numbers["dropped"],
                expired_waits=self._numbers["expired_waits"],
                errors=dict(self._errors),
                unavailable=self.unavailable,
                durations={name: one.copy() for name, one in self._durations.items()},
            )
