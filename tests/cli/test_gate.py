"""`forwardscope gate`, on runs that the command line made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
Files = dict[str, Path]


@pytest.fixture
def runs(invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path) -> Files:
    """Results and traces of a run, of one like it, and of one with too small a cache."""
    made: Files = {}
    for name, cache in (("good", ""), ("same", ""), ("small", "cache: {max_entries: 2}\n")):
        suite_file.write_text(suite_file.read_text().partition("cache:")[0] + cache)
        result, trace = tmp_path / f"{name}.json", tmp_path / f"{name}.jsonl"
        assert invoke("run", suite_file, "--json", result, "--trace", trace).exit_code == 0
        made |= {f"{name} result": result, f"{name} trace": trace}
    assert len(loaded) == 3
    return made


def test_help_names_every_option(invoke: Invoke) -> None:
    """And the exit statuses."""
    told = invoke("gate", "--help").stdout
    for option in ("--max-more-passes", "--max-hit-rate-drop", "--max-slowdown", "--junit"):
        assert option in told
    assert "with 0 when nothing is worse, 1 when something is, 2 for" in " ".join(told.split())


@pytest.mark.parametrize("kind", ["result", "trace"])
def test_two_runs_of_one_suite_pass(invoke: Invoke, runs: Files, kind: str) -> None:
    """They ask the same and pay the same."""
    told = invoke("gate", runs[f"good {kind}"], runs[f"same {kind}"])
    assert told.exit_code == 0
    assert "nothing is worse: " in told.stdout
    assert "in all" in told.stdout


@pytest.mark.parametrize("before", ["result", "trace"])
@pytest.mark.parametrize("now", ["result", "trace"])
def test_too_small_a_cache_fails(invoke: Invoke, runs: Files, before: str, now: str) -> None:
    """The probe that paid again is named, with its views, and no other."""
    told = invoke("gate", runs[f"good {before}"], runs[f"small {now}"])
    assert told.exit_code == 1
    worse = [line for line in told.stdout.splitlines() if line.startswith("worse: ")]
    assert worse[:-1] == [
        f"worse: second on {view}: 2 forward passes, 1 before; it asked no more, and paid again "
        "for what the cache no longer had"
        for view in ("base", "ft")
    ]
    assert worse[-1].startswith("worse: the hit rate is ")
    assert "worse than the baseline: 3 of " in told.stdout


def test_limits_let_it_pass(invoke: Invoke, runs: Files) -> None:
    """As far as they are told to."""
    both = (runs["good result"], runs["small result"])
    loose = ("--max-more-passes", 1, "--max-hit-rate-drop", 0.5)
    assert invoke("gate", *both, *loose).exit_code == 0
    assert invoke("gate", *both, *loose, "--max-slowdown", 0).exit_code == 1


def test_for_programs(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """JSON has all checks, Markdown what is worse, and JUnit goes into a file of its own."""
    both = (runs["good result"], runs["small result"])
    junit = tmp_path / "new" / "junit.xml"
    told = invoke("gate", *both, "--format", "json", "--junit", junit)
    assert told.exit_code == 1
    said: dict[str, Any] = json.loads(told.stdout)
    assert said["ok"] is False
    failed = [check["name"] for check in said["checks"] if not check["ok"]]
    assert failed == [
        "forward passes of second on base",
        "forward passes of second on ft",
        "hit rate",
    ]
    assert (
        said["compared"][-1]["forward_passes"]
        == said["compared"][-1]["baseline_forward_passes"] + 2
    )
    text = invoke("gate", *both, "--format", "markdown").stdout
    assert text.startswith("## forwardscope gate: worse than the baseline: 3 of ")
    assert "\n| probe | view | lookups | now | passes | now | time | now |\n" in text
    assert 'failures="3"' in junit.read_text()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty: "),
        ("name: x\n", "is no trace: "),
        ('{"schema_version": 99}', "is no result that this version can read: "),
        ('{"schema_version": 1}', "is no result that this version can read: run_id: Field requi"),
        ('{"schema_version": ', "is no result that this version can read: Invalid JSON"),
    ],
)
def test_what_cannot_be_compared(
    invoke: Invoke, runs: Files, tmp_path: Path, content: str, says: str
) -> None:
    """One sentence that names the file, and exit 2, on either side."""
    other = tmp_path / "other"
    other.write_text(content)
    for pair in ((runs["good result"], other), (other, runs["good result"])):
        told = invoke("gate", *pair)
        assert (told.exit_code, told.stdout) == (2, "")
        assert told.stderr.startswith(f"error: {other} {says}")


def test_what_is_not_there(invoke: Invoke, runs: Files, tmp_path: Path) -> None:
    """A file to read, and a place to write to."""
    told = invoke("gate", tmp_path / "nope", runs["good result"])
    assert (told.exit_code, told.stderr) == (
        2,
        f"error: {tmp_path / 'nope'} cannot be read: No such file or directory\n",
    )
    both = (runs["good result"], runs["same result"])
    told = invoke("gate", *both, "--junit", runs["good result"] / "j.xml")
    assert told.exit_code == 2
    assert "cannot be written" in told.stderr
