"""A bounded queue of changes, and the thread that writes them."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from forwardscope.core.forks import reset_in_children
from forwardscope.store.base import NewEntry
from forwardscope.store.change_queue import ChangeQueue, Mark, size_of_change
from forwardscope.store.codec import UnknownValueError
from forwardscope.store.counting import StoreCounts

__all__ = ["QueuedWriter"]

#: A change: a `NewEntry`, or another of the store.
C = TypeVar("C")
#: What names an entry that was used.
U = TypeVar("U")

#: Bytes of values that are written at once, or one value.
_BATCH_BYTES: Final = 2**23
#: The thread writes so often. Between rounds it does not compete with its callers for the
#: interpreter: where it woke for each entry, a put took 1.7 times as long.
_ROUND_S: Final = 0.02
_IDLE_ROUNDS: Final = 100
_POLL_S: Final = 0.001
_MAX_TOUCHED: Final = 65536


class QueuedWriter(ABC, Generic[C, U]):
    """Writes changes in a thread of its own. Safe under threads.

    The thread starts with the first change and ends when there are none for a while. A
    forked child begins with an empty queue: its parent writes what is queued. At the end of
    the program the queue is written, unless it was closed before.

    Args:
        counts: Where losses are counted.
        batch: Changes that are written at once.
        exit_s: The longest wait for the queue at the end of the program.
    """

    def __init__(self, counts: StoreCounts, batch: int, exit_s: float) -> None:
        self._counts = counts
        self._batch = batch
        self._closed = False
        self._start_afresh()
        self._exit_hook = _exit_hook(weakref.ref(self), exit_s)
        atexit.register(self._exit_hook)
        reset_in_children(self)

    def _start_afresh(self) -> None:
        """Begin with an empty queue and no thread."""
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._queue: ChangeQueue[C] = ChangeQueue()
        self._touched: deque[U] = deque(maxlen=_MAX_TOUCHED)
        self._hurry: SimpleQueue[None] = SimpleQueue()
        self._worker: threading.Thread | None = None
        self._flushes = 0

    def after_fork(self) -> None:
        """Begin with an empty queue and no thread."""
        self._start_afresh()

    def put(self, changes: Sequence[C]) -> None:
        """Queue changes, or count those that do not fit as dropped.

        An interrupt leaves all that fit in the queue, or none.
        """
        sizes = list(map(size_of_change, changes))
        with self._lock:
            closed = self._closed or self._counts.unavailable
            queued = 0 if closed else self._queue.put(changes, sizes)
            self._accept(changes[:queued])
        if lost := changes[queued:]:
            self._counts.add("dropped", _entries_in(lost))
        self._ensure_worker()

    def touch(self, used: Sequence[U]) -> None:
        """Note that entries were used, in this order; the next changes or flush write it."""
        self._touched.extend(used)

    def is_awaited(self) -> bool:
        """Return whether a flush waits for what is written now."""
        return self._flushes > 0

    def flush(self, timeout_s: float) -> bool:
        """Wait until all changes and uses so far are written; return whether they are."""
        due = time.monotonic() + timeout_s
        with self._lock:
            mark = self._queue.put_mark()
            self._flushes += 1
        try:
            return self._wait(mark, due)
        finally:
            with self._lock:
                self._flushes -= 1

    def close(self, timeout_s: float) -> None:
        """Write what is queued, and drop the rest at the timeout; may be called twice."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        atexit.unregister(self._exit_hook)
        self.flush(timeout_s)
        with self._lock:
            rest, _ = self._queue.take()
        self._counts.add("dropped", _entries_in(rest))
        if self._writing.acquire(timeout=max(0.1, timeout_s / 10)):  # else the thread does it
            try:
                self._release()
            finally:
                self._writing.release()

    @abstractmethod
    def _write(self, changes: Sequence[C], used: Sequence[U]) -> None:
        """Write a batch; count the entries of a failed one as dropped."""

    @abstractmethod
    def _release(self) -> None:
        """Release what the writer holds, as it is closed."""

    def _accept(self, changes: Sequence[C]) -> None:
        """Note what was queued; the lock is held."""

    def _maintain(self) -> None:
        """Do what is due after each round."""

    def _uses_are_due(self) -> bool:
        """Return whether uses are written without changes."""
        return False

    def _is_needed(self) -> bool:
        """Return whether the thread goes on without changes."""
        return False

    def _encoded(self, entry: NewEntry, encode: Callable[[NewEntry], bytes]) -> bytes | None:
        """Return an entry as it is written; None for a value that cannot be, which is counted."""
        try:
            return encode(entry)
        except UnknownValueError:
            self._counts.add("unsupported")
        except Exception as error:  # noqa: BLE001 - a foreign value may raise anything
            self._counts.add("unsupported")
            self._counts.failed("put", type(error).__name__, "a value cannot be encoded")
        return None

    def _wait(self, mark: Mark, due: float) -> bool:
        self._ensure_worker()
        self._hurry.put(None)
        while not mark.passed:
            if time.monotonic() >= due:
                return False
            if self._worker is None:  # no thread can be started at the end of the program
                self._write_round()
            else:
                time.sleep(_POLL_S)
        return True

    def _ensure_worker(self) -> None:
        """Start the thread, unless it runs."""
        if self._worker is not None or self._closed:
            return
        worker = threading.Thread(target=self._work, name="forwardscope-store", daemon=True)
        with self._lock, suppress(RuntimeError):  # too many threads, or the program ends
            if self._worker is None:
                worker.start()
                self._worker = worker

    def _work(self) -> None:
        idle = number = 0
        while True:
            if number < self._batch:  # else more may wait
                with suppress(Empty):
                    self._hurry.get(timeout=_ROUND_S)
            number = self._write_round()
            idle = 0 if number else idle + 1
            with self._lock:
                is_idle = idle > _IDLE_ROUNDS and not self._is_needed()
                if not self._queue and (is_idle or self._closed):
                    self._worker = None
                    break
        if self._closed:
            with self._writing:
                self._release()

    def _write_round(self) -> int:
        """Write changes that wait, and uses with them; return the number of changes and marks."""
        with self._writing:  # before the queue is taken: an interrupted start can give two threads
            with self._lock:
                changes, marks = self._queue.take(self._batch, _BATCH_BYTES)
            waiting = len(self._touched) if changes or marks or self._uses_are_due() else 0
            used = [self._touched.popleft() for _ in range(waiting)]
            try:
                if changes or used:
                    self._write(changes, used)
                self._maintain()
            finally:
                for mark in marks:
                    mark.passed = True
        return len(changes) + len(marks)


def _entries_in(changes: Sequence[object]) -> int:
    return sum(isinstance(change, NewEntry) for change in changes)


def _exit_hook(writer: weakref.ref[QueuedWriter[C, U]], exit_s: float) -> Callable[[], None]:
    def close() -> None:
        alive = writer()
        if alive is not None:
            alive.close(exit_s)

    return close
