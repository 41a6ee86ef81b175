"""Output on streams that are hostile, closed, full, or not UTF-8."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import Result

from forwardscope.cli.terminal import Terminal, plain_warnings
from forwardscope.errors import OutputError
from forwardscope.testing import ScriptedBackend

ESCAPE = "\x1b]0;title\a"
RECORD = {
    "ts": 1.5,
    "probe": "p",
    "view_id": "base",
    "prompt_hash": "a",
    "top_k": 8,
    "op": "o",
    "wall_ms": 1234567.5,
    "hit": False,
}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace of one record."""
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(RECORD) + "\n")
    return path


def program(
    *arguments: object, stdout: int, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the program with another stdout."""
    return subprocess.run(
        [sys.executable, "-m", "forwardscope", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
        check=False,
    )


def test_text_has_no_effect_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes are visible, in plain text, in tables and in warnings; markup is text."""
    table = Table(ESCAPE)
    table.add_row(ESCAPE)
    Terminal().print(f"[bold]{ESCAPE}\nsecond line")
    Terminal().print(table)
    with plain_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"{ESCAPE}\nand more", stacklevel=1)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out.startswith("[bold]\\x1b]0;title\nsecond line\n")
    assert printed.err == "warning: \\x1b]0;title\\x07 and more\n"


def test_a_mistake_in_the_usage_is_printable(invoke: Callable[..., Result]) -> None:
    """The name of a command, an option or an argument can be that of a hostile file."""
    name = f"\u202e{ESCAPE}"
    for arguments in ([name], ["plan", "a", name], ["plan", f"--{name}"], ["plan", name]):
        ran = invoke(*arguments)
        assert ran.exit_code == 2
        assert not {"\x1b", "\u202e"} & set(ran.output)
        assert "title" in ran.stderr


def test_names_of_any_length(
    invoke: Callable[..., Result], suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """Of long names the report has the beginning and the end, and no escapes have effect."""
    name = json.dumps(f"{ESCAPE}{'x' * 100_000}end")
    text = suite_file.read_text().replace("name: first", f"name: {name}")
    suite_file.write_text(f"name: {name}\n{text}")
    ran = invoke("run", suite_file, "--metrics-file", suite_file.with_name("m.prom"))
    assert ran.exit_code == 0
    assert "\x1b" not in ran.output
    assert "…" in ran.stdout
    assert "end" in ran.stdout
    assert len(ran.stdout) < 20_000


@pytest.mark.parametrize("encoding", ["latin1", "ascii"])
def test_an_encoding_without_all_characters(trace: Path, encoding: str) -> None:
    """Characters that the encoding lacks are replaced; the status does not change."""
    ran = program(
        "trace", "summary", trace, stdout=subprocess.PIPE, PYTHONIOENCODING=encoding, COLUMNS="200"
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"1 234 567.5 ms" in ran.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "summary", "FILE"),
        ("trace", "curve", "FILE", "--format", "csv"),
        ("trace", "why", "FILE", "--miss", "1"),
        ("gate", "FILE", "FILE"),
        ("--version",),
    ],
    ids=" ".join,
)
def test_output_without_a_reader(trace: Path, arguments: tuple[str, ...]) -> None:
    """It ends quietly, with the status that it has with a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = program(*(trace if one == "FILE" else one for one in arguments), stdout=writer)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_table_without_a_terminal_has_whole_names(tmp_path: Path) -> None:
    """Where no stream is a terminal, as in CI, a table is as wide as it must be."""
    wide = tmp_path / "wide.jsonl"
    wide.write_text(json.dumps(RECORD | {"probe": "p" * 100, "view_id": "v" * 100}) + "\n")
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "forwardscope", "trace", "summary", wide]
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=variables, check=True, text=True
    )
    assert any("p" * 100 in line and "v" * 100 in line for line in ran.stdout.splitlines())


def test_a_full_disk(trace: Path) -> None:
    """It is an error, since what was asked for is missing."""
    with Path("/dev/full").open("wb") as full:
        ran = program("trace", "summary", trace, "--format", "json", stdout=full.fileno())
    assert ran.returncode == 2
    assert ran.stderr == b"error: the output cannot be written: No space left on device\n"


def test_a_failure_is_an_error_of_the_user() -> None:
    """What prints can tell a full disk from a mistake of its own."""
    with (
        Path("/dev/full").open("w") as full,
        contextlib.redirect_stdout(full),
        pytest.raises(OutputError, match="No space left"),
    ):
        Terminal().print("text")
