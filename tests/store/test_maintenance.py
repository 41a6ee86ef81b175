"""Looking into a store, checking it and making room."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from forwardscope.errors import StoreError
from forwardscope.store.base import IMPORTED, NewEntry, Store
from forwardscope.store.codec import encode
from forwardscope.store.maintenance import find_identity, prune, remove, usage, verify
from forwardscope.store.sqlite import SqliteStore
from forwardscope.testing import MemoryStore

from .entries import new, put, text_of, value_of
from .writer import Writer, wait_for_entries


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(path)
    yield opened
    opened.close()


def test_the_usage_of_each_identity(store: Store) -> None:
    """Entries, bytes and imported entries are counted by identity, the largest first."""
    store.describe_identity("ft-1", {"weights": "0f"}, model="m", adapter="a", view_family="ft")
    put(store, new("one"), new("two"), new("three", text_of("three"), "ft-1"))
    one = new("four", 1.0, "ft-1")
    put(store, NewEntry(one.digest, one.question, one.identity, 1.0, f"{IMPORTED}run"))
    before = time.time()
    found = usage(store)
    assert list(found) == ["ft-1", "base-1"]
    ft, base = found.values()
    assert (ft.entries, ft.imported, base.entries, base.imported) == (2, 1, 2, 0)
    assert ft.bytes + base.bytes == sum(row.nbytes for row in store.scan())
    assert ft.info is not None
    assert (ft.info.model, ft.info.adapter, base.info) == ("m", "a", None)
    assert before - 60 < ft.last_used <= time.time()


def test_sound_entries(store: Store) -> None:
    """All are sound, and none is used by the check."""
    put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(30)))
    rows, done = list(store.scan()), []
    assert verify(store, done.append) == (30, [])
    assert list(store.scan()) == rows
    assert done == [30]


def _damage(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_damaged_entries(filled: Path) -> None:
    """Exchanged, changed, cut and lost values are found; removing them leaves the others."""
    _damage(
        filled,
        "UPDATE contents SET content = (SELECT content FROM contents WHERE id = 2) WHERE id = 1",
        "UPDATE contents SET content = zeroblob(length(content)) WHERE id = 3",
        "UPDATE contents SET content = substr(content, 1, 40) WHERE id = 4",
        "UPDATE contents SET content = 7 WHERE id = 5",
        "DELETE FROM contents WHERE id = 6",
    )
    with closing(SqliteStore(filled, mode="read")) as store:
        sound, damaged = verify(store)
    assert (sound, set(damaged)) == (95, {new(f"{n}").digest for n in (0, 2, 3, 4, 5)})
    with closing(SqliteStore(filled)) as store:
        assert remove(store, damaged) == 5
        assert verify(store) == (95, [])
        assert store.stats().corrupt == 0


def test_a_value_of_a_newer_program_is_sound(filled: Path) -> None:
    """A value with a checksum that only a program with more types can read is not damaged."""
    body = bytearray(encode(1.5, new("0").digest)[:-16])
    body[4] += 1  # the format
    content = bytes(body) + sha256(new("0").digest + body).digest()[:16]
    with closing(sqlite3.connect(filled, isolation_level=None)) as connection:
        connection.execute("UPDATE contents SET content = ? WHERE id = 1", (content,))
    with closing(SqliteStore(filled, mode="read")) as store:
        assert verify(store) == (100, [])
        assert value_of(store, "0") is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET digest = 7 WHERE id = 50",
        "UPDATE entries SET last_used = 'never' WHERE id = 50",
        "UPDATE entries SET nbytes = 1.5 WHERE id = 50",
        "UPDATE entries SET run_id = 3 WHERE id = 50",
        "UPDATE identities SET identity = x'ff'",
    ],
)
def test_columns_of_other_types(filled: Path, change: str) -> None:
    """Rows that no store writes are one error that says what to do."""
    _damage(filled, change)
    with closing(SqliteStore(filled)) as store:
        for look in (usage, verify, prune):
            with pytest.raises(StoreError, match=r"is damaged .*; remove the file"):
                look(store)


@pytest.mark.parametrize("info", ["{}", "[" * 100_000, '{"model": 1}', "7", b"\xff", 7])
def test_a_damaged_description(filled: Path, info: object) -> None:
    """An identity whose description is damaged is not described."""
    with closing(sqlite3.connect(filled, isolation_level=None)) as connection:
        connection.execute("UPDATE identities SET info = ?", (info,))
    with closing(SqliteStore(filled, mode="read")) as store:
        assert [used.info for used in usage(store).values()] == [None]


def test_unused_entries_are_removed(path: Path) -> None:
    """What was not used since a time goes; of one identity, if one is given."""
    now = 1000.0
    with closing(SqliteStore(path, clock=lambda: now)) as store:
        put(store, new("old"), new("used"), new("old", 2.0, "ft-1"))
        now = 2000.0
        put(store, new("new"))
        assert value_of(store, "used") == 1.5
        assert store.flush(30)
        assert prune(store, unused_since=1500.0, identity="ft-1") == 1
        assert value_of(store, "old") == 1.5
        assert store.flush(30)
        assert prune(store, unused_since=1500.0) == 0
        assert prune(store, unused_since=3000.0) == 3


def test_the_least_recently_used_are_removed(path: Path) -> None:
    """A bound removes entries in the order of their use, few more than needed; the file shrinks."""
    now = 1000.0
    with closing(SqliteStore(path, clock=lambda: now)) as store:
        for start in range(0, 2000, 100):
            now += 1
            put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(start, start + 100)))
        now += 1
        value_of(store, "3")
        assert store.flush(30)
        size = store.stats().bytes
        bound, done = size * 6 // 10, []
        removed = prune(store, max_bytes=bound, progress=done.append)
        assert 0.58 * size < store.stats().bytes <= bound
        kept = {row.digest for row in store.scan()}
        assert done[-1] == removed == 2000 - len(kept)
        assert kept == {new(f"{n}").digest for n in (3, *range(removed + 1, 2000))}
        assert prune(store, max_bytes=bound) == 0
    assert path.stat().st_size <= bound


def test_a_bound_within_one_identity(store: Store) -> None:
    """Entries of other identities stay, however large the store is."""
    put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(50)))
    put(store, *(new(f"{n}", text_of(f"{n}"), "ft-1") for n in range(50)))
    assert prune(store, max_bytes=0, identity="ft-1") == 50
    assert {name: used.entries for name, used in usage(store).items()} == {"base-1": 50}


def test_everything_can_be_removed(store: Store) -> None:
    """No entry and no identity is left, of however many, and new ones are stored."""
    store.describe_identity("base-1", {}, model="m", adapter=None, view_family="base")
    for start in range(0, 3000, 500):
        put(store, *(new(f"{n}") for n in range(start, start + 500)))
    assert prune(store) == 3000
    assert (store.stats().entries, store.identities()) == (0, {})
    put(store, new("one"))
    assert value_of(store, "one") == 1.5


def test_an_identity_by_its_prefix() -> None:
    """A prefix that one identity has is enough; a whole identity is never ambiguous."""
    names = ["aabb", "aabc", "aab", "b" * 64]
    assert find_identity(names, "bb") == "b" * 64
    assert find_identity(names, "aab") == "aab"
    with pytest.raises(StoreError, match=r"3 identities begin with aa: aab, aabb, aabc$"):
        find_identity(names, "aa")
    with pytest.raises(StoreError, match=r"no entries of an identity that begins with c"):
        find_identity(names, "c")
    with pytest.raises(StoreError, match=r"and 95 more$"):
        find_identity([f"a{n}" for n in range(100)], "a")


@pytest.mark.filterwarnings("ignore:the store:RuntimeWarning")
def test_a_store_that_cannot_be_changed(filled: Path) -> None:
    """A failed change is an error at once, and what was not removed is there."""
    with closing(SqliteStore(filled)) as store:
        _damage(
            filled,
            "CREATE TRIGGER no BEFORE DELETE ON entries BEGIN SELECT raise(ABORT, 'no'); END",
        )
        with pytest.raises(StoreError, match="cannot be changed: SQLITE_CONSTRAINT"):
            prune(store)
        assert store.stats().entries == 100


def test_pruning_while_another_process_writes(filled: Path) -> None:
    """What was there is removed, what the other writes is sound, and neither fails."""
    writer = Writer(filled)
    with closing(SqliteStore(filled)) as store:
        wait_for_entries(store, 110)
        assert prune(store, identity="base-1") == 100
        for _ in range(5):
            prune(store, max_bytes=2**17)
            wait_for_entries(store, 70)
        written, errors, corrupt = writer.end()
        sound, damaged = verify(store)
    assert written >= 70
    assert (errors, corrupt, damaged) == (0, 0, [])
    assert 0 < sound <= written
    with closing(sqlite3.connect(filled)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
