"""The thread that writes to a store's database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from forwardscope.store.base import NewEntry
from forwardscope.store.codec import encode
from forwardscope.store.counting import StoreCounts
from forwardscope.store.queued_writer import QueuedWriter
from forwardscope.store.sqlite_rows import Change, change_rows, evict
from forwardscope.store.sqlite_schema import connect, error_name, is_damage

__all__ = ["SqliteWriter", "abandon"]

#: Changes of one transaction. Each statement may wait some milliseconds for the interpreter, and
#: a killed process loses a transaction that it has not ended.
_BATCH: Final = 16
_EXIT_S: Final = 5.0
#: Wait for the writers of other processes; SQLite lets them in without order.
_BUSY_S: Final = 30.0

#: Connections of the parent. SQLite forbids a forked child even to close them.
_of_parents: list[sqlite3.Connection | None] = []


def abandon(connection: sqlite3.Connection | None) -> None:
    """Keep a connection of the parent from being closed in a forked child."""
    _of_parents.append(connection)


class SqliteWriter(QueuedWriter[Change, int]):
    """Writes entries to a database, and keeps it within its bound.

    A failed transaction loses its entries, which are counted as dropped, and never the
    integrity of the file.

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
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        super().__init__(counts, _BATCH, _EXIT_S)

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._is_within_bound = True

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
        super().after_fork()

    def _write(self, changes: Sequence[Change], touched: Sequence[int]) -> None:
        contents = self._encode(changes)

        def change(connection: sqlite3.Connection) -> None:
            now = int(self._clock() * 1e6)
            change_rows(connection, changes, contents, touched, now)

        if not self._attempt(change):
            self._counts.add("dropped", len(contents))
        elif contents:
            self._is_within_bound = False

    def _maintain(self) -> None:
        """Keep the bound."""
        if not self._is_within_bound:
            self._attempt(self._evict)

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
                content = self._encoded(change, lambda one: encode(one.value, one.digest))
                if content is not None and len(content) <= self._max_bytes:
                    encoded[position] = content
                elif content is not None:
                    self._counts.add("dropped")
        return encoded

    def _release(self) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
