"""The blocks of docs/integrations.md, and the command line with a scripted model as a program."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SCRIPTED = _ROOT / "tests" / "integration" / "servers" / "scripted_cli.py"


@pytest.fixture
def block() -> Callable[[str, str], str]:
    """Return the first block of a language in a section of the page."""

    def find(section: str, language: str) -> str:
        page = (_ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
        _, text = page.split(f"\n## {section}\n")
        found = re.search(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        assert found is not None
        return found[1]

    return find


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program `forwardscope` first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "forwardscope"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_SCRIPTED}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)
    return folder
