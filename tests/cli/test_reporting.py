"""`forwardscope report`: the page of a run that the command line made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
Files = tuple[Path, Path]


@pytest.fixture
def made(invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path) -> Files:
    """A result, and a trace that has a run before it too."""
    result, trace = tmp_path / "r.json", tmp_path / "t.jsonl"
    for _ in range(2):
        assert invoke("run", suite_file, "--json", result, "--trace", trace).exit_code == 0
    assert len(loaded) == 2
    return result, trace


def test_a_page_with_a_trace(invoke: Invoke, made: Files, tmp_path: Path) -> None:
    """It takes this run's part of the trace."""
    result, trace = made
    page = tmp_path / "new" / "page.html"
    told = invoke("report", result, "--trace", trace, "-o", page)
    assert (told.exit_code, told.stdout) == (0, f"wrote {page}\n")
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "10 lookups" in text
    assert "Timeline" in text


def test_a_page_without_one(
    invoke: Invoke, made: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is report.html here."""
    monkeypatch.chdir(tmp_path)
    assert invoke("report", made[0]).exit_code == 0
    assert "make the report with --trace FILE" in (tmp_path / "report.html").read_text()


def test_mistakes(invoke: Invoke, made: Files, tmp_path: Path) -> None:
    """A trace of another run, a result that is none, and a place that cannot be written to."""
    result, trace = made
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join(lines[: len(lines) // 2]))
    told = invoke("report", result, "--trace", trace)
    assert told.exit_code == 2
    assert "it is of another run" in " ".join(told.stderr.split())
    told = invoke("report", trace)
    assert told.exit_code == 2
    assert told.stderr.startswith(f"error: {trace} is no result that this version can read: ")
    told = invoke("report", result, "-o", result / "page.html")
    assert told.exit_code == 2
    assert "cannot be written" in told.stderr
