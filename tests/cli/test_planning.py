"""`forwardscope plan`: lookups and forward passes of a suite, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]


def test_a_plan_in_a_terminal(invoke: Invoke, suite_file: Path) -> None:
    """Counts by probe and view, shared work, and the sufficient cache size."""
    ran = invoke("plan", suite_file)
    assert (ran.exit_code, ran.stderr) == (0, "")
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert ["second", "ft", "2", "1", "1"] in rows
    assert ["in", "all", "10", "8", "8"] in rows
    assert ["second", "first", "2"] in rows
    assert ran.stdout.endswith(
        "10 lookups cost 8 forward passes with an unbounded cache: a hit rate of 20.0 %\n"
        "max_entries 256 is enough; 3 would be too\n"
    )


def test_a_cache_that_is_too_small(invoke: Invoke, suite_file: Path) -> None:
    """The additional forward passes and the sufficient size are printed."""
    suite_file.write_text(suite_file.read_text() + "cache: {max_entries: 2}\n")
    ran = invoke("plan", suite_file)
    assert ["in", "all", "10", "8", "10"] in [line.split() for line in ran.stdout.splitlines()]
    assert ran.stdout.endswith(
        "max_entries 2 costs 2 more, after 8 evictions; set cache.max_entries to at least 3\n"
    )


def test_a_cache_that_is_off(invoke: Invoke, suite_file: Path) -> None:
    """No cache size is printed."""
    suite_file.write_text(suite_file.read_text() + "cache: {enabled: false}\n")
    ran = invoke("plan", suite_file)
    assert ran.exit_code == 0
    assert "the suite's cache is off" in ran.stdout
    assert "max_entries" not in ran.stdout


@pytest.mark.parametrize("size", [2, 3, 256])
def test_a_run_has_the_planned_counts(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path, size: int
) -> None:
    """Forward passes and evictions are equal, by probe and view, at every cache size."""
    suite_file.write_text(suite_file.read_text() + f"cache: {{max_entries: {size}}}\n")
    planned = json.loads(invoke("plan", suite_file, "--format", "json").stdout)
    path = tmp_path / "r.json"
    invoke("run", suite_file, "--json", path)
    result = json.loads(path.read_text())
    assert len(loaded) == 1
    assert planned["forward_passes"] == result["expected_forward_passes"]
    assert planned["forward_passes_of_cache"] == result["backend_stats"]["forward_passes"]
    assert planned["evictions"] == result["cache"]["evictions"]
    assert [
        (one["probe"], one["view"], one["lookups"], one["forward_passes_of_cache"])
        for one in planned["series"][:-1]
    ] == [
        (one["probe"] or "(outside)", one["view_id"], one["lookups"], one["forward_passes"])
        for one in result["series"]
    ]


def test_markdown(invoke: Invoke, suite_file: Path) -> None:
    """The Markdown has both tables and the summary."""
    text = invoke("plan", suite_file, "--format", "markdown").stdout
    assert "### lookups and forward passes\n\n| probe | view | lookups | passes | at 256 |" in text
    assert "### shared work" in text
    assert text.endswith("max_entries 256 is enough; 3 would be too\n")


def test_errors(error_of: ErrorOf, tmp_path: Path) -> None:
    """The error has the path of a missing or invalid suite."""
    missing, invalid = tmp_path / "nope.yaml", tmp_path / "bad.yaml"
    invalid.write_text("version: 2\n")
    assert error_of("plan", missing).startswith(f"suite file {missing} does not exist")
    assert error_of("plan", invalid).startswith(f"{invalid}:1: ")
