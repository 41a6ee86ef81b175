"""`forwardscope trace summary`, `curve` and `why`: output and invalid files."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import Result

from forwardscope import TraceEvent
from forwardscope.trace.reader import MAX_LINE_BYTES
from forwardscope.trace.writer import line_of

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]

_PEER = Path(__file__).parents[1] / "data" / "dlm_sway_trace.jsonl"
_PASS = TraceEvent(1.0, "p", "base", "aaf4c61ddcc5", 8, "next_token_dist", 100.0, False)
_HIT = TraceEvent(2.0, "p", "base", "aaf4c61ddcc5", 8, "next_token_dist", 0.1, True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A trace of a miss and a hit."""
    file = tmp_path / "trace.jsonl"
    file.write_bytes(line_of(_PASS) + line_of(_HIT))
    return file


def test_summary_in_a_terminal(invoke: Invoke) -> None:
    """All tables of a trace of dlm-sway are printed, without columns that are all zero."""
    ran = invoke("trace", "summary", _PEER)
    assert (ran.exit_code, ran.stderr) == (0, "")
    for title in ("by probe", "by view", "by op", "slowest passes", "most repeated prompts"):
        assert f"\n{title}" in ran.stdout
    (total,) = (line for line in ran.stdout.splitlines() if line.split()[:1] == ["114"])
    assert total.split() == ["114", "39", "75", "34.2", "%", "26.9", "s", "3.12", "s"]
    assert "75 distinct lookups" in ran.stdout
    assert "coalesced" not in ran.stdout


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_times_of_batches_are_explained(invoke: Invoke, tmp_path: Path, batch: int | None) -> None:
    """A pass of a batch of several prompts has a share of the batch's time."""
    file = tmp_path / "trace.jsonl"
    file.write_bytes(line_of(replace(_PASS, batch=batch)))
    said = "each prompt of a batch has an even share" in invoke("trace", "summary", file).stdout
    assert said == (batch == 2)


def test_summary_as_json(invoke: Invoke) -> None:
    """The JSON has the tables as numbers."""
    output = json.loads(invoke("trace", "summary", _PEER, "--format", "json").stdout)
    assert (output["skipped_lines"], output["questions"]) == (0, 75)
    (total,) = output["total"]
    assert (total["lookups"], total["hits"], total["coalesced"]) == (114, 39, 0)
    assert sum(one["saved_s"] for one in output["by_view"]) == pytest.approx(total["saved_s"])
    assert output["slowest"][0]["wall_ms"] > output["slowest"][1]["wall_ms"]
    assert output["most_asked"][0] == {
        "prompt_hash": "678c96338602",
        "lookups": 20,
        "forward_passes": 11,
    }


def test_summary_of_a_warm_run(invoke: Invoke, path: Path) -> None:
    """Hits of a store are shown by tier; without any pass the time saved is not known."""
    path.write_bytes(
        b"".join(
            line_of(replace(_HIT, tier="disk", verified=verified))
            for verified in (None, True, False)
        )
        + line_of(_HIT)
    )
    output = json.loads(invoke("trace", "summary", path, "--format", "json").stdout)
    assert output["total"][0]["saved_s"] is None
    assert output["hits_by_tier"] == [
        {
            "memory_hits": 1,
            "disk_hits": 3,
            "remote_hits": 0,
            "remote_coalesced": 0,
            "verified": 2,
            "mismatches": 1,
        }
    ]
    for options in ([], ["--format", "markdown"]):
        text = invoke("trace", "summary", path, *options).stdout
        assert "the time saved is not known (–) where the trace has no forward pass" in text
        assert "hits by tier" in text
    assert "–" in invoke("trace", "curve", path).stdout
    path.write_bytes(path.read_bytes() + line_of(replace(_PASS, view_id="ft")))
    assert "not known" not in invoke("trace", "summary", path).stdout


def test_summary_as_csv(invoke: Invoke) -> None:
    """One table has the counts of every grouping."""
    text = invoke("trace", "summary", _PEER, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["by"] for row in rows} == {"total", "probe", "view", "op"}
    for by in ("total", "probe", "view", "op"):
        assert sum(int(row["lookups"]) for row in rows if row["by"] == by) == 114


@pytest.mark.parametrize("format", ["terminal", "json", "markdown", "csv"])
def test_one_implausible_record_does_not_stop_a_summary(
    invoke: Invoke,
    path: Path,
    format: str,  # noqa: A002 - the option's name
) -> None:
    """It is skipped, and a name with half a surrogate pair is escaped."""
    lines = [{"wall_ms": 1e308}, {"ts": -1.0}, {"batch": 10**400}, {"probe": "\ud800"}]
    records = [json.dumps(_PASS.to_dict() | changes) for changes in lines]
    path.write_text("\n".join([*records, line_of(_HIT).decode()]))
    ran = invoke("trace", "summary", path, "--format", format)
    assert ran.exit_code == 0
    assert "3 lines are skipped" in ran.stderr
    assert r"\ud800" in ran.stdout.replace(r"\\", "\\")


def test_names_in_csv_are_printable(invoke: Invoke, path: Path) -> None:
    """A control character in a trace is escaped."""
    path.write_bytes(line_of(TraceEvent(1, "\x1b[31m", "base", "a", 8, "op", 1, False)))
    assert r"\x1b[31m" in invoke("trace", "summary", path, "--format", "csv").stdout


@pytest.mark.parametrize("format", ["terminal", "markdown"])
def test_long_names_are_cut(
    invoke: Invoke,
    path: Path,
    format: str,  # noqa: A002 - the option's name
) -> None:
    """Tables have the beginning and the end of a name; so has the explanation of a miss."""
    name = f"begin{'x' * 100_000}end"
    path.write_bytes(line_of(TraceEvent(1, name, name, "a", 8, name, 1, False)))
    outputs = [
        invoke("trace", "summary", path, "--format", format).stdout,
        invoke("trace", "why", path, "--miss", 1).stdout,
    ]
    for text in outputs:
        assert "begin" in text
        assert "…" in text
        assert len(text) < 20_000


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x"])
def test_names_in_csv_are_no_formulas(invoke: Invoke, path: Path, name: str) -> None:
    """A spreadsheet takes a name for text."""
    path.write_bytes(line_of(TraceEvent(1, name, "base", "a", 8, "op", 1, False)))
    assert f"\nprobe,'{name}," in invoke("trace", "summary", path, "--format", "csv").stdout


def test_summary_as_markdown(invoke: Invoke, tmp_path: Path) -> None:
    """The Markdown has tables with escaped names."""
    hostile = tmp_path / "t.jsonl"
    hostile.write_bytes(line_of(TraceEvent(1, "<b>|*x*\n", "base", "a", 8, "op", 1, False)))
    text = invoke("trace", "summary", hostile, "--format", "markdown").stdout
    assert "### by probe\n\n| probe | lookups |" in text
    assert "| \\<b\\>\\|\\*x\\*\\\\n | 1 |" in text


def test_summary_of_several_files(invoke: Invoke, path: Path) -> None:
    """The records of all files are counted."""
    output = json.loads(invoke("trace", "summary", path, _PEER, path, "--format", "json").stdout)
    assert output["total"][0]["lookups"] == 114 + 4


@pytest.mark.parametrize("command", ["summary", "curve", "why"])
def test_a_pipe(invoke: Invoke, path: Path, command: str) -> None:
    """Commands that read once accept a pipe; `why`, which reads twice, rejects it."""
    read, write = os.pipe()
    os.write(write, path.read_bytes())
    os.close(write)
    options = ["--miss", 1] if command == "why" else ["--format", "json"]
    ran = invoke("trace", command, f"/dev/fd/{read}", *options)
    os.close(read)
    if command == "why":
        assert ran.exit_code == 2
        assert "is not a plain file and cannot be read twice" in ran.stderr
    else:
        assert ran.exit_code == 0
        output = json.loads(ran.stdout)
        assert (output["total"][0] if command == "summary" else output)["lookups"] == 2


def test_incomplete_lines_are_skipped(invoke: Invoke, path: Path) -> None:
    """The number of skipped lines is printed on stderr, and the other lines count."""
    path.write_bytes(path.read_bytes() + b"{torn\n" + line_of(_HIT)[:40])
    ran = invoke("trace", "summary", path, "--format", "json")
    assert ran.exit_code == 0
    assert json.loads(ran.stdout)["skipped_lines"] == 2
    assert ran.stderr == "2 lines are skipped: incomplete, or not a trace record\n"


@pytest.mark.parametrize("command", ["summary", "curve"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it has no trace record"),
        (b"\n\n", "is empty"),
        (b'{"a": 1}\n', "is not a trace: its only line is not a JSON object with the keys ts,"),
        (b"a,b\n1,2\n", "is not a trace: none of 2 lines is a JSON object with the keys ts, probe"),
        (b"x" * (MAX_LINE_BYTES * 3), "is not a trace: its only line is not a JSON object"),
        (b"\x89PNG\r\n\x1a\n" * 9, "is not a trace: none of 18 lines is a JSON object"),
    ],
    ids=["empty", "blank", "JSON", "CSV", "one long line", "a picture"],
)
def test_a_file_that_is_not_a_trace(
    error_of: ErrorOf, tmp_path: Path, command: str, content: bytes, message: str
) -> None:
    """The error has the file and the reason."""
    file = tmp_path / "other"
    file.write_bytes(content)
    assert error_of("trace", command, file).startswith(f"{file} {message}")


@pytest.mark.parametrize("command", ["summary", "curve"])
def test_a_file_that_cannot_be_read(error_of: ErrorOf, tmp_path: Path, command: str) -> None:
    """The error has the path of a missing file or a folder, and the reason."""
    for file, reason in ((tmp_path / "nope", "No such file"), (tmp_path, "Is a directory")):
        assert error_of("trace", command, file).startswith(f"{file} cannot be read: {reason}")


def test_a_huge_line_is_skipped(invoke: Invoke, path: Path) -> None:
    """The lines around it count."""
    with path.open("r+b") as file:
        file.seek(100 << 20, os.SEEK_END)  # a sparse file, which needs no disk space
        file.write(b"\n" + line_of(_HIT))
    ran = invoke("trace", "summary", path, "--format", "json")
    assert json.loads(ran.stdout)["total"][0]["lookups"] == 3
    assert ran.stderr.startswith("1 line is skipped")


def test_curve_in_a_terminal(invoke: Invoke) -> None:
    """Hit rates by size, the recorded hits, and the sufficient sizes are printed."""
    ran = invoke("trace", "curve", _PEER)
    assert ran.exit_code == 0
    assert "recorded: 39 hits in 114 lookups" in ran.stdout
    assert "max_entries 16 gives all of the hits of an unbounded cache" in ran.stdout
    first = next(line for line in ran.stdout.splitlines() if line.split()[:1] == ["1"])
    assert first.split() == ["1", "3.5", "%", "0.32", "s", "10.5", "%", "█░░"]


def test_curve_formats(invoke: Invoke) -> None:
    """JSON and CSV have the hits of each size, at most the optimal number."""
    output = json.loads(invoke("trace", "curve", _PEER, "--format", "json").stdout)
    assert (output["lookups"], output["hits"]) == (114, 39)
    assert output["worth"] == {"90%": 16, "99%": 16, "100%": 16}
    assert output["sizes"][-1]["hits"] == output["sizes"][-1]["best_hits"] == 39
    assert all(one["hits"] <= one["best_hits"] for one in output["sizes"])
    text = invoke("trace", "curve", _PEER, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["size"]) for row in rows] == [one["size"] for one in output["sizes"]]
    markdown = invoke("trace", "curve", _PEER, "--format", "markdown").stdout
    assert "| entries | hits | hit rate |" in markdown


def test_curve_without_a_repeated_lookup(invoke: Invoke, path: Path) -> None:
    """No cache size gives a hit."""
    path.write_bytes(line_of(_PASS))
    ran = invoke("trace", "curve", path)
    assert ran.exit_code == 0
    assert ran.stdout == "1 lookup, all distinct: no cache size gives a hit\n"
    output = json.loads(invoke("trace", "curve", path, "--format", "json").stdout)
    assert (output["worth"], output["sizes"]) == ({"90%": 0, "99%": 0, "100%": 0}, [])


def test_why_of_one_miss(invoke: Invoke) -> None:
    """The lookup and the reason are printed."""
    ran = invoke("trace", "why", _PEER, "--miss", 70)
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "miss 70: ablation on scaled_1.00, prompt 2f0ef9e54ace (next_token_dist, top_k 256), "
        "80.3 ms",
        "  first lookup of this prompt with this view, op and top_k; it was looked up before on "
        "base, ft, scaled_0.00, scaled_0.25, scaled_0.50, scaled_0.75",
    ]


def test_why_of_a_prompt_as_json(invoke: Invoke) -> None:
    """Each miss has its record and its reason."""
    ran = invoke("trace", "why", _PEER, "--prompt-hash", "678c", "--format", "json")
    output = json.loads(ran.stdout)
    assert [one["event"]["prompt_hash"] for one in output] == ["678c96338602"] * 11
    assert [one["reason"] for one in output] == ["first"] + ["elsewhere"] * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--miss", 1, "--prompt-hash", "a"], "give either --miss N"),
        (["--prompt-hash", ""], "give either --miss N"),
        (["--miss", 76], "has no miss 76; see: forwardscope trace summary"),
        (["--prompt-hash", "ffff"], "has no miss of ffff; see: forwardscope trace summary"),
    ],
)
def test_why_without_a_miss(error_of: ErrorOf, options: list[object], message: str) -> None:
    """The error has the options, or the miss that is not in the file."""
    assert message in error_of("trace", "why", _PEER, *options)


def test_commands_can_be_copied(invoke: Invoke, path: Path) -> None:
    """The name of a file is in quotes where a shell needs them."""
    named = path.rename(path.parent / "a trace.jsonl")
    summary, why = (invoke("trace", command, named).stdout for command in ("summary", "why"))
    assert f"forwardscope trace why '{named}' [--miss N]" in summary
    assert f"forwardscope trace why '{named}' --miss N" in why


def test_slow_passes_outside_the_probes(invoke: Invoke, path: Path) -> None:
    """They have the name that such lookups have in the other tables."""
    path.write_bytes(line_of(TraceEvent(1.0, None, "base", "a", 8, "op", 1.0, False)))
    output = json.loads(invoke("trace", "summary", path, "--format", "json").stdout)
    names = [output[table][0]["probe"] for table in ("slowest", "by_probe")]
    assert names == ["(outside)", "(outside)"]


def test_the_numbers_of_slow_passes_are_those_of_why(invoke: Invoke) -> None:
    """`why --miss` of a number in the summary explains that pass."""
    summary = json.loads(invoke("trace", "summary", _PEER, "--format", "json").stdout)
    for slow in summary["slowest"]:
        ran = invoke("trace", "why", _PEER, "--miss", slow["miss"], "--format", "json")
        (found,) = json.loads(ran.stdout)
        assert found["event"]["wall_ms"] == slow["wall_ms"]
        assert found["event"]["prompt_hash"] == slow["prompt_hash"]


def test_no_control_characters_are_printed(invoke: Invoke, path: Path) -> None:
    """Control characters in names of probes, views and ops are replaced."""
    hostile = TraceEvent(1, "\x1b[31m", "\x07", "a", 8, "op\n", 1, False)
    path.write_bytes(line_of(hostile) + line_of(hostile))
    for command in (["summary"], ["curve"], ["why", "--miss", 2]):
        ran = invoke("trace", command[0], path, *command[1:])
        assert ran.exit_code == 0
        assert not set("\x1b\x07") & set(ran.stdout)


def test_curve_is_plotted(invoke: Invoke, tmp_path: Path) -> None:
    """The SVG has both curves and the sufficient sizes, and is reproducible."""
    file = tmp_path / "curve.svg"
    assert invoke("trace", "curve", _PEER, "--plot", file).exit_code == 0
    before = file.read_bytes()
    for text in (
        b"<svg ",
        b"cache size in entries",
        b"optimal policy",
        b"16: 90%, 99%, 100%",
    ):
        assert text in before
    invoke("trace", "curve", _PEER, "--plot", file)
    assert file.read_bytes() == before


def test_plot_of_a_trace_without_hits(invoke: Invoke, tmp_path: Path) -> None:
    """It says so, and nothing is printed to stderr."""
    trace, file = tmp_path / "t.jsonl", tmp_path / "curve.svg"
    trace.write_bytes(_PEER.read_bytes().splitlines(keepends=True)[0])
    ran = invoke("trace", "curve", trace, "--plot", file)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert b"no cache size gives a hit" in file.read_bytes()


def test_a_plot_that_cannot_be_drawn(
    error_of: ErrorOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names an unknown file type, a path below a file or a missing library."""
    (tmp_path / "file").touch()
    for name in ("curve.docx", "file/curve.svg"):
        error = error_of("trace", "curve", _PEER, "--plot", tmp_path / name)
        assert error.startswith(f"the plot cannot be written to {tmp_path / name}: ")
    monkeypatch.delitem(sys.modules, "forwardscope.analysis.plot", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    error = error_of("trace", "curve", _PEER, "--plot", tmp_path / "curve.svg")
    assert "pip install '.[plot]' in a checkout" in error
