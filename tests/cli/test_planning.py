"""`forwardscope plan`: what a suite would ask, told without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]


def test_a_plan_in_a_terminal(invoke: Invoke, suite_file: Path) -> None:
    """By probe and view, what is shared, and what size is enough."""
    told = invoke("plan", suite_file)
    assert (told.exit_code, told.stderr) == (0, "")
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["second", "ft", "2", "1", "1"] in rows
    assert ["in", "all", "10", "8", "8"] in rows
    assert ["second", "first", "2"] in rows
    assert told.stdout.endswith(
        "10 lookups of 8 distinct questions: as many forward passes where nothing is evicted, "
        "a hit rate of 20.0 %\n"
        "max_entries 256 is enough; so would be 3\n"
    )


def test_too_small_a_cache(invoke: Invoke, suite_file: Path) -> None:
    """What it pays more is told, and the number to configure."""
    suite_file.write_text(suite_file.read_text() + "cache: {max_entries: 2}\n")
    told = invoke("plan", suite_file)
    assert ["in", "all", "10", "8", "10"] in [line.split() for line in told.stdout.splitlines()]
    assert told.stdout.endswith(
        "with max_entries 2 it pays 2 more: 8 evictions; set cache.max_entries to at least 3\n"
    )


def test_a_cache_that_is_off(invoke: Invoke, suite_file: Path) -> None:
    """There is no size to talk of."""
    suite_file.write_text(suite_file.read_text() + "cache: {enabled: false}\n")
    told = invoke("plan", suite_file)
    assert told.exit_code == 0
    assert "the suite's cache is off" in told.stdout
    assert "max_entries" not in told.stdout


@pytest.mark.parametrize("size", [2, 3, 256])
def test_a_plan_is_what_the_run_then_does(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path, size: int
) -> None:
    """Pass for pass, by probe and view, at the suite's own size."""
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
    """Two tables and the same sentences."""
    text = invoke("plan", suite_file, "--format", "markdown").stdout
    assert "### what it would ask\n\n| probe | view | lookups | passes | at 256 |" in text
    assert "### shared work" in text
    assert text.endswith("max_entries 256 is enough; so would be 3\n")


def test_mistakes_exit_with_2(invoke: Invoke, tmp_path: Path) -> None:
    """A suite that is not there, and one that is none."""
    assert invoke("plan", tmp_path / "nope.yaml").exit_code == 2
    (tmp_path / "bad.yaml").write_text("version: 2\n")
    told = invoke("plan", tmp_path / "bad.yaml")
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: {tmp_path / 'bad.yaml'}:1: ")


def test_help_says_what_is_assumed(invoke: Invoke) -> None:
    """And how it exits."""
    text = " ".join(invoke("plan", "--help").stdout.split())
    assert "without a model" in text
    assert "plain LoRA adapter" in text
    assert "Exits with 0, or 2" in text
