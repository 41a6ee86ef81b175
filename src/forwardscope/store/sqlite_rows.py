"""Rows of a store's database: how they are written, removed and evicted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from forwardscope.store.base import IdentityInfo, NewEntry
from forwardscope.store.sqlite_schema import transaction

__all__ = ["Change", "Deletion", "Description", "change_rows", "evict", "shrink", "used_bytes"]

#: Entries that one step of an eviction removes.
_STEP: Final = 512
#: Rows dated in the future that one transaction corrects; a million at once would take seconds.
_CORRECTED: Final = 10_000
_STEP_PAGES: Final = 1024
#: An eviction makes so much room, or a twentieth of a small store: some thousand entries.
_ROOM: Final = 16 * 2**20
#: What an entry takes beside its value: keys, indexes, times.
_ENTRY_BYTES: Final = 300


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


#: A change of the rows.
Change = NewEntry | Deletion | Description


def change_rows(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    contents: Mapping[int, bytes],
    used: Sequence[int],
    now: int,
) -> None:
    """Make changes in one transaction, in their order.

    Args:
        connection: The database.
        changes: What to do.
        contents: Encoded values of new entries, by position; those without one are left out.
        used: Rows that were used, in the order of their use.
        now: Microseconds since the epoch.
    """
    latest = dict.fromkeys(reversed(used))
    uses = [(now - number, row) for number, row in enumerate(latest)]
    with transaction(connection):
        # where the clock was set back, entries of the future would never be evicted
        connection.execute(
            "UPDATE entries SET last_used = ? WHERE id IN "
            "(SELECT id FROM entries WHERE last_used > ? LIMIT ?)",
            (now, now, _CORRECTED),
        )
        connection.executemany("UPDATE entries SET last_used = ? WHERE id = ?", uses)
        for position, change in enumerate(changes):
            if isinstance(change, Description):
                _describe(connection, change)
            elif isinstance(change, Deletion):
                _delete(connection, change)
            elif position in contents:
                _insert(connection, change, contents[position], now)


def evict(connection: sqlite3.Connection, max_bytes: int) -> Iterator[int]:
    """Remove the least recently used entries while the store is over its bound.

    Yields:
        The number of entries that a step removed. The caller may stop after any step.
    """
    goal = max_bytes - min(max_bytes // 20, _ROOM)
    if used_bytes(connection) <= max_bytes:
        return
    while (excess := used_bytes(connection) - goal) > 0:
        oldest = connection.execute(  # a size of another type must not end evictions
            "SELECT id, CAST(nbytes AS INTEGER) FROM entries ORDER BY last_used, id LIMIT ?",
            (_STEP,),
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
        yield len(chosen)
    shrink(connection, max_bytes)


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


def _delete(connection: sqlite3.Connection, one: Deletion) -> None:
    if one.id is None:
        connection.execute("DELETE FROM entries WHERE digest = ?", (one.digest,))
    else:
        connection.execute("DELETE FROM entries WHERE id = ? AND digest = ?", (one.id, one.digest))


def _describe(connection: sqlite3.Connection, one: Description) -> None:
    connection.execute(
        "UPDATE identities SET info = ? WHERE id = ?",
        (json.dumps(asdict(one.info)), _identity(connection, one.identity)),
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
