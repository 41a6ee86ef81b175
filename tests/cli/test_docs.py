"""README and docs: their calls of the command line are valid, and no command is missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from forwardscope.cli.app import app

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(?:sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CALL = re.compile(r"(?:^|[\s(])forwardscope ((?:[a-z]+ )?[^|&;#`\n]*)")


def _calls() -> Iterator[tuple[str, str]]:
    for page in _PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for call in _CALL.findall(block.replace("\\\n", " ")):
                yield page.name, call.strip()


def _commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *names, name)
        else:
            yield (*names, name), command


_COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("call", sorted(set(_calls())), ids=" ".join)
def test_every_call_is_valid(call: tuple[str, str]) -> None:
    """The command, its options and the number of its arguments exist."""
    words = shlex.split(call[1].partition(" >")[0])
    names = next(tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in _COMMANDS)
    _COMMANDS[names].make_context(" ".join(names), words[len(names) :])


@pytest.mark.parametrize("names", _COMMANDS, ids=" ".join)
def test_every_command_is_documented(names: tuple[str, ...]) -> None:
    """README or docs contain each command."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in _PAGES)
    assert f"forwardscope {' '.join(names)}" in pages
