"""Spans that are over before they are made: a bounded queue, and the thread that empties it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from forwardscope.core.forks import reset_in_children

__all__ = ["CAPACITY", "AnsweredLookup", "DeferredSpans"]

#: The most lookups that wait for their spans.
CAPACITY: Final = 16_384

_CHUNK = 256
_LINGER_S = 0.5
_IDLE_S = 5.0


#: A lookup that paid no forward pass, whose span is made later: its question (op, view id,
#: prompt hash, top_k), `hit` or `coalesced`, the clock when it began and when it ended, and the
#: OpenTelemetry context that its span hangs under. It has no names, since a hit makes one.
AnsweredLookup = tuple[tuple[str, str, str, int], str, int, int, Any]


class DeferredSpans:
    """Takes what is to become a span without making anyone wait. Safe under threads.

    A thread makes the spans, in order: soon after a first one came, at once when
    the queue is half full or someone says that now is a good time. It ends when
    there has been nothing to do for a while, and is started again when needed.

    Args:
        make: Makes one span, and counts what became of it; called in the thread.
        pace: Called in the thread before each chunk of spans; may wait.
        capacity: The most that is queued.
    """

    def __init__(
        self,
        make: Callable[[AnsweredLookup], None],
        pace: Callable[[], None],
        capacity: int = CAPACITY,
    ) -> None:
        self._make = make
        self._pace = pace
        self._capacity = capacity
        self._half = capacity // 2
        self._closed = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin with nothing queued and no thread; what the parent queued it makes itself."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[AnsweredLookup] = deque()
        self._thread: threading.Thread | None = None
        self._offered = 0
        self._made = 0
        self._hurry = False

    @property
    def pending(self) -> int:
        """How many were taken and are not yet made."""
        return self._offered - self._made

    def offer(self, lookup: AnsweredLookup) -> bool:
        """Take one; False where it is full or closed."""
        with self._lock:
            queued = len(self._queue)
            if self._closed or queued >= self._capacity:
                return False
            self._queue.append(lookup)
            self._offered += 1
            if queued == 0 or queued == self._half:
                self._wake()
        return True

    def nudge(self) -> None:
        """Say that now is a good time: a forward pass has the machine, or a probe is over."""
        if self._queue:
            with self._changed:
                self._hurry = True
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was taken so far is made; say whether it is."""
        with self._changed:
            goal = self._offered
            self._hurry = True
            if self._queue:
                self._wake()
            return self._changed.wait_for(lambda: self._made >= goal, timeout_s)

    def close(self, timeout_s: float) -> int:
        """Take no more, make what is queued, and return how many were given up.

        The few that are in the thread's hands when time is up are not given up:
        they may still be made.
        """
        due = time.monotonic() + timeout_s
        with self._changed:
            self._closed = True
            if self._queue:
                self._wake()
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._queue, timeout_s)
            left = len(self._queue)
            self._offered -= left
            self._queue.clear()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, due - time.monotonic()))
        return left

    def _wake(self) -> None:
        """See to it that a thread runs and looks at the queue; the lock is held."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="forwardscope-spans", daemon=True)
            with suppress(RuntimeError):  # the system gives no more threads: tried again later
                thread.start()
                self._thread = thread
        self._changed.notify_all()

    def _work(self) -> None:
        while ready := self._await_work():
            for _ in range(0, ready, _CHUNK):
                self._pace()
                with self._changed:
                    chunk = [self._queue.popleft() for _ in range(min(_CHUNK, len(self._queue)))]
                for lookup in chunk:
                    try:  # noqa: SIM105 - where nothing is raised, this alone costs nothing
                        self._make(lookup)
                    except Exception:  # noqa: BLE001, S110 - the others are made all the same
                        pass
                    self._made += 1  # by this thread alone
            with self._changed:  # not sooner: who waits for a flush would take the machine from it
                self._changed.notify_all()

    def _await_work(self) -> int:
        """Wait for a good time; return how many are queued, 0 where the thread may end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed, _IDLE_S)
            due = time.monotonic() + _LINGER_S
            while not self._urgent() and (left := due - time.monotonic()) > 0:
                self._changed.wait(left)
            self._hurry = False
            if not self._queue:
                self._thread = None
            return len(self._queue)

    def _urgent(self) -> bool:
        return self._hurry or self._closed or not self._queue or len(self._queue) >= self._half
