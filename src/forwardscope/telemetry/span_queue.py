"""Bounded queue of finished lookups, and the worker that makes their spans."""

from __future__ import annotations

import atexit
import math
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from opentelemetry.context import Context

from forwardscope.core.forks import reset_in_children
from forwardscope.core.keys import Question
from forwardscope.telemetry.span_factory import CallIds
from forwardscope.text import plural

__all__ = ["CAPACITY", "FinishedLookup", "SpanQueue"]

#: Maximum number of lookups in the queue, if the last is no miss; of misses twice as many.
CAPACITY: Final = 16_384

_ROUND_S = 0.1
_POLL_S = 0.002
_IDLE_ROUNDS = 20
_AT_EXIT_S = 5.0


class FinishedLookup(NamedTuple):
    """A lookup without a span so far.

    Attributes:
        question: The lookup key, with the hash of the prompt.
        result: `hit`, `coalesced` or, in a batch, `miss`.
        start_ns: Start of the lookup, in nanoseconds of the clock.
        end_ns: End of the lookup.
        parent: Context with the parent span.
        call: The forward call that computed the value, or failed to; None if it is unknown.
        error: Class of the exception of a failed lookup.
        tier: `disk` or `remote` for a hit that a store answered, else None.
        verified: Whether the stored value agreed with one computed again; None where it was not.
        bypassed: Whether no cache was asked.
    """

    question: Question
    result: str
    start_ns: int
    end_ns: int
    parent: Context
    call: CallIds | None = None
    error: str | None = None
    tier: str | None = None
    verified: bool | None = None
    bypassed: bool = False


class SpanQueue:
    """Queues finished lookups without blocking, and makes their spans later.

    A worker thread makes the spans in order, ten times a second. It ends after two
    idle seconds, and the next lookup starts another one. Safe under threads: one
    lock guards the queue and the counts. It is reentrant, so a signal handler may
    read the counts. The thread that makes spans holds a second lock, which no
    lookup takes.

    At the end of the program the queue is emptied, unless it was closed before.

    Args:
        make: Makes one span and counts it. If it raises, the lookup counts as
            dropped.
        budget: Number of spans between two calls of `renew_budget`, those of misses
            not counted; None for no limit.
        capacity: Number of lookups in the queue from which on hits are dropped. Misses
            are dropped from twice as many on, so that hits do not displace them.

    Raises:
        ValueError: The budget is negative.

    Attributes:
        elided: Lookups without a span because they were over the budget.
        dropped: Lookups without a span because the queue was full or closed.
    """

    def __init__(
        self,
        make: Callable[[FinishedLookup], None],
        budget: int | None,
        capacity: int = CAPACITY,
    ) -> None:
        if budget is not None and budget < 0:
            raise ValueError(f"span_budget must be 0 or more, or None for no limit; got {budget}")
        self.elided = 0
        self.dropped = 0
        self._make = make
        self._budget: float = math.inf if budget is None else budget
        self._budget_left = self._budget
        self._capacity = capacity
        self._closed = False
        self._exit_hook: Callable[[], None] | None = None
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin with an empty queue and no worker; the parent makes the queued spans."""
        self._lock = threading.RLock()
        self._making = threading.Lock()
        self._flushing = threading.Event()  # set by `flush`, never by a lookup
        self._queue: deque[FinishedLookup] = deque()
        self._worker: threading.Thread | None = None
        self._offered = 0
        self._done = 0

    @property
    def has_budget(self) -> bool:
        """Whether the budget allows another span."""
        return self._budget_left > 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def pending(self) -> int:
        """Number of lookups without a span so far."""
        with self._lock:
            return self._offered - self._done

    def renew_budget(self) -> None:
        """Reset the number of spans that the budget allows."""
        with self._lock:
            self._budget_left = self._budget

    def offer(self, lookup: FinishedLookup) -> None:
        """Queue a lookup, or count it as elided or dropped."""
        miss = lookup.result == "miss"
        with self._lock:
            if not miss and self._budget_left <= 0:
                self.elided += 1
                return
            if self._closed or len(self._queue) >= self._capacity << miss:
                self.dropped += 1
                return
            self._budget_left -= not miss
            self._offered += 1
            self._queue.append(lookup)
            working = self._worker is not None
        if not working:
            self._start_worker()

    def flush(self, timeout_s: float) -> bool:
        """Wait for the spans of all lookups so far; return whether all are made."""
        due = time.monotonic() + timeout_s
        with self._lock:
            goal = self._offered
        if self._done < goal and self._worker is None:
            self._start_worker()
        self._flushing.set()
        while self._done < goal:
            if time.monotonic() >= due:
                return False
            if self._worker is None:  # no thread can be started at the end of the program
                self._make_one()
            else:
                time.sleep(_POLL_S)
        return True

    def close(self, timeout_s: float) -> None:
        """Accept no more lookups and make the queued spans; drop the rest at the timeout.

        May be called twice.
        """
        self._closed = True
        self.flush(timeout_s)
        with self._lock:
            self.dropped += len(self._queue)
            self._done += len(self._queue)
            self._queue.clear()
        if self._exit_hook is not None:
            atexit.unregister(self._exit_hook)

    def close_at_exit(self) -> None:
        """Close the queue at the end of the program, before the tracer provider shuts down."""
        if self._exit_hook is None:
            self._exit_hook = _exit_hook(weakref.ref(self))
            atexit.register(self._exit_hook)

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="forwardscope-spans", daemon=True)
        with suppress(RuntimeError):  # too many threads, or the program ends
            worker.start()
            self._worker = worker

    def _work(self) -> None:
        idle = 0
        while True:
            self._flushing.wait(_ROUND_S)
            self._flushing.clear()
            idle = 0 if self._queue else idle + 1
            while self._queue:
                self._make_one()
            with self._lock:
                if not self._queue and (idle > _IDLE_ROUNDS or self._closed):
                    self._worker = None
                    return

    def _make_one(self) -> None:
        """Make the next span, or wait while another thread makes one."""
        if not self._making.acquire(timeout=_ROUND_S):
            return
        try:
            with self._lock:
                if not self._queue:
                    return
                lookup = self._queue.popleft()
            failed = True
            try:
                with suppress(Exception, SystemExit):  # later spans are still made
                    self._make(lookup)
                    failed = False
            finally:
                with self._lock:
                    self._done += 1
                    self.dropped += failed
        finally:
            self._making.release()


def _exit_hook(queue: weakref.ref[SpanQueue]) -> Callable[[], None]:
    def close() -> None:
        alive = queue()
        if alive is None:
            return
        before: Final = alive.dropped
        alive.close(_AT_EXIT_S)
        if lost := alive.dropped - before + alive.pending:
            warnings.warn(
                f"the program ended before {plural(lost, 'span')} of lookups could be made; "
                "close() the BackendInstrumentation to wait for them",
                RuntimeWarning,
                stacklevel=1,
            )

    return close
