"""The hooks for pre-commit, run as pre-commit does: their entry, their arguments, the files."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
SUITE = """version: 1
model: {path: some-model, adapter: some-adapter}
probes:
  - {name: first, kind: delta_kl, prompts: [a, b], min_mean: 0.000001}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hooks() -> dict[str, dict[str, Any]]:
    """The hooks by their ids."""
    listed = yaml.safe_load((_ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    return {hook["id"]: hook for hook in listed}


@pytest.fixture
def run(hooks: dict[str, dict[str, Any]], programs: Path, tmp_path: Path) -> Run:
    """Run a hook with arguments."""

    def call(hook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*shlex.split(hooks[hook]["entry"]), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_the_page_names_the_hooks(
    hooks: dict[str, dict[str, Any]], block: Callable[[str, str], str]
) -> None:
    """Each of them, by its id."""
    (repository,) = yaml.safe_load(block("pre-commit", "yaml"))["repos"]
    assert [hook["id"] for hook in repository["hooks"]] == list(hooks)


def test_the_files_of_the_suite_hook(hooks: dict[str, dict[str, Any]]) -> None:
    """Files in any folder whose names begin with suite."""
    files = ["suite.yaml", "a/b/suite-nightly.yml", "suite.json", "other.yaml", "my_suite.yaml"]
    found = [file for file in files if re.search(hooks["forwardscope-suite"]["files"], file)]
    assert found == files[:2]


def test_the_suite_hook_checks_each_file(run: Run, tmp_path: Path) -> None:
    """All mistakes of all files are reported, with nothing of the plans of others."""
    good, bad = tmp_path / "suite a.yaml", tmp_path / "suite-b.yaml"
    good.write_text(SUITE)
    bad.write_text(SUITE.replace("delta_kl", "delta").replace("adapter:", "adaptr:"))
    passed = run("forwardscope-suite", good.name, good.name)
    assert (passed.returncode, passed.stdout, passed.stderr) == (0, "", "")
    failed = run("forwardscope-suite", bad.name, good.name, "suite-c.yaml")
    assert (failed.returncode, failed.stdout) == (1, "")
    places = [" ".join(line.split()[1:3]) for line in failed.stderr.splitlines()]
    assert places == [
        "suite-b.yaml:2: model.adaptr:",
        "suite-b.yaml:4: probes[0].kind:",
        "suite file",
    ]


def test_the_gate_hook_compares_results(run: Run, programs: Path, tmp_path: Path) -> None:
    """Its arguments are two results, and options of `gate`."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    options = ("run", "suite.yaml", "--quiet", "--json", "result.json")
    subprocess.run([programs / "forwardscope", *options], cwd=tmp_path, check=True)
    files = ("result.json", "result.json")
    assert run("forwardscope-gate", *files).returncode == 0
    worse = run("forwardscope-gate", *files, "--max-slowdown", "0.5")
    assert (worse.returncode, worse.stdout.startswith("worse: ")) == (1, True)
