"""A store in a SQLite file: how it is made, opened, refused, bounded and read."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from forwardscope.errors import StoreError
from forwardscope.store.sqlite import MIN_BYTES, SqliteStore
from forwardscope.store.sqlite_schema import FORMAT

from .entries import new, put, text_of, value_of


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_it(path: Path) -> None:
    """The file, what SQLite keeps beside it, and a new folder are private."""
    before = os.umask(0o022)
    with closing(SqliteStore(path)) as store:
        put(store, new("one"))
        assert _mode(path.parent) == 0o700
        assert {_mode(one) for one in path.parent.iterdir()} == {0o600}
    os.umask(before)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_values_outlive_the_store(filled: Path) -> None:
    """Another store of the same file finds all values, and keeps the counts of the file."""
    with closing(SqliteStore(filled)) as store:
        assert [value_of(store, f"{n}") for n in range(100)] == [
            text_of(f"{n}") for n in range(100)
        ]
        assert store.stats().entries == 100
        assert 100 * 2000 < store.stats().bytes <= filled.stat().st_size
    assert store.stats().entries == 100


@pytest.mark.parametrize("bytes_", [b"no database", b"SQLite format 3\0", os.urandom(8192)])
def test_garbage_is_refused(path: Path, bytes_: bytes) -> None:
    """A file that is no database is an error, and stays as it is."""
    path.parent.mkdir()
    path.write_bytes(bytes_)
    with pytest.raises(StoreError, match=r"store\.db (is no SQLite file|is damaged)"):
        SqliteStore(path)
    assert path.read_bytes() == bytes_


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    """It is an error, and no byte is changed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="database of another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_database_of_views_alone_is_refused(path: Path) -> None:
    """Also where the other program's database has no table, nothing of it is removed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE VIEW mine AS SELECT 1")
    with pytest.raises(StoreError, match="database of another program"):
        SqliteStore(path)
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder or a device is an error that says so."""
    with pytest.raises(StoreError, match="is a folder"):
        SqliteStore(tmp_path)
    with pytest.raises(StoreError, match="no regular file"):
        SqliteStore(Path(os.devnull))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path / "file" / "store.db")


def _edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_newer_format_is_refused(filled: Path) -> None:
    """A store of a newer version is an error with the way out, and is not changed."""
    _edit(filled, f"PRAGMA user_version = {FORMAT + 1}")
    before = filled.read_bytes()
    with pytest.raises(
        StoreError, match=rf"has format {FORMAT + 1}, of a newer forwardscope.*upgrade"
    ):
        SqliteStore(filled)
    assert filled.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        ("PRAGMA user_version = 0",),
        ("DROP TABLE contents",),
        ("CREATE TABLE another (x)", 'CREATE VIEW "an ""odd"" one" AS SELECT 1'),
        ("CREATE TRIGGER evil AFTER DELETE ON contents BEGIN DELETE FROM entries; END",),
    ],
)
def test_an_older_format_is_rebuilt(filled: Path, change: tuple[str, ...]) -> None:
    """A store of an older version, or with other tables, begins anew without entries."""
    _edit(filled, *change)
    with closing(SqliteStore(filled)) as store:
        assert store.stats().entries == 0
        put(store, new("one"))
        assert value_of(store, "one") == 1.5
    with closing(SqliteStore(filled)) as store:
        assert value_of(store, "one") == 1.5


def test_a_link_is_followed(filled: Path, tmp_path: Path) -> None:
    """A link to a store, and one to a place without a file, are the store there."""
    link, dangling = tmp_path / "link.db", tmp_path / "dangling.db"
    link.symlink_to(filled)
    dangling.symlink_to(tmp_path / "new" / "store.db")
    with closing(SqliteStore(link)) as store:
        assert value_of(store, "7") == text_of("7")
    with closing(SqliteStore(dangling)) as store:
        put(store, new("one"))
    assert (tmp_path / "new" / "store.db").is_file()
    assert link.is_symlink()
    assert dangling.is_symlink()


@pytest.mark.parametrize("name", ["a ?mode=ro #%41.db", "λ \udcff.db", "-x.db"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    """Characters that mean something in a URL, and bytes that are no UTF-8, are just a name."""
    with closing(SqliteStore(tmp_path / name)) as store:
        put(store, new("one"))
        assert value_of(store, "one") == 1.5
        assert store.name.isprintable()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_program_that_changes_its_folder(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is of the folder in which the store was opened."""
    monkeypatch.chdir(filled.parent)
    with closing(SqliteStore(Path(filled.name))) as store:
        monkeypatch.chdir("/")
        assert value_of(store, "7") == text_of("7")
        put(store, new("another"))
        assert store.stats().errors == {}


def test_mode_read_changes_nothing(filled: Path) -> None:
    """It finds values, stores none, removes none, and leaves the file as it is."""
    before = filled.read_bytes()
    with closing(SqliteStore(filled, mode="read")) as store:
        put(store, new("7", "another"), new("new"))
        store.delete([new("7").digest])
        assert store.flush(1)
        assert value_of(store, "7") == text_of("7")
        assert value_of(store, "new") is None
        assert store.stats().dropped == 0
    assert filled.read_bytes() == before


def test_what_is_put_meanwhile_is_left_out(path: Path) -> None:
    """Going through a store ends, however fast others write."""
    with closing(SqliteStore(path)) as store:
        put(store, *(new(f"{n}") for n in range(40)))
        for going in (store.contents(), store.scan(), store.scan(oldest_first=True)):
            there = store.stats().entries
            next(going)
            put(store, *(new(f"{there + n}") for n in range(40)))
            assert sum(1 for _ in going) == there - 1


def test_mode_read_of_an_older_format(filled: Path) -> None:
    """There is nothing to read, and it is not rebuilt."""
    _edit(filled, "PRAGMA user_version = 0")
    with pytest.raises(StoreError, match=f"no entries of format {FORMAT} to read"):
        SqliteStore(filled, mode="read")


def test_it_stays_within_its_bound(path: Path) -> None:
    """The least recently used entries are evicted; the file has at most its bound."""
    now = 1000.0
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: now)) as store:
        for n in range(800):
            now += 1
            put(store, new(f"{n}", text_of(f"{n}")))
            assert value_of(store, "0") is not None, n  # used all the time
            assert store.stats().bytes <= MIN_BYTES
        kept = [n for n in range(800) if value_of(store, f"{n}") is not None]
        stats = store.stats()
    assert kept == [0, *range(800 - len(kept) + 1, 800)]
    assert stats.evictions == 800 - len(kept)
    assert stats.entries == len(kept) > 200
    assert path.stat().st_size <= MIN_BYTES * 1.1


def test_the_use_within_one_batch_counts(path: Path) -> None:
    """Entries that are used at one time are evicted in the order of their use."""
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: 1000.0)) as store:
        put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(200)))
    seconds = count(2000)  # a batch is written later than the one before
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: next(seconds))) as store:
        for n in reversed(range(200)):
            value_of(store, f"{n}")
        assert store.flush(30)
        put(store, *(new(f"new {n}", text_of(f"{n}")) for n in range(100)))
        kept = [n for n in range(200) if value_of(store, f"{n}") is not None]
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 200


def test_the_use_of_a_process_that_puts_nothing_counts(path: Path) -> None:
    """It is noted when the store is closed."""
    now = 1000.0
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: now)) as store:
        put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(200)))
    now = 2000.0
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: now)) as store:
        assert all(value_of(store, f"{n}") for n in range(10))
    now = 3000.0
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: now)) as store:
        put(store, *(new(f"new {n}", text_of(f"{n}")) for n in range(150)))
        assert all(value_of(store, f"{n}") for n in range(10))
        assert value_of(store, "10") is None


def test_a_smaller_bound_shrinks_the_file(path: Path) -> None:
    """A store that is opened with a smaller bound gives the space back."""
    with closing(SqliteStore(path)) as store:
        put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(1000)))
    assert path.stat().st_size > 2 * MIN_BYTES
    with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as store:
        put(store, new("one"))
    assert path.stat().st_size <= MIN_BYTES


def test_entries_are_written_during_a_long_eviction(path: Path) -> None:
    """What is put meanwhile does not wait until it ends; flush does."""
    with closing(SqliteStore(path)) as store:
        for start in range(0, 20_000, 1000):
            put(store, *(new(f"{n}") for n in range(start, start + 1000)))
    with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as store:
        store.put_many([new("first")])
        while not store.stats().evictions:
            pass
        store.put_many([new("second")])
        while value_of(store, "second") is None:
            pass
        assert store.stats().bytes > MIN_BYTES
        assert store.flush(60)
        assert store.stats().bytes <= MIN_BYTES
        assert value_of(store, "first") == value_of(store, "second") == 1.5


def test_a_clock_that_is_set_back(path: Path) -> None:
    """Entries of the future count as used now, so that later ones are not evicted first."""
    now = 10_000.0
    with closing(SqliteStore(path, max_bytes=MIN_BYTES, clock=lambda: now)) as store:
        put(store, *(new(f"old {n}", text_of(f"{n}")) for n in range(150)))
        now = 5_000.0
        put(store, *(new(f"new {n}", text_of(f"{n}")) for n in range(300)))
        kept = [n for n in range(300) if value_of(store, f"new {n}") is not None]
        assert max(row.last_used for row in store.scan()) <= now
        assert all(value_of(store, f"old {n}") is None for n in range(100))
    assert kept == list(range(300 - len(kept), 300))


def test_what_is_larger_than_the_store_is_dropped(path: Path) -> None:
    """One value larger than the bound is not stored, and evicts nothing."""
    with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as store:
        put(store, new("small"), new("large", "x" * MIN_BYTES))
        assert value_of(store, "large") is None
        assert value_of(store, "small") == 1.5
        assert (store.stats().dropped, store.stats().evictions) == (1, 0)
    with pytest.raises(ValueError, match="max_bytes must be at least"):
        SqliteStore(path, max_bytes=MIN_BYTES - 1)


def test_more_than_the_queue_holds_is_dropped(path: Path) -> None:
    """Putting returns at once; what does not fit is counted, and the rest is stored."""
    with closing(SqliteStore(path)) as store:
        store.put_many([new(f"{n}", 1.0) for n in range(5000)])
        assert store.flush(30)
        stats = store.stats()
    assert stats.entries + stats.dropped == 5000
    assert stats.entries >= 1024


def test_values_that_cannot_be_stored_are_counted(path: Path) -> None:
    """Unknown types and NaN are not stored; those beside them are."""

    class Odd(str):
        def encode(self, *_: Any) -> bytes:
            raise RuntimeError

    with closing(SqliteStore(path)) as store:
        put(store, new("one"), new("two", object()), new("three", float("nan")), new("four", Odd()))
        stats = store.stats()
    assert (stats.entries, stats.unsupported, stats.dropped) == (1, 3, 0)


def test_a_corrupt_value_is_a_miss_and_deleted(filled: Path) -> None:
    """It is counted once, deleted, and can be stored again; a sound one is found beside it."""
    _edit(filled, "UPDATE contents SET content = zeroblob(2000) WHERE id = 8")
    with closing(SqliteStore(filled)) as store:
        assert value_of(store, "7") is None
        assert store.flush(30)
        assert value_of(store, "7") is None
        assert store.stats().corrupt == 1
        assert store.stats().entries == 99
        assert value_of(store, "8") == text_of("8")
        put(store, new("7"))
        assert value_of(store, "7") == 1.5


def test_values_that_are_exchanged_are_misses(filled: Path) -> None:
    """A sound value in the place of another is never returned."""
    _edit(filled, "UPDATE contents SET id = -id", "UPDATE contents SET id = 101 + id")
    with closing(SqliteStore(filled)) as store:
        assert all(value_of(store, f"{n}") is None for n in range(100))
        assert store.stats().corrupt == 100


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET run_id = x'ff', call = x'00'",
        "UPDATE entries SET run_id = 5, call = 'text', nbytes = 'text'",
        "UPDATE entries SET digest = CAST(digest AS TEXT)",
        "UPDATE contents SET content = CAST(content AS TEXT)",
        "UPDATE contents SET content = NULL WHERE content IS NULL",
    ],
)
def test_odd_columns_never_give_another_value(filled: Path, change: str) -> None:
    """Whatever is in the columns, a lookup gets the value or a miss."""
    _edit(filled, change)
    with closing(SqliteStore(filled)) as store:
        for n in range(100):
            assert value_of(store, f"{n}") in (None, text_of(f"{n}"))
        assert not store.stats().unavailable


def test_prompts_are_not_in_the_file(path: Path) -> None:
    """A store has digests of prompts, never their text."""
    with closing(SqliteStore(path)) as store:
        put(store, new("a very secret prompt", 1.5))
    assert b"secret" not in path.read_bytes()


def test_a_batch_of_any_size(filled: Path) -> None:
    """More digests than SQLite takes at once are found all the same."""
    digests = [new(f"{n}").digest for n in range(5000)]
    with closing(SqliteStore(filled)) as store:
        assert set(store.get_many(digests)) == set(digests[:100])
        assert store.stats().durations["get"].count == 1


def test_operations_are_timed(path: Path) -> None:
    """Lookups and writes are counted by their durations."""
    with closing(SqliteStore(path)) as store:
        put(store, new("one"))
        value_of(store, "one")
        durations = store.stats().durations
    assert durations["get"].count == 1
    assert durations["put"].count >= 1
    assert durations["get"].total > 0


def test_an_interrupted_put_leaves_nothing_for_later(
    filled: Path, at_moment: Callable[..., bool]
) -> None:
    """After Ctrl-C at any moment of a put, flush waits until what was queued is stored."""

    def stop() -> None:
        raise KeyboardInterrupt

    entries = [new(f"new {n}") for n in range(50)]
    digests = [one.digest for one in entries]
    moment, more, stored = 0, True, set()
    while more:
        with closing(SqliteStore(filled)) as store:
            more = at_moment(moment, stop, lambda store=store: store.put_many(entries))
            assert store.flush(30)
            found = store.get_many(digests)
            time.sleep(0.05)
            assert store.get_many(digests).keys() == found.keys()
            stored.add(len(found))
            store.delete(digests)
        moment += 1
    assert stored == {0, 50}


def test_an_interrupt_leaves_no_lock(
    filled: Path, at_moment: Callable[..., bool], in_thread: Callable[..., Any]
) -> None:
    """After Ctrl-C at any moment of a lookup, other threads and this one find values."""

    def stop() -> None:
        raise KeyboardInterrupt

    moment = 0
    more = True
    while more:
        with closing(SqliteStore(filled)) as store:
            more = at_moment(moment, stop, lambda store=store: value_of(store, "7"))
            found = in_thread(lambda store=store: value_of(store, "8")).result(30)
            assert found == text_of("8")
            assert value_of(store, "7") == text_of("7")
            put(store, new("9", "another"))
            assert value_of(store, "9") == "another"
        moment += 1
    assert moment > 20
