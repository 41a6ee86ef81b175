"""Spans of lookups that are over: a bounded queue, and the worker that makes them."""

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

__all__ = ["CAPACITY", "FinishedLookup", "HitSpanQueue"]

#: The most lookups that wait for their spans.
CAPACITY: Final = 16_384

_ROUND_S = 0.1
_POLL_S = 0.002
_IDLE_ROUNDS = 20
_AT_EXIT_S = 5.0


class FinishedLookup(NamedTuple):
    """A hit or a coalesced lookup whose span is still to be made.

    Attributes:
        question: What was looked up.
        result: `hit` or `coalesced`.
        start_ns: The clock when it began.
        end_ns: The clock when it ended.
        parent: The context whose span is the parent.
    """

    question: Question
    result: str
    start_ns: int
    end_ns: int
    parent: Context


class HitSpanQueue:
    """Takes finished lookups without blocking them, and makes their spans later.

    A worker thread makes the spans in order, a round every tenth of a second. It
    ends when it has been idle for a while, and the next lookup starts another.
    Safe under threads: one lock guards the queue and the counts, held for a few
    operations; it is reentrant, so a signal handler may read the counts.
    A second lock is held by the one thread that makes spans; no lookup takes it.

    At the end of the program the queue is emptied, where it was not closed before.

    Args:
        make: Makes one span and counts it. Where it raises, the lookup counts
            as dropped.
        budget: Spans from one `renew_budget` to the next; None for no limit.
        capacity: The most lookups that are queued.

    Raises:
        ValueError: The budget is negative.

    Attributes:
        elided: Lookups without a span because the budget was used up.
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
        self._left = self._budget
        self._capacity = capacity
        self._closed = False
        self._exit_hook: Callable[[], None] | None = None
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin with an empty queue and no worker; the parent makes what it has queued."""
        self._lock = threading.RLock()
        self._making = threading.Lock()
        self._hurry = threading.Event()  # set by flush; no lookup waits for it or sets it
        self._queue: deque[FinishedLookup] = deque()
        self._worker: threading.Thread | None = None
        self._offered = 0
        self._settled = 0

    @property
    def has_budget(self) -> bool:
        """Whether the next lookup may have a span."""
        return self._left > 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def pending(self) -> int:
        """Lookups whose spans are not made yet."""
        with self._lock:
            return self._offered - self._settled

    def renew_budget(self) -> None:
        """Allow as many spans again as the budget has."""
        with self._lock:
            self._left = self._budget

    def offer(self, lookup: FinishedLookup) -> None:
        """Queue a lookup, or count it as elided or dropped."""
        with self._lock:
            if self._left <= 0:
                self.elided += 1
                return
            if self._closed or len(self._queue) >= self._capacity:
                self.dropped += 1
                return
            self._left -= 1
            self._offered += 1
            self._queue.append(lookup)
            working = self._worker is not None
        if not working:
            self._start_worker()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the spans of all lookups so far are made; say whether they are."""
        due = time.monotonic() + timeout_s
        with self._lock:
            goal = self._offered
        if self._settled < goal and self._worker is None:
            self._start_worker()
        self._hurry.set()
        while self._settled < goal:
            if time.monotonic() >= due:
                return False
            if self._worker is None:  # no thread can be started: the program ends
                self._make_one()
            else:
                time.sleep(_POLL_S)
        return True

    def close(self, timeout_s: float) -> None:
        """Take no more lookups and make the spans of those queued; drop what time is too short for.

        May be called twice.
        """
        self._closed = True
        self.flush(timeout_s)
        with self._lock:
            self.dropped += len(self._queue)
            self._settled += len(self._queue)
            self._queue.clear()
        if self._exit_hook is not None:
            atexit.unregister(self._exit_hook)

    def close_at_exit(self) -> None:
        """Close the queue when the program ends, before a tracer provider that exists by now."""
        if self._exit_hook is None:
            self._exit_hook = _closing(weakref.ref(self))
            atexit.register(self._exit_hook)

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="forwardscope-spans", daemon=True)
        with suppress(RuntimeError):  # no more threads, or the program ends
            worker.start()
            self._worker = worker

    def _work(self) -> None:
        idle = 0
        while True:
            self._hurry.wait(_ROUND_S)
            self._hurry.clear()
            idle = 0 if self._queue else idle + 1
            while self._queue:
                self._make_one()
            with self._lock:
                if not self._queue and (idle > _IDLE_ROUNDS or self._closed):
                    self._worker = None
                    return

    def _make_one(self) -> None:
        """Make the next span, or wait a moment where another thread makes one."""
        if not self._making.acquire(timeout=_ROUND_S):
            return
        try:
            with self._lock:
                if not self._queue:
                    return
                lookup = self._queue.popleft()
            failed = True
            try:
                with suppress(Exception, SystemExit):  # the others are made all the same
                    self._make(lookup)
                    failed = False
            finally:
                with self._lock:
                    self._settled += 1
                    self.dropped += failed
        finally:
            self._making.release()


def _closing(queue: weakref.ref[HitSpanQueue]) -> Callable[[], None]:
    def close() -> None:
        alive = queue()
        if alive is None:
            return
        before: Final = alive.dropped
        alive.close(_AT_EXIT_S)
        if lost := alive.dropped - before + alive.pending:
            warnings.warn(
                f"{lost} spans of cache hits were not made before the program ended; "
                "close() the BackendInstrumentation to wait for them",
                RuntimeWarning,
                stacklevel=1,
            )

    return close
