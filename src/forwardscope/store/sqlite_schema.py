"""The database of a store: what is in it, and how it is opened, made and refused."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from forwardscope.errors import StoreError
from forwardscope.text import shown

__all__ = [
    "FAULTS",
    "FORMAT",
    "Mode",
    "connect",
    "error_name",
    "is_damage",
    "prepare",
    "set_busy",
    "transaction",
]

#: What sqlite3 raises. The second is for a message that quotes a damaged schema.
FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
#: `read` never changes the file.
Mode = Literal["write", "read"]

#: Format of the tables. A newer one is refused, an older one is rebuilt without its entries.
FORMAT: Final = 2
#: "fwsc" in the database's header, so that the files of other programs are recognised.
_APPLICATION_ID: Final = 0x66777363
_MAGIC: Final = b"SQLite format 3\0"
#: Number of pages in the header of a database without tables.
_ONE: Final = (1).to_bytes(4, "big")
_OF_ANOTHER: Final = "the store {} is a database of another program; give the name of another file"
_BUSY_S: Final = 5.0

#: Values are apart from what is known of them, so that a changed time of use rewrites no value.
#: The number of entries is kept, because SQLite would read a whole index to count them.
_SCHEMA: Final = (
    "CREATE TABLE identities (id INTEGER PRIMARY KEY, identity BLOB NOT NULL UNIQUE, info TEXT)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, "
    "question BLOB NOT NULL, identity INTEGER NOT NULL, run_id BLOB, call BLOB, "
    "nbytes INTEGER NOT NULL, last_used INTEGER NOT NULL)",
    "CREATE TABLE contents (id INTEGER PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE INDEX entries_by_use ON entries (last_used)",
    "CREATE INDEX entries_by_question ON entries (question)",
    "CREATE TRIGGER content_of_deleted AFTER DELETE ON entries "
    "BEGIN DELETE FROM contents WHERE id = old.id; END",
    "CREATE TABLE totals (entries INTEGER NOT NULL)",
    "CREATE TRIGGER inserted AFTER INSERT ON entries "
    "BEGIN UPDATE totals SET entries = entries + 1; END",
    "CREATE TRIGGER deleted AFTER DELETE ON entries "
    "BEGIN UPDATE totals SET entries = entries - 1; END",
)


def connect(path: Path, mode: Mode, busy_s: float = _BUSY_S) -> sqlite3.Connection:
    """Open a database that `prepare` has checked.

    Args:
        path: The file.
        mode: Whether it may be changed.
        busy_s: How long an operation waits for other processes.

    Raises:
        sqlite3.Error: It cannot be opened.
        UnicodeDecodeError: Its schema is damaged.
    """
    options = "mode=rw"
    if mode == "read":
        options = "mode=ro" if _may_have_log(path) else "immutable=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = bytes  # a damaged text does not raise
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA journal_size_limit = 16777216")
    except BaseException:
        connection.close()
        raise
    return connection


def set_busy(connection: sqlite3.Connection, busy_s: float) -> None:
    """Change how long an operation waits for other processes."""
    connection.execute(f"PRAGMA busy_timeout = {busy_s * 1000:.0f}")


def prepare(path: Path, mode: Mode) -> None:
    """Check a store's file; make it if it is new, or rebuild it if its format is older.

    Raises:
        StoreError: The file is no store, or has a newer format, or cannot be used.
        OSError: It cannot be read or made.
    """
    name = shown(str(path))
    if path.is_dir():
        raise StoreError(f"the store {name} is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise StoreError(f"the store {name} is no regular file; give the name of another file")
    if mode == "write":
        _make_file(path)
    _check_header(path, name)
    try:
        connection = connect(path, mode)
        try:
            _check_tables(connection, name, mode)
        finally:
            connection.close()
    except FAULTS as error:
        raise StoreError(_reason(name, error)) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Begin a transaction that writes; commit it, or roll it back if the block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back after some errors
            connection.execute("ROLLBACK")
        raise


def error_name(error: BaseException) -> str:
    """Return SQLite's name of an error, such as SQLITE_FULL, or the exception's class."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def is_damage(error: BaseException) -> bool:
    """Return whether an error means that the file is damaged, or no database any more."""
    damage = ("SQLITE_CORRUPT", "SQLITE_NOTADB", UnicodeDecodeError.__name__)
    return error_name(error).startswith(damage)


def _make_file(path: Path) -> None:
    """Make an empty file that only its owner can read, in a folder alike; or leave what exists."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))


def _may_have_log(path: Path) -> bool:
    """Return whether SQLite has to keep files beside the database to read it."""
    log = Path(f"{os.path.realpath(path)}-wal")
    return log.exists() or os.access(log.parent, os.W_OK)


def _check_header(path: Path, name: str) -> None:
    """Check a file without SQLite, which would change the file of another program."""
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        return
    if not header.startswith(_MAGIC):
        raise StoreError(f"the store {name} is no SQLite file; give the name of another file")
    # one page has no table: another process may be making this store
    if header[68:72] not in (_APPLICATION_ID.to_bytes(4, "big"), b"") and header[28:32] != _ONE:
        raise StoreError(_OF_ANOTHER.format(name))


def _check_tables(connection: sqlite3.Connection, name: str, mode: Mode) -> None:
    version = _pragma(connection, "user_version")
    if _is_ours(connection) and version > FORMAT:
        raise StoreError(
            f"the store {name} has format {version}, of a newer forwardscope; this one reads "
            f"format {FORMAT}: upgrade it, or give the name of another file"
        )
    if mode == "read":
        if _is_current(connection):
            return
        raise StoreError(f"the store {name} has no entries of format {FORMAT} to read")
    if not _is_current(connection):
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        with transaction(connection):
            if not _is_current(connection):  # another process may have been faster
                if not _is_ours(connection) and _objects(connection):
                    raise StoreError(_OF_ANOTHER.format(name))
                _make_tables(connection)
    if not _is_current(connection):
        raise StoreError(f"the store {name} cannot be rebuilt; remove the file")
    _switch_to_log(connection)


def _is_ours(connection: sqlite3.Connection) -> bool:
    return _pragma(connection, "application_id") == _APPLICATION_ID


def _is_current(connection: sqlite3.Connection) -> bool:
    if not _is_ours(connection) or _pragma(connection, "user_version") != FORMAT:
        return False
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")
    return {sql for (sql,) in found} == {statement.encode() for statement in _SCHEMA}


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables in place of older ones."""
    for kind, item in _objects(connection):
        if kind in (b"table", b"view"):
            quoted = item.decode().replace('"', '""')
            connection.execute(f'DROP {kind.decode()} IF EXISTS "{quoted}"')
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO totals VALUES (0)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _objects(connection: sqlite3.Connection) -> list[tuple[bytes, bytes]]:
    found = connection.execute("SELECT type, name FROM sqlite_master WHERE sql NOT NULL")
    return found.fetchall()


def _switch_to_log(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; SQLite does not wait for other processes in this step."""
    due = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > due:
                raise
            time.sleep(0.01)
        else:
            return


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _reason(name: str, error: Exception) -> str:
    if is_damage(error):
        return f"the store {name} is damaged ({error}); remove the file, or give another name"
    return f"the store {name} cannot be opened: {error}; give the name of another file"
