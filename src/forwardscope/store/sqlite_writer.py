"""Everything that changes a store's database, in one thread behind a bounded queue."""

from __future__ import annotations

import atexit
import json
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from forwardscope.core.forks import reset_in_children
from forwardscope.store.base import IdentityInfo, NewEntry
from forwardscope.store.codec import UnknownValueError, encode
from forwardscope.store.counting import StoreCounts
from forwardscope.store.sqlite_schema import connect, error_name, is_damage, transaction

__all__ = ["Deletion", "Description", "SqliteWriter", "abandon", "shrink", "used_bytes"]

#: Entries that wait to be written; more are dropped.
CAPACITY: Final = 1024
#: Entries of one transaction, and of one step of an eviction.
_BATCH: Final = 512
_ROUND_S: Final = 0.5
#: Wait for the writers of other processes; SQLite lets them in without order.
_BUSY_S: Final = 10.0
_IDLE_ROUNDS: Final = 4
_POLL_S: Final = 0.001
_MAX_TOUCHED: Final = 65536
_STEP_PAGES: Final = 1024
#: Evictions make so much room at once.
_KEPT: Final = 0.95
#: What an entry takes beside its value: keys, indexes, times.
_ENTRY_BYTES: Final = 300

#: Connections of the parent. SQLite forbids a forked child even to close them.
_of_parents: list[sqlite3.Connection | None] = []


def abandon(connection: sqlite3.Connection | None) -> None:
    """Keep a connection of the parent from being closed in a forked child."""
    _of_parents.append(connection)


@dataclass(frozen=True, slots=True)
class Deletion:
    """Remove an entry; only the row `id`, where it is given."""

    digest: bytes
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """Store what an identity is made of."""

    identity: str
    info: IdentityInfo


_Job = NewEntry | Deletion | Description


class SqliteWriter:
    """Writes entries in a thread of its own, and keeps the store within its bound.

    The thread starts with the first job and ends when there are none for a while. A
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
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._touched: deque[int] = deque(maxlen=_MAX_TOUCHED)
        self._offered = self._done = 0
        self._in_round = False
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

    def put(self, jobs: Sequence[_Job]) -> None:
        """Queue jobs, or count those that do not fit as dropped."""
        with self._lock:
            closed = self._closed or self._counts.unavailable
            room = 0 if closed else max(0, CAPACITY - (self._offered - self._done))
            for job in jobs[:room]:
                self._jobs.put(job)
            self._offered += len(jobs[:room])
        if lost := jobs[room:]:
            self._counts.add("dropped", sum(isinstance(job, NewEntry) for job in lost))
        self._wake()

    def touch(self, rows: Sequence[int]) -> None:
        """Note that rows were used, in this order; it is written with the next batch."""
        self._touched.extend(rows)
        self._wake()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all jobs and uses so far are written; return whether they are."""
        due = time.monotonic() + timeout_s
        with self._lock:
            goal = self._offered
        self._jobs.put(None)
        self._wake()
        while self._done < goal or self._touched or self._in_round:
            if time.monotonic() >= due:
                return False
            if self._worker is None:  # no thread can be started at the end of the program
                self._write_round(0.0)
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
        rest = list(self._drain(CAPACITY))
        self._finish(rest)
        self._counts.add("dropped", sum(isinstance(job, NewEntry) for job in rest))
        if self._writing.acquire(timeout=max(0.1, timeout_s / 10)):
            try:
                self._disconnect()
            finally:
                self._writing.release()

    def _wake(self) -> None:
        """Start the thread, unless it runs."""
        if self._worker is not None or self._closed:
            return
        worker = threading.Thread(target=self._work, name="forwardscope-store", daemon=True)
        with self._lock, suppress(RuntimeError):  # too many threads, or the program ends
            if self._worker is None:
                worker.start()
                self._worker = worker

    def _work(self) -> None:
        idle = 0
        while True:
            idle = 0 if self._write_round(_ROUND_S) else idle + 1
            with self._lock:
                empty = self._done >= self._offered and not self._touched
                if empty and (idle > _IDLE_ROUNDS or self._closed):
                    self._worker = None
                    break
        if self._closed:
            with self._writing:
                self._disconnect()

    def _write_round(self, wait_s: float) -> bool:
        """Write one batch of jobs and uses; return whether there was anything to write."""
        first: list[_Job] = []
        with suppress(Empty):
            job = self._jobs.get(timeout=wait_s) if wait_s else self._jobs.get_nowait()
            first = [] if job is None else [job]
        jobs = [*first, *self._drain(_BATCH - 1)]
        self._in_round = True
        touched = [self._touched.popleft() for _ in range(len(self._touched))]
        if not jobs and not touched:
            self._in_round = False
            return False
        try:
            self._write(jobs, touched)
        finally:
            self._finish(jobs)
        return True

    def _drain(self, most: int) -> Iterator[_Job]:
        with suppress(Empty):
            for _ in range(most):
                job = self._jobs.get_nowait()
                if job is not None:
                    yield job

    def _finish(self, jobs: Sequence[_Job]) -> None:
        with self._lock:
            self._done += len(jobs)
            self._in_round = False

    def _write(self, jobs: Sequence[_Job], touched: Sequence[int]) -> None:
        """Write a batch and keep the bound; the entries of a failed batch are dropped."""
        encoded = self._encode(jobs)
        with self._writing:
            if not self._attempt(lambda one: self._apply(one, jobs, encoded, touched)):
                self._counts.add("dropped", len(encoded))
            elif encoded:
                self._attempt(self._evict)

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

    def _encode(self, jobs: Sequence[_Job]) -> dict[int, bytes]:
        """Return the encoded values by the entries' positions; count those that have none."""
        encoded = {}
        for position, job in enumerate(jobs):
            if isinstance(job, NewEntry):
                try:
                    content = encode(job.value, job.digest)
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

    def _apply(
        self,
        connection: sqlite3.Connection,
        jobs: Sequence[_Job],
        encoded: dict[int, bytes],
        touched: Sequence[int],
    ) -> None:
        """Write a batch in one transaction."""
        now = int(self._clock() * 1e6)
        uses = [(now - number, row) for number, row in enumerate(reversed(touched))]
        with transaction(connection):
            # where the clock was set back, entries of the future would never be evicted
            connection.execute("UPDATE entries SET last_used = ? WHERE last_used > ?", (now, now))
            connection.executemany("UPDATE entries SET last_used = ? WHERE id = ?", reversed(uses))
            for position, job in enumerate(jobs):
                if isinstance(job, Description):
                    _describe(connection, job)
                elif isinstance(job, Deletion):
                    _delete(connection, job)
                elif position in encoded:
                    _insert(connection, job, encoded[position], now)

    def _evict(self, connection: sqlite3.Connection) -> None:
        """Remove the least recently used entries while the store is over its bound."""
        if used_bytes(connection) <= self._max_bytes:
            return
        while (excess := used_bytes(connection) - int(self._max_bytes * _KEPT)) > 0:
            oldest = connection.execute(
                "SELECT id, nbytes FROM entries ORDER BY last_used, id LIMIT ?", (_BATCH,)
            )
            chosen = []
            left = excess / 2  # half at a time, as a value may free more pages than it fills
            for row, nbytes in oldest.fetchall():
                if left > 0:
                    chosen.append((row,))
                    left -= nbytes + _ENTRY_BYTES
            if not chosen:
                return
            with transaction(connection):
                connection.executemany("DELETE FROM entries WHERE id = ?", chosen)
            self._counts.add("evictions", len(chosen))
        shrink(connection, self._max_bytes)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the pages that are in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def shrink(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Give free pages back to the file system, as far as the file is larger than a bound."""
    pages, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    for _ in range(max_bytes // size, pages, _STEP_PAGES):  # other processes write between
        # a script, because `execute` frees a single page
        connection.executescript(f"PRAGMA incremental_vacuum({_STEP_PAGES})")


def _insert(connection: sqlite3.Connection, new: NewEntry, content: bytes, now: int) -> None:
    _delete(connection, Deletion(new.digest))
    cursor = connection.execute(
        "INSERT INTO entries (digest, question, identity, run_id, call, nbytes, last_used) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            *(new.digest, new.question, _identity(connection, new.identity)),
            *(_bytes(new.run_id), _call(new.trace_id, new.span_id), len(content), now),
        ),
    )
    connection.execute("INSERT INTO contents VALUES (?, ?)", (cursor.lastrowid, content))


def _delete(connection: sqlite3.Connection, job: Deletion) -> None:
    if job.id is None:
        connection.execute("DELETE FROM entries WHERE digest = ?", (job.digest,))
    else:
        connection.execute("DELETE FROM entries WHERE id = ? AND digest = ?", (job.id, job.digest))


def _describe(connection: sqlite3.Connection, job: Description) -> None:
    connection.execute(
        "UPDATE identities SET info = ? WHERE id = ?",
        (json.dumps(asdict(job.info)), _identity(connection, job.identity)),
    )


def _identity(connection: sqlite3.Connection, identity: str) -> int:
    """Return the number of an identity, which is stored once."""
    name = _bytes(identity)
    select = "SELECT id FROM identities WHERE identity = ?"
    found = connection.execute(select, (name,)).fetchone()
    if found is None:
        connection.execute("INSERT INTO identities (identity) VALUES (?)", (name,))
        found = connection.execute(select, (name,)).fetchone()
    return int(found[0])


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogatepass")


def _call(trace_id: str | None, span_id: str | None) -> bytes | None:
    """Return the ids of a forward call in one: 16 bytes of the trace and 8 of the span."""
    if trace_id is None or span_id is None:
        return None
    return int(trace_id, 16).to_bytes(16, "big") + int(span_id, 16).to_bytes(8, "big")


def _exit_hook(writer: weakref.ref[SqliteWriter]) -> Callable[[], None]:
    def close() -> None:
        alive = writer()
        if alive is not None:
            alive.close(5.0)

    return close
