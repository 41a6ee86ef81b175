"""A suite of a small real model as tests of pytest, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_SUITE = """version: 1
model: {{path: {path}, adapter: {adapter}, device: cpu}}
probes:
  - {{name: baseline, kind: null_adapter, runs: 3}}
  - {{name: change, kind: delta_kl, prompts: [the cat, the dog]}}
"""
_TEST = """
import sys

import pytest

assert "torch" not in sys.modules


@pytest.mark.forwardscope("suite.yaml", store="values.db")
def test_adapter(forwardscope_result):
    assert "torch" in sys.modules
    assert forwardscope_result.raw is None or forwardscope_result.raw > 0
"""


@pytest.fixture
def folder(zoo: Any, tmp_path: Path) -> Path:
    """A folder with a suite of a small model, and a test."""
    source = zoo.source("llama_lora")
    text = _SUITE.format(path=source.path, adapter=source.adapter)
    (tmp_path / "suite.yaml").write_text(text)
    (tmp_path / "test_it.py").write_text(_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def _pytest(folder: Path, *arguments: str) -> str:
    plugin = ("-p", "forwardscope.integrations.pytest_plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_a_suite_of_a_real_model(folder: Path) -> None:
    """Collection loads no torch; a second session finds all values in the store."""
    assert "3 tests collected" in _pytest(folder, "--collect-only")
    first, second = (_pytest(folder, "-v") for _ in range(2))
    assert "test_it.py::test_adapter[change] PASSED" in first
    assert "\n0 forward passes paid" not in first
    assert "\n0 forward passes paid" in second
