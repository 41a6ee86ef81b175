"""The thread that writes to a store's database, behind a bounded queue."""

from __future__ import annotations

import atexit
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from forwardscope.core.forks import reset_in_children
from forwardscope.store.base import NewEntry
from forwardscope.store.codec import UnknownValueError, encode
from forwardscope.store.counting import StoreCounts
from forwardscope.store.sqlite_rows import Change, change_rows, evict
from forwardscope.store.sqlite_schema import connect, error_name, is_damage

__all__ = ["SqliteWriter", "abandon"]

#: Changes that wait to be written; more are dropped.
CAPACITY: Final = 1024
#: The thread writes so often. Between rounds it does not compete with its callers for the
#: interpreter: where it woke for each entry, a put took 1.7 times as long.
_ROUND_S: Final = 0.02
#: Changes of one transaction. Each statement may wait some milliseconds for the interpreter, and
#: a killed process loses a transaction that it has not ended.
_BATCH: Final = 16
_IDLE_ROUNDS: Final = 100
#: Wait for the writers of other processes; SQLite lets them in without order.
_BUSY_S: Final = 30.0
_POLL_S: Final = 0.001
_MAX_TOUCHED: Final = 65536

#: Connections of the parent. SQLite forbids a forked child even to close them.
_of_parents: list[sqlite3.Connection | None] = []


def abandon(connection: sqlite3.Connection | None) -> None:
    """Keep a connection of the parent from being closed in a forked child."""
    _of_parents.append(connection)


@dataclass(slots=True)
class _Mark:
    """A place in the queue; `passed` when all before it is written or dropped."""

    passed: bool = False


class SqliteWriter:
    """Writes entries in a thread of its own, and keeps the store within its bound.

    The thread starts with the first change and ends when there are none for a while. A
    failed transaction loses its entries, which are counted as dropped, and never the
    integrity of the file. A forked child begins with an empty queue: its parent writes
    what is queued. At the end of the program the queue is written, unless it was closed
    before.

    Args:
        path: The database.
        max_bytes: Bound of the pages in use.
        counts: Where evictions, losses and failures are counted.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, path: Path, max_bytes: int, counts: StoreCounts, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._counts = counts
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._start_afresh()
        self._exit_hook = _exit_hook(weakref.ref(self))
        atexit.register(self._exit_hook)
        reset_in_children(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._queue: deque[Change | _Mark] = deque()
        self._touched: deque[int] = deque(maxlen=_MAX_TOUCHED)
        self._hurry: SimpleQueue[None] = SimpleQueue()
        self._is_within_bound = True
        self._worker: threading.Thread | None = None

    def pause(self) -> None:
        """Keep the thread out of SQLite while the process forks, if it is out within a second.

        The child inherits no connection then; see `SqliteStore.pause`.
        """
        if self._writing.acquire(timeout=1.0):
            self._disconnect()

    def resume(self) -> None:
        """Let the thread go on."""
        with suppress(RuntimeError):  # it was not acquired
            self._writing.release()

    def after_fork(self) -> None:
        """Begin with an empty queue, no thread and no connection."""
        connection, self._connection = self._connection, None
        abandon(connection)
        self._start_afresh()

    def put(self, changes: Sequence[Change]) -> None:
        """Queue changes, or count those that do not fit as dropped.

        An interrupt leaves all that fit in the queue, or none.
        """
        with self._lock:
            closed = self._closed or self._counts.unavailable
            room = 0 if closed else max(0, CAPACITY - len(self._queue))
            self._queue.extend(changes[:room])
        if lost := changes[room:]:
            self._counts.add("dropped", _entries_in(lost))
        self._ensure_worker()

    def touch(self, rows: Sequence[int]) -> None:
        """Note that rows were used, in this order; it is written with the next changes or flush."""
        self._touched.extend(rows)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all changes and uses so far are written; return whether they are."""
        due = time.monotonic() + timeout_s
        mark = _Mark()
        with self._lock:
            self._queue.append(mark)
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

    def close(self, timeout_s: float) -> None:
        """Write what is queued, and drop the rest at the timeout; may be called twice."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        atexit.unregister(self._exit_hook)
        self.flush(timeout_s)
        rest, _ = self._take(CAPACITY * 2)  # marks too
        self._counts.add("dropped", _entries_in(rest))
        if self._writing.acquire(timeout=max(0.1, timeout_s / 10)):
            try:
                self._disconnect()
            finally:
                self._writing.release()

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
            if number < _BATCH:  # else more may wait
                with suppress(Empty):
                    self._hurry.get(timeout=_ROUND_S)
            number = self._write_round()
            idle = 0 if number else idle + 1
            with self._lock:
                if not self._queue and (idle > _IDLE_ROUNDS or self._closed):
                    self._worker = None
                    break
        if self._closed:
            with self._writing:
                self._disconnect()

    def _write_round(self) -> int:
        """Write changes that wait, and uses with them; return the number of changes and marks."""
        with self._writing:  # before the queue is taken: an interrupted start can give two threads
            changes, marks = self._take(_BATCH)
            waiting = len(self._touched) if changes or marks else 0
            touched = [self._touched.popleft() for _ in range(waiting)]
            try:
                if changes or touched:
                    self._write(changes, touched)
                if not self._is_within_bound:
                    self._attempt(self._evict)
            finally:
                for mark in marks:
                    mark.passed = True
        return len(changes) + len(marks)

    def _take(self, most: int) -> tuple[list[Change], list[_Mark]]:
        """Take changes and marks from the queue."""
        with self._lock:
            taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        marks = [one for one in taken if isinstance(one, _Mark)]
        return [one for one in taken if not isinstance(one, _Mark)], marks

    def _write(self, changes: Sequence[Change], touched: Sequence[int]) -> None:
        """Write a batch; the entries of a failed one are dropped."""
        contents = self._encode(changes)

        def change(connection: sqlite3.Connection) -> None:
            now = int(self._clock() * 1e6)
            change_rows(connection, changes, contents, touched, now)

        if not self._attempt(change):
            self._counts.add("dropped", len(contents))
        elif contents:
            self._is_within_bound = False

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Keep the bound; stop where changes wait, so that a long eviction does not drop them."""
        self._is_within_bound = True  # if it fails, the next entries try again
        for number in evict(connection, self._max_bytes):
            self._counts.add("evictions", number)
            if self._queue:
                self._is_within_bound = False
                return

    def _attempt(self, change: Callable[[sqlite3.Connection], None]) -> bool:
        """Change the database; return whether it succeeded. A failure is counted."""
        start = time.perf_counter()
        try:
            if self._connection is None:
                self._connection = connect(self._path, "write", _BUSY_S)
            change(self._connection)
        except Exception as error:  # noqa: BLE001 - the thread goes on, whatever a value does
            self._counts.unavailable = self._counts.unavailable or is_damage(error)
            self._counts.failed("put", error_name(error), str(error))
            return False
        self._counts.observe("put", time.perf_counter() - start)
        return True

    def _encode(self, changes: Sequence[Change]) -> dict[int, bytes]:
        """Return the encoded values by the entries' positions; count those that have none."""
        encoded = {}
        for position, change in enumerate(changes):
            if isinstance(change, NewEntry):
                try:
                    content = encode(change.value, change.digest)
                    if len(content) <= self._max_bytes:
                        encoded[position] = content
                    else:
                        self._counts.add("dropped")
                except UnknownValueError:
                    self._counts.add("unsupported")
                except Exception as error:  # noqa: BLE001 - a foreign value may raise anything
                    self._counts.add("unsupported")
                    self._counts.failed("put", type(error).__name__, "a value cannot be encoded")
        return encoded

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _entries_in(changes: Sequence[Change]) -> int:
    return sum(isinstance(change, NewEntry) for change in changes)


def _exit_hook(writer: weakref.ref[SqliteWriter]) -> Callable[[], None]:
    def close() -> None:
        alive = writer()
        if alive is not None:
            alive.close(5.0)

    return close
