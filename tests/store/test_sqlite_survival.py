"""A store that is killed, shared, damaged or without room.

`FORWARDSCOPE_SOAK=1` kills it 200 times, in place of 20, and shares it for a minute.
"""

from __future__ import annotations

import math
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from forwardscope.errors import StoreError
from forwardscope.store.sqlite import MIN_BYTES, SqliteStore

from .entries import new, put, text_of, value_of

pytestmark = pytest.mark.timeout(900)

_SOAK = "FORWARDSCOPE_SOAK" in os.environ
_KILLS = 200 if _SOAK else 20
_SHARED_S = 60 if _SOAK else 6

_PROGRAM = """
import random, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from entries import new, text_of, value_of
from forwardscope.store.sqlite import SqliteStore

path, seconds, seed = Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
store = SqliteStore(path, max_bytes=2**20)
print("ready", flush=True)
end, found, wrong = time.monotonic() + seconds, 0, 0
while time.monotonic() < end:
    prompt = str(random.randrange(600))
    value = value_of(store, prompt)
    if value is None:
        store.put_many([new(prompt, text_of(prompt))])
    else:
        found += 1
        wrong += value != text_of(prompt)
    if random.random() < 0.02:
        store.delete([new(prompt).digest])
store.close()
stats = store.stats()
print(found, wrong, stats.corrupt, sum(stats.errors.values()), stats.evictions, flush=True)
"""


def _start(path: Path, seconds: float, seed: int) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", _PROGRAM, here, str(path), str(seconds), str(seed)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def _is_sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        orphans = (
            "SELECT count(*) FROM entries FULL JOIN contents USING (id) "
            "WHERE digest IS NULL OR content IS NULL"
        )
        if sqlite3.sqlite_version_info < (3, 39):  # without FULL JOIN
            orphans = orphans.replace("FULL", "LEFT")
        return [
            connection.execute("PRAGMA integrity_check").fetchone()[0],
            connection.execute(orphans).fetchone()[0],
        ] == ["ok", 0]


def test_a_killed_process_leaves_a_sound_store(path: Path) -> None:
    """Killed at any moment of writing and evicting, it loses entries and never gives a wrong one.

    The later processes use the file that the earlier ones left.
    """
    path.parent.mkdir()
    chance = random.Random(1)  # noqa: S311
    for number in range(_KILLS):
        process = _start(path, 60, number)
        with process:
            assert process.stdout is not None
            if number:  # the first may be killed while it makes the file
                assert process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
        if not number:  # they may be too slow to store anything
            with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as store:
                put(store, *(new(f"{n}", text_of(f"{n}")) for n in range(20)))
    with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as store:
        values = {f"{n}": value_of(store, f"{n}") for n in range(600)}
        stats = store.stats()
    found = {prompt: value for prompt, value in values.items() if value is not None}
    assert found == {prompt: text_of(prompt) for prompt in found}
    assert found  # how many depends on the speed of the machine
    assert (stats.corrupt, stats.errors) == (0, {})
    assert _is_sound(path)


def test_many_processes_share_a_file(path: Path) -> None:
    """Processes that make one new file at once, and put, find and evict, get right values."""
    processes = [_start(path, _SHARED_S, seed) for seed in range(8)]
    results = []
    for process in processes:
        with process:
            output, _ = process.communicate(timeout=_SHARED_S + 800)
            assert process.returncode == 0
            results.append([int(number) for number in output.split()[1:]])
    found, wrong, corrupt, errors, evictions = map(sum, zip(*results, strict=True))
    assert (wrong, corrupt, errors) == (0, 0, 0)
    assert found > 0  # how many depends on the speed of the machine
    assert evictions > 0
    assert _is_sound(path)
    assert path.stat().st_size < 2 * MIN_BYTES


@contextmanager
def _file_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_entries_alone(filled: Path) -> None:
    """Entries that do not fit are dropped and counted, one warning is given, others are found."""
    with closing(SqliteStore(filled)) as store:
        with (
            pytest.warns(
                RuntimeWarning, match=r"could not write values .*the run goes on"
            ) as warned,
            _file_limit(filled.stat().st_size // 2),
        ):
            for n in range(100, 110):
                put(store, *(new(f"{n} {m}", text_of(f"{n}")) for m in range(50)))
            assert value_of(store, "7") == text_of("7")
        stats = store.stats()
        assert len(warned) == 1
        assert stats.dropped > 0
        assert sum(stats.errors.values()) > 0
        assert {operation for operation, _ in stats.errors} == {"put"}
        assert not stats.unavailable
        put(store, new("later"))
        assert value_of(store, "later") == 1.5
    assert _is_sound(filled)


def test_a_full_disk_at_the_start(path: Path) -> None:
    """A store that cannot be made is an error before any work."""
    with _file_limit(1024), pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(path)


def test_a_locked_database_costs_a_bounded_time(filled: Path) -> None:
    """While another program holds the database, lookups are misses; soon none is tried."""
    with closing(SqliteStore(filled)) as store, closing(sqlite3.connect(filled)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        with pytest.warns(RuntimeWarning, match="could not") as warned:
            other.execute("BEGIN EXCLUSIVE")
            other.execute("DELETE FROM contents")
            store.put_many([new("one")])
            start = time.monotonic()
            for _ in range(1000):
                assert value_of(store, "7") in (None, text_of("7"))
            assert time.monotonic() - start < 300  # each that is tried waits for a second
            assert not store.flush(0.1)
            other.rollback()
            assert store.flush(30)
        assert len(warned) == 1


def _copies(filled: Path) -> Iterator[tuple[int, Path, bytearray]]:
    """Yield positions in all pages of a database, and what to change there."""
    good = filled.read_bytes()
    chance = random.Random(2)  # noqa: S311
    page = 4096
    for start in range(0, len(good), page):
        places = {*range(0, 12, 3 if _SOAK else 5)}
        places |= {chance.randrange(page) for _ in range(40 if _SOAK else 3)}
        if start == 0:
            places |= {*range(0, 100, 1 if _SOAK else 7)}
        for place in sorted(places):
            yield start + place, filled.with_name("damaged.db"), bytearray(good)


@pytest.mark.filterwarnings("ignore:the store .* could not:RuntimeWarning")
def test_damage_never_gives_a_wrong_value(filled: Path) -> None:
    """With a flipped bit in any page, each lookup gets the value or a miss; or opening fails."""
    outcomes = {"refused": 0, "all": 0, "some": 0}
    for position, damaged, content in _copies(filled):
        content[position] ^= 1 << position % 8
        damaged.write_bytes(content)
        try:
            store = SqliteStore(damaged)
        except StoreError:
            outcomes["refused"] += 1
            continue
        with closing(store):
            values = {f"{n}": value_of(store, f"{n}") for n in range(100)}
            store.put_many([new("one"), new("7", "another")])
            store.flush(30)
            assert value_of(store, "one") in (None, 1.5)
            assert value_of(store, "7") in (None, text_of("7"), "another")
            store.stats()
        found = {prompt: value for prompt, value in values.items() if value is not None}
        assert found == {prompt: text_of(prompt) for prompt in found}, position
        outcomes["all" if len(found) == 100 else "some"] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.filterwarnings("ignore:the store .* could not:RuntimeWarning")
def test_a_cut_file_never_gives_a_wrong_value(filled: Path) -> None:
    """A file that lost its end is refused, or gives what is left."""
    good = filled.read_bytes()
    for size in range(0, len(good), len(good) // 37):
        filled.write_bytes(good[:size])
        try:
            store = SqliteStore(filled)
        except StoreError:
            continue
        with closing(store):
            for n in range(100):
                assert value_of(store, f"{n}") in (None, text_of(f"{n}"))


def test_damage_that_comes_later(filled: Path) -> None:
    """The run goes on with misses, one warning says that the store is not used any more."""
    with closing(SqliteStore(filled)) as store:
        assert value_of(store, "7") == text_of("7")
        content = filled.read_bytes()
        filled.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
        with pytest.warns(RuntimeWarning, match="it is not used any more") as warned:
            for n in range(100):
                value_of(store, f"{n}")
        assert len(warned) == 1
        store.put_many([new("one")])
        stats = store.stats()
    assert stats.unavailable
    assert stats.dropped == 1
    assert ("get", "SQLITE_CORRUPT") in stats.errors


def test_a_schema_that_is_no_text(filled: Path) -> None:
    """A schema whose damage makes SQLite's message no UTF-8 is damage like any other."""
    with closing(SqliteStore(filled)) as store:
        content = filled.read_bytes()
        filled.write_bytes(content.replace(b"CREATE TABLE contents", b"CREATE \xf4ABLE contents"))
        with pytest.raises(StoreError, match="is damaged"):
            SqliteStore(filled)
        with pytest.raises(StoreError, match="cannot be read"):
            list(store.scan())
        store.stats()
        with pytest.warns(RuntimeWarning, match="it is not used any more"):
            assert value_of(store, "7") is None
        assert store.stats().unavailable


def test_a_file_that_is_removed(filled: Path) -> None:
    """Removing the file under a store raises nothing."""
    with closing(SqliteStore(filled)) as store:
        filled.unlink()
        with pytest.warns(RuntimeWarning, match="could not"):
            assert value_of(store, "7") is None
            put(store, new("one"))


_forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@_forks
def test_a_forked_child_has_a_connection_of_its_own(
    filled: Path, in_child: Callable[[Callable[[], object]], None]
) -> None:
    """Parent and child find and store values, also where the parent had some queued."""

    def child() -> None:
        assert value_of(store, "7") == text_of("7")
        put(store, new("child"))
        assert value_of(store, "child") == 1.5
        store.close()

    with closing(SqliteStore(filled)) as store:
        value_of(store, "7")
        store.put_many([new(f"parent {n}") for n in range(200)])
        in_child(child)
        assert store.flush(30)
        assert value_of(store, "child") == 1.5
        assert all(value_of(store, f"parent {n}") == 1.5 for n in range(200))
    assert _is_sound(filled)


@_forks
def test_a_parent_that_closes_leaves_its_child_the_log(
    filled: Path,
    in_child: Callable[[Callable[[], object]], None],
    in_thread: Callable[[Callable[[], Any]], Any],
) -> None:
    """What a child stores after its parent closed the store is found by others at once."""
    is_used, used = os.pipe()
    is_closed, closed = os.pipe()

    def child() -> None:
        put(store, new("before"))
        os.write(used, b"!")
        os.read(is_closed, 1)
        put(store, new("child"))
        with closing(SqliteStore(filled)) as other:
            assert value_of(other, "child") == 1.5

    def close() -> None:
        os.read(is_used, 1)
        store.close()
        os.write(closed, b"!")

    store = SqliteStore(filled)
    put(store, new("parent"))
    value_of(store, "7")
    closer = in_thread(close)
    in_child(child)
    closer.result(60)
    for end in (is_used, used, is_closed, closed):
        os.close(end)
    assert _is_sound(filled)


@_forks
def test_threads_that_fork_at_once(
    filled: Path,
    in_child: Callable[[Callable[[], object]], None],
    in_thread: Callable[[Callable[[], Any]], Any],
) -> None:
    """A fork that could not keep threads out of SQLite takes no lock from another's fork."""
    with closing(SqliteStore(filled)) as store:
        store.pause()  # as a fork that lasts does
        in_thread(lambda: in_child(lambda: value_of(store, "7"))).result(60)
        store.resume()
        assert in_thread(lambda: value_of(store, "7")).result(60) == text_of("7")


@_forks
@pytest.mark.no_cover
def test_forks_while_threads_work(
    filled: Path,
    in_child: Callable[[Callable[[], object]], None],
    in_thread: Callable[[Callable[[], Any]], Any],
) -> None:
    """A fork while other threads read and write leaves no lock held in the child."""
    ended = False

    def work() -> None:
        n = 0
        while not ended:
            n += 1
            value_of(store, f"{n % 100}")
            store.put_many([new(f"thread {n % 50}", text_of("x"))])

    def child() -> None:
        assert value_of(store, "7") == text_of("7")
        put(store, new("child"))
        assert value_of(store, "child") == 1.5

    with closing(SqliteStore(filled)) as store:
        threads = [in_thread(work) for _ in range(2)]
        for _ in range(100 if _SOAK else 15):
            in_child(child)
        ended = True
        for thread in threads:
            thread.result(60)
    assert _is_sound(filled)


def test_a_program_that_forgets_to_close(path: Path) -> None:
    """What is queued is stored when the program ends, and ends it without a warning."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from entries import new\n"
        "from forwardscope.store.sqlite import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[2]))\n"
        "store.put_many([new(str(n)) for n in range(500)])\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with closing(SqliteStore(path)) as store:
        assert store.stats().entries == 500


@pytest.mark.parametrize("nbytes", ["big", b"\0", math.inf, -math.inf])
def test_an_odd_size_of_a_row_does_not_end_the_bound(path: Path, nbytes: object) -> None:
    """A store whose rows give sizes of other types is still kept within its bound."""
    with closing(SqliteStore(path, max_bytes=MIN_BYTES)) as store:
        put(store, new("odd"))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE entries SET nbytes = ?", (nbytes,))
        put(store, *(new(str(number), text_of(str(number))) for number in range(800)))
        stats = store.stats()
        assert stats.evictions > 0
        assert stats.bytes <= MIN_BYTES


@pytest.mark.skipif(not _SOAK, reason="takes minutes")
def test_a_million_entries(path: Path) -> None:
    """A large store opens, finds, counts and evicts; its times are printed, not asserted."""
    number = 1_000_000
    with closing(SqliteStore(path)) as store:
        for start in range(0, number, 1000):
            put(store, *(new(f"{n}", float(n)) for n in range(start, start + 1000)))
        size = store.stats().bytes
    chance = random.Random(3)  # noqa: S311
    wanted = [chance.randrange(number // 2, number) for _ in range(10_000)]
    times = {"open": -time.perf_counter()}
    with closing(SqliteStore(path, max_bytes=size // 2)) as store:
        times["open"] += time.perf_counter()
        times["10,000 lookups"] = -time.perf_counter()
        assert all(value_of(store, f"{n}") == n for n in wanted)
        times["10,000 lookups"] += time.perf_counter()
        times["count"] = -time.perf_counter()
        assert store.stats().entries == number
        times["count"] += time.perf_counter()
        times["evict"] = -time.perf_counter()
        put(store, new("one more"), timeout_s=600)
        times["evict"] += time.perf_counter()
        stats = store.stats()
        assert stats.entries + stats.evictions == number + 1
        assert stats.bytes <= size // 2
        assert all(value_of(store, f"{n}") == n for n in wanted)
        assert value_of(store, "0") is None
    shown = [f"{what} {seconds:.4f} s" for what, seconds in times.items()]
    print(*shown, f"{stats.evictions} evicted", f"{size} bytes", sep=", ")  # noqa: T201 - soak
