"""The size of a store in a SQLite file is read at once, whatever others do with the file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forwardscope.store.sqlite import MIN_BYTES, SqliteStore

from .entries import WAIT_S, new, put, text_of, value_of


def _edit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_the_number_of_entries_is_kept(path: Path) -> None:
    """It is that of the rows, whichever store of the file put, removed or evicted them."""
    with closing(SqliteStore(path)) as one, closing(SqliteStore(path, max_bytes=MIN_BYTES)) as two:
        assert one.stats().entries == 0
        put(one, *(new(f"{n}", 1.5) for n in range(30)))
        put(two, new("3", 2.5), new("more", 2.5))
        two.delete([new("4").digest, new("absent").digest])
        assert two.flush(WAIT_S)
        assert one.stats().entries == two.stats().entries == len(list(one.scan())) == 30
        put(two, *(new(f"{n}", text_of(f"{n}")) for n in range(2000)))
        assert two.stats().evictions > 0
        assert one.stats().entries == two.stats().entries == len(list(one.scan())) < 2000


def test_the_size_is_not_waited_for(filled: Path, in_thread: Callable[..., Any]) -> None:
    """A scrape waits neither for another program that locks the file nor for a lookup that does."""
    with closing(SqliteStore(filled)) as store, closing(sqlite3.connect(filled)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM entries")
        with pytest.warns(RuntimeWarning, match="could not read values"):
            lookup = in_thread(lambda: value_of(store, "7"))
            start = time.monotonic()
            for _ in range(300):
                assert store.stats().entries == 0
            assert time.monotonic() - start < 150  # a lookup waits for a second each time
            lookup.result(WAIT_S)
        other.rollback()
        other.close()
        assert store.stats().entries == 100
        assert value_of(store, "7") == text_of("7")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM totals",
        "UPDATE totals SET entries = 'many'",
        "UPDATE totals SET entries = 9e999",
        "DROP TABLE totals",
    ],
)
def test_a_damaged_number_costs_no_value(filled: Path, change: str) -> None:
    """Where the number is not there, the last one is returned, and values are found."""
    with closing(SqliteStore(filled)) as store:
        before = store.stats()
        _edit(filled, change)
        assert store.stats().entries == before.entries
        assert value_of(store, "7") == text_of("7")


@pytest.mark.parametrize("damage", ["UPDATE totals SET entries = 'abc'", "DELETE FROM totals"])
def test_a_damaged_number(path: Path, damage: str) -> None:
    """Entries are counted where their kept number is damaged."""
    with closing(SqliteStore(path)) as store:
        put(store, new("one"), new("two"))
    _edit(path, damage)
    with closing(SqliteStore(path)) as store:
        assert (store.stats().entries, store.stats().bytes > 0) == (2, True)
