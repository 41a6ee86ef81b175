"""The workflow of docs/integrations.md, whose steps are run with a scripted model."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SUITE = """version: 1
model: {path: some-model, adapter: some-adapter}
probes:
  - {name: first, kind: delta_kl, prompts: [a, b], min_mean: 0.000001}
  - {name: second, kind: delta_kl, prompts: [b, c], min_mean: 0.000001}
"""
#: The steps before the result is uploaded.
STEPS = ["Run the suite", "Show the result", "Decide"]


@pytest.fixture
def workflow(block: Callable[[str, str], str]) -> dict[Any, Any]:
    """The workflow, as GitHub reads it."""
    content: dict[Any, Any] = yaml.safe_load(block("GitHub Actions", "yaml"))
    return content


@pytest.fixture
def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    """The steps of its one job."""
    (job,) = workflow["jobs"].values()
    listed: list[dict[str, Any]] = job["steps"]
    return listed


@pytest.fixture
def job(
    steps: list[dict[str, Any]], programs: Path, tmp_path: Path
) -> Callable[[str], tuple[str | None, Path]]:
    """Run the steps on a suite; return the name of the step that failed, and the folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    commands = {step["name"]: step["run"] for step in steps if "name" in step and "run" in step}
    assert list(commands) == STEPS

    def run(suite: str) -> tuple[str | None, Path]:
        (folder / "suite.yaml").write_text(suite)
        for name, command in commands.items():
            script = f'GITHUB_STEP_SUMMARY="$PWD/summary.md"\n{command}'
            ran = subprocess.run(["bash", "-e", "-c", script], cwd=folder, check=False)  # noqa: S607
            if ran.returncode:
                return name, folder
        return None, folder

    return run


def test_it_is_a_workflow(block: Callable[[str, str], str], tmp_path: Path) -> None:
    """It fits the schema of workflows."""
    file = tmp_path / "probes.yml"
    file.write_text(block("GitHub Actions", "yaml"))
    schema = ("--builtin-schema", "vendor.github-workflows")
    subprocess.run([sys.executable, "-m", "check_jsonschema", *schema, file], check=True)


def test_actions_are_pinned(
    block: Callable[[str, str], str], workflow: dict[Any, Any], steps: list[dict[str, Any]]
) -> None:
    """To a major version; the job has no secret and can write nothing."""
    actions = [step["uses"] for step in steps if "uses" in step]
    assert [action for action in actions if not re.fullmatch(r"actions/[\w/-]+@v\d+", action)] == []
    assert "secrets" not in block("GitHub Actions", "yaml")
    assert workflow["permissions"] == {"contents": "read"}


def test_what_is_kept_exists(
    steps: list[dict[str, Any]], job: Callable[[str], tuple[str | None, Path]]
) -> None:
    """After a job each file that a later step reads is there, and the summary has all tables."""
    failed, folder = job_with_baseline(job)
    assert failed is None
    paths = [path for step in steps for path in step.get("with", {}).get("path", "").split()]
    assert len(paths) == 6
    assert [path for path in paths if not (folder / path).exists()] == []
    summary = (folder / "summary.md").read_text()
    assert "## suite: passed" in summary
    assert "## forwardscope compare" in summary


def test_it_fails_where_something_got_worse(job: Callable[[str], tuple[str | None, Path]]) -> None:
    """A probe that does not pass is for the gate, which knows the baseline; a mistake is not."""
    failed, folder = job_with_baseline(job, SUITE.replace("[b, c]", "[b, raise]"))
    assert failed == "Decide"
    shutil.copy(folder / "result.json", folder / "baseline.json")
    assert job(SUITE.replace("[b, c]", "[b, raise]"))[0] is None
    assert job(SUITE.replace("adapter:", "adaptr:"))[0] == "Run the suite"


def job_with_baseline(
    job: Callable[[str], tuple[str | None, Path]], suite: str = SUITE
) -> tuple[str | None, Path]:
    """Run the steps again, with the result of the first time as the baseline."""
    failed, folder = job(SUITE)
    assert failed == "Show the result"  # without a baseline nothing can be compared
    shutil.copy(folder / "result.json", folder / "baseline.json")
    return job(suite)
