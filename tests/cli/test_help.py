"""The help of every command, and the commands in README and docs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from forwardscope.cli.app import app

Invoke = Callable[..., Result]

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(?:sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"(?:^|[\s(])forwardscope ((?:[a-z]+ )?[^|&;#`\n]*)")


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["run", "--help"], 0), ([], 0), (["nonsense"], 2)]
)
def test_help_without_a_reader(arguments: list[str], status: int) -> None:
    """What has no reader any more is dropped, as `forwardscope --help | true` has it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "forwardscope", *arguments]
        ran = subprocess.run(command, stdout=writing, stderr=writing, check=False)
    finally:
        os.close(writing)
    assert ran.returncode == status


def _commands(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield names, command
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(one, *names, name)


def _calls() -> Iterator[tuple[str, str]]:
    for page in _PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for call in _CALL.findall(block.replace("\\\n", " ")):
                yield page.name, call.strip()


_COMMANDS = dict(_commands(typer.main.get_command(app)))
_LEAVES = {names: one for names, one in _COMMANDS.items() if not hasattr(one, "commands")}


@pytest.mark.parametrize("names", _COMMANDS, ids=" ".join)
def test_help_describes_every_option_and_command(invoke: Invoke, names: tuple[str, ...]) -> None:
    """Each option, argument and subcommand is listed with a description; -h is --help."""
    command = _COMMANDS[names]
    shown = invoke(*names, "--help")
    assert shown.exit_code == 0
    assert invoke(*names, "-h").stdout == shown.stdout
    assert [one.name for one in command.params if not one.help] == []
    options = [option for one in command.params for option in one.opts if option.startswith("-")]
    listed = [*options, "--help", *getattr(command, "commands", ())]
    assert [one for one in listed if one not in shown.stdout] == []


@pytest.mark.parametrize("names", _COMMANDS, ids=" ".join)
def test_lines_of_help_fit_80_columns(names: tuple[str, ...]) -> None:
    """A paragraph of several lines keeps them, so none is longer than a terminal has room for."""
    paragraphs = (_COMMANDS[names].help or "").split("\n\n")[1:]
    lines = [line for one in paragraphs if "\n" in one for line in one.splitlines()]
    assert [line for line in lines if len(line) > 78] == []


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("run", "Exit status: 0 when every probe passes or is skipped, 1 when a probe fails"),
        ("demo", "Exit status: 0 when the run ends and its counts reconcile"),
        ("plan", "Exit status: 0, or 2 for a mistake in the suite"),
        ("gate", "Exit status: 0 when nothing is worse, 1 when something is, 2 when the files"),
        ("trace why", "Exit status: 0, or 2 when there is no such miss"),
        ("trace export", "Exit status: 0 when all spans are exported, 1 when some are not"),
        ("dashboards check", "Exit status: 0 when everything is exported, 1 when something is"),
        ("store verify", "Exit status: 0 when all entries are sound, 1 when some are damaged"),
        ("store export", "Exit status: 0; 1 when damaged entries were left out"),
    ],
)
def test_help_states_the_exit_status(invoke: Invoke, command: str, status: str) -> None:
    """The commands whose status is a result say what each value means."""
    assert status in " ".join(invoke(*command.split(), "--help").stdout.split())


@pytest.mark.parametrize("call", sorted(set(_calls())), ids=" ".join)
def test_every_documented_call_is_valid(call: tuple[str, str]) -> None:
    """The command, its options and the number of its arguments exist."""
    words = shlex.split(call[1].partition(" >")[0])
    names = next(tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in _LEAVES)
    _LEAVES[names].make_context(" ".join(names), words[len(names) :])


@pytest.mark.parametrize("names", _LEAVES, ids=" ".join)
def test_every_command_is_documented(names: tuple[str, ...]) -> None:
    """README or docs contain each command."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in _PAGES)
    assert f"forwardscope {' '.join(names)}" in pages
