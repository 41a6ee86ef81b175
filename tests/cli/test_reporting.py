"""`forwardscope report`, on a run of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]
Files = tuple[Path, Path]


@pytest.fixture
def files(invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path) -> Files:
    """A result, and a trace of its run and an earlier one."""
    result, trace = tmp_path / "r.json", tmp_path / "t.jsonl"
    for _ in range(2):
        assert invoke("run", suite_file, "--json", result, "--trace", trace).exit_code == 0
    assert len(loaded) == 2
    return result, trace


def test_a_report_with_a_trace(invoke: Invoke, files: Files, tmp_path: Path) -> None:
    """The report uses only this run's records of the trace."""
    result, trace = files
    page = tmp_path / "new" / "page.html"
    ran = invoke("report", result, "--trace", trace, "-o", page)
    assert (ran.exit_code, ran.stdout) == (0, f"wrote {page}\n")
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "10 lookups" in text
    assert "Timeline" in text


def test_a_report_without_a_trace(
    invoke: Invoke, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default file is report.html in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert invoke("report", files[0]).exit_code == 0
    assert "use the option --trace FILE" in (tmp_path / "report.html").read_text()


def test_a_report_of_several_runs(invoke: Invoke, files: Files, tmp_path: Path) -> None:
    """Of the traces each run has its own records; a run without some says so."""
    result, trace = files
    other, page = tmp_path / "other.json", tmp_path / "page.html"
    text = result.read_text()
    run_id = json.loads(text)["run_id"]
    other.write_text(text.replace(run_id, "0" * 32))
    ran = invoke("report", result, other, "--trace", trace, "-o", page)
    assert (ran.exit_code, ran.stdout) == (0, f"wrote {page}\n")
    html = page.read_text()
    assert html.count("<article ") == 2
    assert html.count("<h2>Timeline") == html.count("use the option --trace FILE") == 1


def test_errors(error_of: ErrorOf, files: Files) -> None:
    """A trace of another run, an invalid result, and a page that cannot be written."""
    result, trace = files
    lines = trace.read_bytes().splitlines(keepends=True)
    trace.write_bytes(b"".join(lines[: len(lines) // 2]))
    assert "use the trace of that run" in error_of("report", result, "--trace", trace)
    assert error_of("report", trace).startswith(
        f"{trace} is not a result that this version supports"
    )
    assert "cannot be written" in error_of("report", result, "-o", result / "page.html")
