"""A store in one SQLite file, which many processes can share."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from forwardscope.core.forks import reset_in_children
from forwardscope.errors import StoreError
from forwardscope.store.base import (
    IdentityInfo,
    Lease,
    NewEntry,
    StoredEntry,
    StoredRow,
    StoreStats,
    Tier,
)
from forwardscope.store.codec import UnknownValueError, decode
from forwardscope.store.counting import StoreCounts
from forwardscope.store.sqlite_rows import Deletion, Description, shrink, used_bytes
from forwardscope.store.sqlite_schema import (
    FAULTS,
    Mode,
    connect,
    error_name,
    is_damage,
    prepare,
    set_busy,
    transaction,
)
from forwardscope.store.sqlite_writer import SqliteWriter, abandon
from forwardscope.text import shown

__all__ = ["DEFAULT_MAX_BYTES", "MIN_BYTES", "SqliteStore"]

DEFAULT_MAX_BYTES: Final = 10 * 2**30
#: The tables alone take some of it.
MIN_BYTES: Final = 2**20

#: A lookup waits so long for another process, and all lookups of a run so long together.
_BUSY_S: Final = 1.0
_PATIENCE_S: Final = 3.0
#: The numbers of `stats` wait so long for a lookup, and for another process.
_GLANCE_S: Final = 0.05
#: Digests of one query; SQLite allows 999 variables.
_CHUNK: Final = 256
#: Rows, and rows with their values, that are read at once.
_ROWS: Final = 1000
_CONTENTS: Final = 16
_SMALLEST: Final = -(2**63)
_CALL_SIZE: Final = 24
_ENTRY: Final = (
    "SELECT e.id, e.digest, e.run_id, e.call, c.content "
    "FROM entries AS e JOIN contents AS c ON c.id = e.id"
)
_ROW: Final = "digest, question, i.identity, run_id, call, nbytes, last_used"
_ROW_FROM: Final = "entries JOIN identities AS i ON i.id = entries.identity"


class SqliteStore:
    """A store in one SQLite file. Safe under threads, in forked children and between processes.

    Lookups read in the caller's thread; a write-ahead log keeps them from waiting for
    writers. Entries are encoded and written by a thread of their own. A killed process
    loses at most its latest entries, never the integrity of the file.

    Args:
        path: The file; it is made if it does not exist.
        mode: `read` for a store that this process must not change. The time of use is
            not noted then.
        max_bytes: Bound of the file's pages in use; the least recently used entries are
            evicted.
        clock: Seconds since the epoch; a test may bring its own.

    Raises:
        StoreError: The file is no store or cannot be used.
        ValueError: The bound is too small.
    """

    tier: Tier = "disk"

    def __init__(
        self,
        path: Path,
        *,
        mode: Mode = "write",
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_BYTES}; got {max_bytes}")
        self.path: Final = path.absolute()  # the program may change its folder
        self.name: Final = shown(str(path))
        try:
            prepare(path, mode)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"the store {self.name} cannot be opened: {reason}") from error
        self._mode: Final[Mode] = mode
        self._max_bytes = max_bytes
        self._counts = StoreCounts(self.name)
        self._writer = SqliteWriter(self.path, max_bytes, self._counts, clock)
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._waited_s = 0.0
        self._size = 0, 0
        self._lock = threading.RLock()
        reset_in_children(self)

    def pause(self) -> None:
        """Keep threads out of SQLite while the process forks, and leave the child no connection.

        A child that inherits one does not lock the file: its parent would remove the log.
        """
        if self._lock.acquire(timeout=_BUSY_S):
            self._disconnect()

    def resume(self) -> None:
        """Let threads go on."""
        with suppress(RuntimeError):  # it was not acquired
            self._lock.release()

    def after_fork(self) -> None:
        """Begin without a connection; the next lookup opens one."""
        self._lock = threading.RLock()
        connection, self._connection = self._connection, None
        abandon(connection)

    def get_many(self, digests: Sequence[bytes]) -> dict[bytes, StoredEntry]:
        """Return the entries that are there, by digest."""
        if not digests or self._closed or self._counts.unavailable:
            return {}
        start = time.perf_counter()
        try:
            rows = self._select(digests)
        except Exception as error:  # noqa: BLE001 - MemoryError for a huge value, for example
            self._failed(error, time.perf_counter() - start)
            return {}
        found = {}
        used: list[int] = []
        for row in rows:
            entry = self._entry(row)
            if entry is not None:
                found[row[1]] = entry
                used.append(row[0])
        if used and self._mode == "write":
            self._writer.touch(used)
        self._counts.observe("get", time.perf_counter() - start)
        return found

    def put_many(self, entries: Sequence[NewEntry]) -> None:
        """Queue entries to be stored; in mode `read` nothing happens."""
        if self._mode == "write":
            self._writer.put(entries)

    def delete(self, digests: Sequence[bytes]) -> None:
        """Queue entries to be removed."""
        if self._mode == "write":
            self._writer.put([Deletion(digest) for digest in digests])

    def scan(
        self,
        *,
        question: bytes | None = None,
        identity: str | None = None,
        oldest_first: bool = False,
    ) -> Iterator[StoredRow]:
        """Yield what is known of the entries of a question, an identity, or all.

        Each is of the moment at which it is yielded; those that are put after the first
        one are left out.

        Raises:
            StoreError: The store cannot be read.
        """
        name = None if identity is None else identity.encode("utf-8", "surrogatepass")
        given = {"question = ?": question, "i.identity = ?": name}
        chosen = {term: value for term, value in given.items() if value is not None}
        key = "last_used" if oldest_first else "entries.id"
        for row in self._pages(_ROW, _ROW_FROM, key, _ROWS, chosen):
            yield self._stored_row(row)

    def contents(self) -> Iterator[tuple[StoredRow, bytes]]:
        """Yield all entries with their encoded values, 16 at a time.

        Each is of the moment at which it is read; those that are put after the first one
        are left out.

        Raises:
            StoreError: The store cannot be read.
        """
        source = f"{_ROW_FROM} LEFT JOIN contents AS c ON c.id = entries.id"
        for *row, content in self._pages(f"{_ROW}, content", source, "entries.id", _CONTENTS, {}):
            yield self._stored_row(row), content if type(content) is bytes else b""

    def compact(self) -> None:
        """Forget identities without entries, and shrink the file; not in mode `read`.

        Raises:
            StoreError: The file cannot be changed.
        """
        if self._mode == "read":
            return
        unused = "DELETE FROM identities WHERE id NOT IN (SELECT identity FROM entries)"
        try:
            with self._lock, closing(connect(self.path, "write")) as connection:
                with transaction(connection):
                    connection.execute(unused)
                shrink(connection, used_bytes(connection))
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.name} cannot be changed: {error}") from error

    def lease(self, digests: Sequence[bytes]) -> Lease:
        """Return a lease of all."""
        return Lease(digests)

    def describe_identity(
        self,
        identity: str,
        parts: Mapping[str, str],
        *,
        model: str,
        adapter: str | None,
        view_family: str,
    ) -> None:
        """Queue what an identity is made of."""
        if self._mode == "write":
            info = IdentityInfo(dict(parts), model, adapter, view_family)
            self._writer.put([Description(identity, info)])

    def identities(self) -> dict[str, IdentityInfo]:
        """Return all identities that were described.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._read("SELECT identity, info FROM identities WHERE info NOT NULL")
        described = {}
        for identity, info in rows:
            with suppress(ValueError, TypeError, AttributeError):  # of a damaged row
                described[_text(identity)] = IdentityInfo.from_json(info)
        return described

    def stats(self) -> StoreStats:
        """Return the counts of now; of a file that is in use by others for long, its last size."""
        if not self._closed and not self._counts.unavailable:
            with suppress(*FAULTS, TypeError, ValueError, OverflowError):  # of a damaged file
                self._size = self._measured()
        return self._counts.snapshot(*self._size, self._max_bytes)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was queued is stored; return whether it is."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Store what is queued, drop the rest at the timeout; may be called twice."""
        self._writer.close(timeout_s)
        self.stats()  # the last numbers
        with self._lock:
            self._closed = True
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _select(self, digests: Sequence[bytes]) -> list[Any]:
        if len(digests) <= _CHUNK:
            return self._query(_select_of(len(digests)), digests)
        return self._select(digests[:_CHUNK]) + self._select(digests[_CHUNK:])

    def _pages(
        self, columns: str, source: str, key: str, size: int, chosen: Mapping[str, object]
    ) -> Iterator[Sequence[Any]]:
        """Yield rows in the order of a key, those of the start; other processes write between."""
        ((end,),) = self._read(f"SELECT max({key}) FROM entries")  # noqa: S608 - a constant
        where = " AND ".join([f"({key}, entries.id) > (?, ?)", f"{key} <= ?", *chosen])
        query = (
            f"SELECT {key}, entries.id, {columns} FROM {source} WHERE {where} "  # noqa: S608 - constants
            f"ORDER BY {key}, entries.id LIMIT {size}"
        )
        last = _SMALLEST, _SMALLEST
        while rows := self._read(query, *last, end, *chosen.values()):
            for at, row_id, *row in rows:
                yield row
                last = at, row_id

    def _read(self, query: str, *parameters: object) -> list[Any]:
        try:
            return self._query(query, parameters)
        except FAULTS as error:
            advice = "; remove the file, or give another name" if is_damage(error) else ""
            raise StoreError(f"the store {self.name} cannot be read: {error}{advice}") from error

    def _stored_row(self, row: Sequence[Any]) -> StoredRow:
        try:
            return _row_of(row)
        except Exception as error:
            raise StoreError(
                f"the store {self.name} is damaged (a row has columns of other types); "
                "remove the file, or give another name"
            ) from error

    def _query(self, query: str, parameters: Sequence[object] = ()) -> list[Any]:
        with self._lock:
            return self._connected().execute(query, parameters).fetchall()

    def _connected(self, busy_s: float = _BUSY_S) -> sqlite3.Connection:
        """Return the connection, which is opened at first; the lock is held."""
        if self._connection is None:
            if self._closed:
                raise sqlite3.ProgrammingError("the store is closed")
            self._connection = connect(self.path, self._mode, busy_s)
        return self._connection

    def _measured(self) -> tuple[int, int]:
        """Return the number of entries and the bytes in use, without waiting for long."""
        if not self._lock.acquire(timeout=_GLANCE_S):  # a lookup waits for another process
            return self._size
        try:
            connection = self._connected(_GLANCE_S)
            try:
                set_busy(connection, _GLANCE_S)
                return _kept_number(connection), used_bytes(connection)
            finally:
                set_busy(connection, _BUSY_S)
        finally:
            self._lock.release()

    def _entry(self, row: Any) -> StoredEntry | None:
        """Return the entry of a row; None for one that cannot be decoded."""
        row_id, digest, run_id, call, content = row
        try:
            value = decode(content, digest)
            run = None if run_id is None else _text(run_id)
        except UnknownValueError:  # of a program that knows more types
            return None
        except Exception:  # noqa: BLE001 - whatever is in the columns
            self._counts.add("corrupt")
            if self._mode == "write":
                self._writer.put([Deletion(digest, row_id)])
            return None
        return StoredEntry(value, run, *_ids(call), len(content))

    def _failed(self, error: Exception, seconds: float) -> None:
        """Count a failed lookup; give up on a damaged file, and where lookups waited too long."""
        self._waited_s += seconds
        if is_damage(error) or self._waited_s > _PATIENCE_S:
            self._counts.unavailable = True
        self._counts.failed("get", error_name(error), str(error))


def _kept_number(connection: sqlite3.Connection) -> int:
    """Return the kept number of entries; count them where that is damaged."""
    ((number, counted),) = connection.execute(
        "SELECT max(entries), max(typeof(entries)) = 'integer' FROM totals"
    )
    if not counted:
        ((number,),) = connection.execute("SELECT count(*) FROM entries")
    return int(number)


@cache
def _select_of(number: int) -> str:
    marks = ", ".join("?" * number)
    return f"{_ENTRY} WHERE e.digest IN ({marks})"


def _row_of(row: Sequence[Any]) -> StoredRow:
    digest, question, identity, run_id, call, nbytes, last_used = row
    if {type(digest), type(question)} != {bytes} or {type(nbytes), type(last_used)} != {int}:
        raise TypeError
    return StoredRow(
        *(digest, question, _text(identity), None if run_id is None else _text(run_id)),
        *(*_ids(call), nbytes, last_used / 1e6),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _ids(call: bytes | None) -> tuple[str | None, str | None]:
    """Return the trace id and the span id of a forward call."""
    if type(call) is not bytes or len(call) != _CALL_SIZE:
        return None, None
    digits = call.hex()
    return digits[:32], digits[32:]
