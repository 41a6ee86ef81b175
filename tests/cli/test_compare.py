"""`forwardscope compare`, on results of the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]


@pytest.fixture
def results(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path
) -> list[Path]:
    """Results of two adapters; the second probe of the second one has another name."""
    files = []
    for adapter, name in (("one", "second"), ("<b>two</b>", "third")):
        suite_file.write_text(suite_file.read_text().replace("name: second", f"name: {name}"))
        files.append(tmp_path / f"{len(files)}.json")
        ran = invoke("run", suite_file, "--adapter", adapter, "--json", files[-1])
        assert ran.exit_code == 0
    assert len(loaded) == 2
    return files


def test_in_a_terminal(invoke: Invoke, results: list[Path]) -> None:
    """All tables, and how the adapters differ; the exit status is 0 whatever differs."""
    ran = invoke("compare", *results)
    assert ran.exit_code == 0
    for title in ("runs", "measured", "changes to A", "cost"):
        assert any(line.strip() == title for line in ran.stdout.splitlines())
    assert "B and A differ in adapter: <b>two</b>, one before" in ran.stdout
    rows = [line.split()[:3] for line in ran.stdout.splitlines()]
    assert ["second", "A", "pass"] in rows
    assert ["second", "B", "not"] in rows
    assert ["third", "A", "not"] in rows


def test_for_programs(invoke: Invoke, results: list[Path]) -> None:
    """JSON has all tables, CSV the probes; both have whole numbers and no sentence."""
    facts = json.loads(invoke("compare", *results, "--format", "json").stdout)
    assert facts.keys() == {"runs", "probes", "changes", "cost", "notes"}
    rows = list(csv.DictReader(invoke("compare", *results, "--format", "csv").stdout.splitlines()))
    assert [row["probe"] for row in rows] == [row["probe"] for row in facts["probes"]]
    assert float(rows[0]["raw"]) == facts["probes"][0]["raw"]


def test_for_people(invoke: Invoke, results: list[Path], tmp_path: Path) -> None:
    """Markdown and HTML have the same tables; a name is no markup in either."""
    markdown = invoke("compare", *results, "--format", "markdown").stdout
    assert "### measured" in markdown
    page = tmp_path / "new" / "compare.html"
    ran = invoke("compare", *results, "-o", page)
    assert (ran.exit_code, ran.stdout) == (0, f"wrote {page}\n")
    text = page.read_text()
    assert text.count("<h1>Comparison of 2 runs</h1>") == 1
    assert "&lt;b&gt;two&lt;/b&gt;" in text
    assert "<b>two</b>" not in text + markdown


@pytest.mark.parametrize(
    ("name", "start"), [("c.md", "## forwardscope"), ("c.json", "{"), ("c.csv", "probe,run,")]
)
def test_a_file_has_the_format_of_its_name(
    invoke: Invoke, results: list[Path], tmp_path: Path, name: str, start: str
) -> None:
    """Without --format the ending decides."""
    assert invoke("compare", *results, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / name).read_text().startswith(start)


def test_mistakes(error_of: ErrorOf, results: list[Path], tmp_path: Path) -> None:
    """One result, a missing one, one that is none, and an output that is an input."""
    assert "needs 2 to 26 results; got 1" in error_of("compare", results[0])
    assert "missing.json" in error_of("compare", results[0], tmp_path / "missing.json")
    (tmp_path / "t.jsonl").write_text("{}\n")
    assert "t.jsonl" in error_of("compare", results[0], tmp_path / "t.jsonl")
    before = results[0].read_text()
    assert error_of("compare", *results, "-o", results[0])
    assert results[0].read_text() == before
