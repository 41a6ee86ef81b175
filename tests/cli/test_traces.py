"""`forwardscope trace`: what it prints, and how it takes bad files."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope import TraceEvent
from forwardscope.trace.reader import MAX_LINE_BYTES
from forwardscope.trace.writer import line_of

Invoke = Callable[..., Result]

_PEER = Path(__file__).parents[1] / "data" / "dlm_sway_trace.jsonl"
_PASS = TraceEvent(1.0, "p", "base", "aaf4c61ddcc5", 8, "next_token_dist", 100.0, False)
_HIT = TraceEvent(2.0, "p", "base", "aaf4c61ddcc5", 8, "next_token_dist", 0.1, True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "trace.jsonl"
    file.write_bytes(line_of(_PASS) + line_of(_HIT))
    return file


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ([], ["summary", "curve", "why", "export"]),
        (["summary"], ["FILE", "--format", "json", "markdown", "csv", "--help"]),
        (["curve"], ["FILE", "--plot", "--format", "--help"]),
        (["why"], ["FILE", "--miss", "--prompt-hash", "--format", "--help"]),
        (["export"], ["FILE", "--otlp", "--otlp-protocol", "--help"]),
    ],
    ids=["trace", "summary", "curve", "why", "export"],
)
def test_help_names_every_option(invoke: Invoke, command: list[str], options: list[str]) -> None:
    """Each command says what it takes."""
    told = invoke("trace", *command, "--help")
    assert told.exit_code == 0
    assert [option for option in options if option not in told.stdout] == []


def test_summary_in_a_terminal(invoke: Invoke) -> None:
    """Totals, each grouping, the slowest and the most repeated, of a trace of the peer."""
    told = invoke("trace", "summary", _PEER)
    assert (told.exit_code, told.stderr) == (0, "")
    for title in ("by probe", "by view", "by op", "slowest passes", "most repeated prompts"):
        assert f"\n{title}" in told.stdout
    (total,) = (line for line in told.stdout.splitlines() if line.split()[:1] == ["114"])
    assert total.split() == ["114", "39", "75", "34.2", "%", "26.9", "s", "11.1", "s"]
    assert "75 distinct questions" in told.stdout
    assert "coalesced" not in told.stdout  # there was none, nor a failure


def test_summary_as_json(invoke: Invoke) -> None:
    """The same as numbers."""
    said = json.loads(invoke("trace", "summary", _PEER, "--format", "json").stdout)
    assert (said["skipped_lines"], said["questions"]) == (0, 75)
    (total,) = said["total"]
    assert (total["lookups"], total["hits"], total["coalesced"]) == (114, 39, 0)
    assert sum(one["saved_s"] for one in said["by_view"]) == pytest.approx(total["saved_s"])
    assert said["slowest"][0]["wall_ms"] > said["slowest"][1]["wall_ms"]
    assert said["most_asked"][0] == {
        "prompt_hash": "678c96338602",
        "lookups": 20,
        "forward_passes": 11,
    }


def test_summary_as_csv(invoke: Invoke) -> None:
    """One table of counts, each row with what it counts."""
    text = invoke("trace", "summary", _PEER, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["by"] for row in rows} == {"total", "probe", "view", "op"}
    for by in ("total", "probe", "view", "op"):
        assert sum(int(row["lookups"]) for row in rows if row["by"] == by) == 114


def test_summary_as_markdown(invoke: Invoke, tmp_path: Path) -> None:
    """Tables that a pull request shows; a name cannot become markup."""
    hostile = tmp_path / "t.jsonl"
    hostile.write_bytes(line_of(TraceEvent(1, "<b>|*x*\n", "base", "a", 8, "op", 1, False)))
    text = invoke("trace", "summary", hostile, "--format", "markdown").stdout
    assert "### by probe\n\n| probe | lookups |" in text
    assert "| \\<b\\>\\|\\*x\\*� | 1 |" in text


def test_several_files_are_one(invoke: Invoke, path: Path) -> None:
    """Their records are summed as if they stood in one."""
    said = json.loads(invoke("trace", "summary", path, _PEER, path, "--format", "json").stdout)
    assert said["total"][0]["lookups"] == 114 + 4


@pytest.mark.parametrize("command", ["summary", "curve", "why"])
def test_a_pipe_is_a_stream(invoke: Invoke, path: Path, command: str) -> None:
    """What needs one reading takes it; what needs two says so."""
    read, write = os.pipe()
    os.write(write, path.read_bytes())
    os.close(write)
    options = ["--miss", 1] if command == "why" else ["--format", "json"]
    told = invoke("trace", command, f"/dev/fd/{read}", *options)
    os.close(read)
    if command == "why":
        assert told.exit_code == 2
        assert "is no plain file, and is read more than once" in told.stderr
    else:
        assert told.exit_code == 0
        said = json.loads(told.stdout)
        assert (said["total"][0] if command == "summary" else said)["lookups"] == 2


def test_torn_lines_are_told(invoke: Invoke, path: Path) -> None:
    """On stderr, with their number; the others count."""
    path.write_bytes(path.read_bytes() + b"{torn\n" + line_of(_HIT)[:40])
    told = invoke("trace", "summary", path, "--format", "json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["skipped_lines"] == 2
    assert told.stderr == "2 lines are torn, or no record, and not counted\n"


@pytest.mark.parametrize("command", ["summary", "curve"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty: nothing was asked, or it was traced elsewhere"),
        (b"\n\n", "is empty"),
        (b'{"a": 1}\n', "is no trace: its one line is no JSON object with ts, probe,"),
        (b"a,b\n1,2\n", "is no trace: of its 2 lines is none a JSON object with ts, probe,"),
        (b"x" * (MAX_LINE_BYTES * 3), "is no trace: its one line is no JSON object"),
        (b"\x89PNG\r\n\x1a\n" * 9, "is no trace: of its 18 lines is none a JSON object"),
    ],
    ids=["empty", "blank", "JSON", "CSV", "one long line", "a picture"],
)
def test_what_is_no_trace(
    invoke: Invoke, tmp_path: Path, command: str, content: bytes, says: str
) -> None:
    """One sentence that names the file, and exit 2."""
    file = tmp_path / "other"
    file.write_bytes(content)
    told = invoke("trace", command, file)
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: {file} {says}")


@pytest.mark.parametrize("command", ["summary", "curve"])
def test_what_cannot_be_read(invoke: Invoke, tmp_path: Path, command: str) -> None:
    """A file that is not there, and a folder."""
    for file, why in ((tmp_path / "nope", "No such file"), (tmp_path, "Is a directory")):
        told = invoke("trace", command, file)
        assert told.exit_code == 2
        assert told.stderr.startswith(f"error: {file} cannot be read: {why}")


def test_a_huge_line_is_skipped_in_little_memory(invoke: Invoke, path: Path) -> None:
    """It is never held whole, and what is around it counts."""
    with path.open("r+b") as file:
        file.seek(100 << 20, os.SEEK_END)  # zeros, which take no room on the disk
        file.write(b"\n" + line_of(_HIT))
    told = invoke("trace", "summary", path, "--format", "json")
    assert json.loads(told.stdout)["total"][0]["lookups"] == 3
    assert told.stderr.startswith("1 line is torn")


def test_curve_in_a_terminal(invoke: Invoke) -> None:
    """Sizes with their rates, what was recorded, and the sizes worth having."""
    told = invoke("trace", "curve", _PEER)
    assert told.exit_code == 0
    assert "of 114 lookups the recorded cache answered 39" in told.stdout
    assert "max_entries 16 answers all of what an endless cache would" in told.stdout
    first = next(line for line in told.stdout.splitlines() if line.split()[:1] == ["1"])
    assert first.split() == ["1", "3.5", "%", "0.32", "s", "10.5", "%", "█░░"]


def test_curve_for_programs(invoke: Invoke) -> None:
    """JSON and CSV have the numbers of each size; no size is better than the best."""
    said = json.loads(invoke("trace", "curve", _PEER, "--format", "json").stdout)
    assert (said["lookups"], said["hits"]) == (114, 39)
    assert said["worth"] == {"90%": 16, "99%": 16, "100%": 16}
    assert said["sizes"][-1]["hits"] == said["sizes"][-1]["best_hits"] == 39
    assert all(one["hits"] <= one["best_hits"] for one in said["sizes"])
    text = invoke("trace", "curve", _PEER, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["size"]) for row in rows] == [one["size"] for one in said["sizes"]]
    markdown = invoke("trace", "curve", _PEER, "--format", "markdown").stdout
    assert "| entries | hits | hit rate |" in markdown


def test_curve_without_a_repeated_question(invoke: Invoke, path: Path) -> None:
    """There is nothing that a cache could answer, and that is said."""
    path.write_bytes(line_of(_PASS))
    told = invoke("trace", "curve", path)
    assert told.exit_code == 0
    assert told.stdout == "1 lookups, and no question twice: no cache answers any\n"
    said = json.loads(invoke("trace", "curve", path, "--format", "json").stdout)
    assert (said["worth"], said["sizes"]) == ({"90%": 0, "99%": 0, "100%": 0}, [])


def test_why_of_one_miss(invoke: Invoke) -> None:
    """Which lookup it was, and why it paid: here the tuned view by another name."""
    told = invoke("trace", "why", _PEER, "--miss", 70)
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "miss 70: ablation asked scaled_1.00 for 2f0ef9e54ace (next_token_dist, top_k 256), "
        "80.3 ms",
        "  the first time here; asked before of base, ft, scaled_0.00, scaled_0.25, scaled_0.50, "
        "scaled_0.75",
    ]


def test_why_of_a_prompt_for_programs(invoke: Invoke) -> None:
    """Each miss with its record."""
    told = invoke("trace", "why", _PEER, "--prompt-hash", "678c", "--format", "json")
    said = json.loads(told.stdout)
    assert [one["event"]["prompt_hash"] for one in said] == ["678c96338602"] * 11
    assert [one["reason"] for one in said] == ["first"] + ["elsewhere"] * 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name a miss by --miss N, or a prompt by --prompt-hash HASH"),
        (["--miss", 1, "--prompt-hash", "a"], "name a miss by --miss N"),
        (["--prompt-hash", ""], "name a miss by --miss N"),
        (["--miss", 76], "has no miss 76; see: forwardscope trace summary"),
        (["--prompt-hash", "ffff"], "has no miss of ffff; see: forwardscope trace summary"),
    ],
)
def test_why_of_nothing(invoke: Invoke, options: list[object], says: str) -> None:
    """What is missing is told, and exit 2."""
    told = invoke("trace", "why", _PEER, *options)
    assert (told.exit_code, told.stdout) == (2, "")
    assert says in " ".join(told.stderr.split())


def test_names_do_not_steer_the_terminal(invoke: Invoke, path: Path) -> None:
    """What a file holds is shown without what is not printable."""
    hostile = TraceEvent(1, "\x1b[31m", "\x07", "a", 8, "op\n", 1, False)
    path.write_bytes(line_of(hostile) + line_of(hostile))
    for command in (["summary"], ["curve"], ["why", "--miss", 2]):
        told = invoke("trace", command[0], path, *command[1:])
        assert told.exit_code == 0
        assert not set("\x1b\x07") & set(told.stdout)


def test_curve_is_plotted(invoke: Invoke, tmp_path: Path) -> None:
    """Into an SVG that has both curves and the sizes worth having."""
    file = tmp_path / "curve.svg"
    assert invoke("trace", "curve", _PEER, "--plot", file).exit_code == 0
    before = file.read_bytes()
    for text in (
        b"<svg ",
        b"entries in the cache",
        b"the most that any policy can",
        b"16: 90%, 99%, 100%",
    ):
        assert text in before
    invoke("trace", "curve", _PEER, "--plot", file)
    assert file.read_bytes() == before


def test_a_plot_that_cannot_be_drawn(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown ending, a folder that is not there, and a library that is not installed."""
    for name in ("curve.docx", "nope/curve.svg"):
        told = invoke("trace", "curve", _PEER, "--plot", tmp_path / name)
        assert told.exit_code == 2
        assert f"{tmp_path / name} cannot be drawn: " in " ".join(told.stderr.split())
    monkeypatch.delitem(sys.modules, "forwardscope.analysis.plot", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    told = invoke("trace", "curve", _PEER, "--plot", tmp_path / "curve.svg")
    assert told.exit_code == 2
    assert "pip install 'forwardscope[plot]'" in told.stderr
