"""The commands that look into a store and change it."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.store.base import NewEntry
from forwardscope.store.keys import entry_digest, question_digest
from forwardscope.store.maintenance import verify
from forwardscope.store.sqlite import SqliteStore

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]

_FT, _BASE, _OTHER = "f7" * 32, "ba5e" * 16, "0123" * 16


def entries(number: int, identity: str) -> list[NewEntry]:
    return [
        NewEntry(
            entry_digest(identity, "op", str(n), 0),
            question_digest("op", str(n), 0),
            identity,
            f"{n}-" * 300,
            "run-1",
        )
        for n in range(number)
    ]


def fill(path: Path, *some: Sequence[NewEntry]) -> None:
    with closing(SqliteStore(path)) as store:
        for identity, adapter, family in ((_BASE, None, "base"), (_FT, "tuned\x1b[2J", "ft")):
            about = {"model": "a-model", "adapter": adapter, "view_family": family}
            store.describe_identity(identity, {"weights": "0f"}, **about)
        for batch in some:
            store.put_many(batch)
            assert store.flush(60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a closed store of 50 values of base, 30 of ft and 20 of an unknown identity."""
    path = tmp_path / "runs.db"
    fill(path, entries(50, _BASE), entries(30, _FT), entries(20, _OTHER))
    return path


def count(path: Path) -> int:
    with closing(SqliteStore(path, mode="read")) as store:
        return store.stats().entries


def damage(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE contents SET content = zeroblob(500) WHERE id IN (3, 4)")


def test_info_by_model_and_identity(invoke: Invoke, path: Path) -> None:
    """Models, views and identities are listed with their entries; no text drives a terminal."""
    before = path.read_bytes()
    shown = invoke("store", "info", path)
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["store", str(path)] in lines
    assert ["entries", "100"] in lines
    assert any(line[:4] == ["a-model", r"tuned\x1b[2J", "ft", "1"] for line in lines)
    assert any(line[:4] == ["unknown", "unknown", "unknown", "1"] for line in lines)
    assert any(line[0] == _BASE[:12] and line[-4] == "50" for line in lines if line)
    assert path.read_bytes() == before


def test_info_as_json(invoke: Invoke, path: Path) -> None:
    """All identities are there with their parts; None where one was not described."""
    found = json.loads(invoke("store", "info", path, "--json").stdout)
    assert (found["store"], found["entries"]) == (str(path), 100)
    by_identity = {one["identity"]: one for one in found["identities"]}
    assert by_identity[_FT]["info"] == {
        "parts": {"weights": "0f"},
        "model": "a-model",
        "adapter": "tuned\x1b[2J",
        "view_family": "ft",
    }
    assert (by_identity[_OTHER]["info"], by_identity[_OTHER]["entries"]) == (None, 20)
    assert sum(one["bytes"] for one in by_identity.values()) <= found["bytes"]


def test_info_of_many_identities(invoke: Invoke, path: Path) -> None:
    """The largest are listed, with the number of the others."""
    fill(path, *(entries(1, f"{n:064x}") for n in range(30)))
    assert "13 identities more; --json has all" in invoke("store", "info", path).stdout


@pytest.mark.parametrize("command", ["info", "verify", "prune --max-bytes 0", "clear --yes"])
def test_no_store(error_of: ErrorOf, tmp_path: Path, command: str) -> None:
    """Where there is none, that is an error, and none is made."""
    name, *options = command.split()
    error = error_of("store", name, tmp_path / "none.db", *options)
    assert error.endswith("none.db cannot be used: there is no such file")
    assert "there is no such file" in error_of("store", "export", tmp_path / "f", tmp_path / "n.db")
    assert list(tmp_path.iterdir()) == []


def test_which_store(
    invoke: Invoke, error_of: ErrorOf, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name it is that of the variable, and else the one in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent))
    monkeypatch.setenv("FORWARDSCOPE_STORE", "")
    default = path.parent / "forwardscope" / "store.db"
    assert str(default) in error_of("store", "info")
    fill(default, entries(7, _BASE))
    assert json.loads(invoke("store", "info", "--json").stdout)["entries"] == 7
    monkeypatch.setenv("FORWARDSCOPE_STORE", str(path))
    assert json.loads(invoke("store", "info", "--json").stdout)["entries"] == 100
    assert json.loads(invoke("store", "info", "default", "--json").stdout)["entries"] == 7
    assert "an unset variable gives none" in error_of("store", "info", "")


def test_a_sound_store(invoke: Invoke, path: Path) -> None:
    """The exit status is 0, and the file is as it was."""
    before = path.read_bytes()
    checked = invoke("store", "verify", path)
    assert (checked.exit_code, checked.stdout) == (0, "100 entries checked, 0 damaged\n")
    assert path.read_bytes() == before


def test_a_damaged_store(invoke: Invoke, path: Path) -> None:
    """Damaged entries give exit status 1, and are removed unless they are to be kept."""
    damage(path)
    kept = invoke("store", "verify", path, "--keep")
    assert (kept.exit_code, kept.stdout) == (1, "100 entries checked, 2 damaged\n")
    assert count(path) == 100
    removed = invoke("store", "verify", path)
    assert removed.exit_code == 1
    assert "the damaged ones are removed" in removed.stdout
    assert invoke("store", "verify", path).stdout == "98 entries checked, 0 damaged\n"


def test_a_damaged_file(error_of: ErrorOf, path: Path) -> None:
    """Where the tables are damaged, one line says what to do."""
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    path.write_bytes(content)
    for command in ("info", "verify"):
        assert "remove the file" in error_of("store", command, path)


def test_pruning(invoke: Invoke, error_of: ErrorOf, path: Path) -> None:
    """Entries go by size, age and identity; the rest is told."""
    pruned = invoke("store", "prune", path, "--identity", _FT[:6])
    assert pruned.stdout.startswith("30 entries removed; 70 left, ")
    assert invoke("store", "prune", path, "--older-than", "1d").stdout.startswith("0 entries ")
    assert invoke("store", "prune", path, "--max-bytes", "100KiB").exit_code == 0
    assert 0 < count(path) < 70
    assert path.stat().st_size <= 100 * 1024
    assert invoke("store", "prune", path, "--older-than", "0m").exit_code == 0
    assert count(path) == 0
    assert error_of("store", "prune", path).startswith("give at least one of --max-bytes")


def test_an_ambiguous_identity(error_of: ErrorOf, path: Path) -> None:
    """Nothing is removed, and the identities are listed."""
    fill(path, entries(1, f"{_FT[:-1]}0"))
    error = error_of("store", "prune", path, "--identity", "f7")
    assert error.startswith("2 identities begin with f7: f7f7")
    assert count(path) == 101


def test_clearing_without_a_terminal(invoke: Invoke, error_of: ErrorOf, path: Path) -> None:
    """It needs --yes; the store is empty then, and stays one."""
    error = error_of("store", "clear", path)
    assert error == "100 entries would be removed; confirm with --yes"
    assert count(path) == 100
    assert invoke("store", "clear", path, "--yes").stdout.startswith("100 entries removed; 0 left")
    assert (count(path), path.stat().st_size < 2**16) == (0, True)


@pytest.mark.parametrize(("answer", "status", "left"), [(b"n\n", 1, 100), (b"y\n", 0, 0)])
def test_clearing_on_a_terminal(path: Path, answer: bytes, status: int, left: int) -> None:
    """It asks, and only yes removes anything."""
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "forwardscope", "store", "clear", str(path)]
        process = subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE)
        os.write(ours, answer)
        _, asked = process.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    assert f"Remove all 100 entries of {path}? [y/N]" in asked.decode()
    assert (process.returncode, count(path)) == (status, left)


def test_clearing_without_standard_input(path: Path) -> None:
    """A process whose standard input is closed needs --yes too."""
    command = 'exec "$0" -m forwardscope store clear "$1" <&-'
    arguments = ["sh", "-c", command, sys.executable, str(path)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (
        2,
        "error: 100 entries would be removed; confirm with --yes\n",
    )


def test_a_store_in_a_file(invoke: Invoke, path: Path, tmp_path: Path) -> None:
    """An export is a private file, and another store takes it in; a second time it has all."""
    file, other = tmp_path / "new" / "values", tmp_path / "other.db"
    before = path.read_bytes()
    assert invoke("store", "export", file, path).stdout == f"100 entries written to {file}\n"
    assert (file.stat().st_mode & 0o777, path.read_bytes()) == (0o600, before)
    taken = invoke("store", "import", file, other)
    assert (taken.exit_code, taken.stdout) == (0, f"100 entries imported into {other}\n")
    again = invoke("store", "import", file, other)
    assert again.stdout == f"0 entries imported into {other}, 100 there already\n"
    assert "imported" in invoke("store", "info", other).stdout
    assert "imported" not in invoke("store", "info", path).stdout


def test_an_export_without_damaged_entries(invoke: Invoke, path: Path, tmp_path: Path) -> None:
    """What is damaged is left out, which the exit status says."""
    damage(path)
    written = invoke("store", "export", tmp_path / "values", path)
    assert (written.exit_code, written.stdout) == (
        1,
        f"98 entries written to {tmp_path / 'values'}; 2 damaged left out\n",
    )


def test_an_export_to_stdout(path: Path, tmp_path: Path) -> None:
    """Nothing else is written there."""
    for target in (tmp_path / "file", "/dev/stdout"):
        command = [sys.executable, "-m", "forwardscope", "store", "export", str(target), str(path)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert ran.stdout == (tmp_path / "file").read_bytes()


def test_places_for_an_export(error_of: ErrorOf, path: Path, tmp_path: Path) -> None:
    """It is not written over the store, nor into a folder."""
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for target in (path, tmp_path / "link"):
        assert "over the input" in error_of("store", "export", target, path)
    for suffix in ("-wal", "-shm"):  # not there while no program has the store open
        target = path.with_name(path.name + suffix)
        assert "belongs to the store" in error_of("store", "export", target, path)
        assert not target.exists()
    assert "it is a folder" in error_of("store", "export", tmp_path, path)
    assert path.read_bytes() == before


def test_files_that_are_no_exports(error_of: ErrorOf, path: Path, tmp_path: Path) -> None:
    """They are one error each, and no store is made."""
    none = tmp_path / "none.db"
    assert "is no file that `forwardscope store export`" in error_of("store", "import", path, none)
    assert "is not a plain file" in error_of("store", "import", tmp_path, none)
    assert "No such file" in error_of("store", "import", tmp_path / "x", none)
    assert "at least 1.0 MiB" in error_of("store", "import", path, none, "--max-bytes", "1KiB")
    assert not none.exists()


def test_a_cut_export(invoke: Invoke, error_of: ErrorOf, path: Path, tmp_path: Path) -> None:
    """The error says how many entries were taken, and these are there."""
    file, other = tmp_path / "values", tmp_path / "other.db"
    invoke("store", "export", file, path)
    file.write_bytes(file.read_bytes()[:-5000])
    error = error_of("store", "import", file, other)
    taken = count(other)
    assert 80 < taken < 100
    assert error.endswith(f"({taken} entries taken)")


def test_the_bound_of_an_import(invoke: Invoke, tmp_path: Path) -> None:
    """What does not fit is evicted, and that is told."""
    path, other, file = tmp_path / "large.db", tmp_path / "other.db", tmp_path / "values"
    fill(path, *(entries(500, f"{n}") for n in range(4)))
    invoke("store", "export", file, path)
    taken = invoke("store", "import", file, other, "--max-bytes", "1MiB")
    evicted = 2000 - count(other)
    assert evicted > 1000
    assert f"{evicted:,} evicted to keep 1.0 MiB".replace(",", "\u202f") in taken.stdout


@pytest.mark.parametrize("command", ["import", "export", "clear"])
def test_interrupts(tmp_path: Path, command: str) -> None:
    """A command that is interrupted leaves a sound store, and no half-written file."""
    path, log, file = (tmp_path / name for name in ("runs.db", "runs.db-wal", "values"))
    fill(path, *(entries(1000, f"{n}") for n in range(10)))
    run = [sys.executable, "-m", "forwardscope", "store"]
    if command == "import":
        subprocess.run([*run, "export", str(file), str(path)], check=True)
        path.unlink()
    arguments = {"import": [str(file)], "export": [str(file)], "clear": ["--yes"]}[command]
    has_begun = {
        "import": lambda: log.exists() and log.stat().st_size > 2**18,
        "export": lambda: any(one.name.startswith(".values") for one in tmp_path.iterdir()),
        "clear": lambda: count(path) < 10_000,
    }[command]
    with subprocess.Popen([*run, command, *arguments, str(path)]) as process:
        while not has_begun():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
    assert process.returncode in (0, 130)  # it may have been faster
    assert {one.name.partition("-")[0] for one in tmp_path.iterdir()} <= {"runs.db", "values"}
    with closing(SqliteStore(path)) as store:
        assert verify(store) == (store.stats().entries, [])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
