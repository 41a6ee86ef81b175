"""What identifies the code of classes and functions."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from forwardscope.integrations.torch_module_code import CodeIdentity, code_of

_SOURCE = """
FACTOR = 2

class Net:
    def forward(self, x):
        return x * FACTOR
"""
_OTHER = _SOURCE.replace("2", "3")
_PRINT = """
import argparse
from forwardscope.integrations.torch_module_code import code_of
print(code_of(argparse.Namespace))
"""
_numbers = count()


@pytest.fixture
def later() -> CodeIdentity:
    """Identities of a process that begins in a minute."""
    return CodeIdentity(time.time() + 60)


def _load(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a file as a new module; return its class."""
    name = f"code_of_a_test_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module.Net


def test_code_is_identified_by_its_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: CodeIdentity
) -> None:
    """Equal files are one identity, also where another constant alone differs."""
    found = []
    for number, source in enumerate((_SOURCE, _SOURCE, _OTHER)):
        path = tmp_path / f"net{number}.py"
        path.write_text(source)
        found.append(later.of(_load(path, monkeypatch)))
    assert found[0] == found[1] != found[2]


def test_a_file_that_was_edited_after_it_was_loaded_identifies_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: CodeIdentity
) -> None:
    """Code that is still in memory never has the identity of the new file."""
    path = tmp_path / "net.py"
    path.write_text(_SOURCE)
    now = CodeIdentity(time.time() - 3600)
    loaded = _load(path, monkeypatch)
    path.write_text(_OTHER)
    assert now.of(loaded) == now.of(loaded)
    assert now.of(loaded) != later.of(_load(path, monkeypatch))


def test_a_file_with_an_old_time_that_came_later_identifies_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a package manager, `cp -p` or a backup puts in the place of another."""
    path, now = tmp_path / "net.py", CodeIdentity(time.time() - 3600)
    path.write_text(_SOURCE)
    os.utime(path, (0, 0))
    found = {now.of(_load(path, monkeypatch)) for _ in range(2)}
    assert len(found) == 2


def test_processes_agree_on_the_identity_of_a_file_that_is_older_than_they() -> None:
    """So that a store is of use to the next one."""
    ran = subprocess.run([sys.executable, "-c", _PRINT], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == code_of(argparse.Namespace)
