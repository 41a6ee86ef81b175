"""`forwardscope dashboards`: a working folder for whoever has no checkout, and a look at it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.dashboards.files import working_folder

Invoke = Callable[..., Result]

_VERSION = version("forwardscope")
_FILES = working_folder(_VERSION)


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder by their paths."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def sentence(ran: Result) -> str:
    """Return the one sentence of a command that was refused."""
    assert (ran.exit_code, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def exported(invoke: Invoke, tmp_path: Path) -> Path:
    """A folder that was exported to."""
    folder = tmp_path / "stack"
    assert invoke("dashboards", "export", folder).exit_code == 0
    return folder


def page(expr: str, **more: str) -> str:
    """Return a dashboard with one panel."""
    target = {"expr": expr, **more}
    return json.dumps({"title": "Mine", "panels": [{"title": "A panel", "targets": [target]}]})


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ([], ["dashboards"]),
        (["dashboards"], ["export", "check"]),
        (["dashboards", "export"], ["DIR", "--force", "docker compose up", "--help"]),
        (["dashboards", "check"], ["PATH", "--label", "Exits with 0", "--help"]),
    ],
    ids=" ".join,
)
def test_help_names_what_there_is(invoke: Invoke, command: list[str], options: list[str]) -> None:
    """Each command says what it takes, and -h is taken too."""
    told = invoke(*command, "--help")
    assert told.exit_code == 0
    assert [option for option in options if option not in told.stdout] == []
    assert invoke(*command, "-h").stdout == told.stdout


@pytest.mark.parametrize("made", [True, False], ids=["an empty folder", "a new folder"])
def test_export_writes_the_tree(invoke: Invoke, tmp_path: Path, made: bool) -> None:
    """All files are there as they ship, and the next commands are told."""
    folder = tmp_path / "new" / "stack"
    if made:
        folder.mkdir(parents=True)
    told = invoke("dashboards", "export", folder)
    assert (told.exit_code, tree(folder)) == (0, _FILES)
    assert told.stdout.startswith(f"wrote {len(_FILES)} files to {folder}\n")
    for part in (
        "cp .env.example .env",
        "docker compose up -d",
        "http://127.0.0.1:3000",
        f"{folder}/dashboards/grafana",
        f"forwardscope dashboards check {folder}",
    ):
        assert part in told.stdout


def test_the_demo_installs_this_version(exported: Path) -> None:
    """There is no source in the folder, so the image gets the release."""
    text = (exported / ".env.example").read_text()
    assert f"\nFORWARDSCOPE=forwardscope[hf,otel]=={_VERSION}\n" in text


def test_export_twice_changes_nothing(invoke: Invoke, exported: Path) -> None:
    """Equal files are no reason to refuse, and what is somebody's own stays."""
    (exported / ".env").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    told = invoke("dashboards", "export", exported)
    assert told.exit_code == 0
    assert told.stdout.startswith(f"wrote 0 files to {exported}; {len(_FILES)} left as they were")
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before


def test_export_overwrites_only_by_force(invoke: Invoke, exported: Path) -> None:
    """Files that differ are named, the first ones, and nothing is written; --force writes them.

    What they were is kept.
    """
    names = sorted(_FILES)
    for name in names[:5]:
        (exported / name).write_text("mine")
    (exported / names[-1]).unlink()
    (exported / "notes.txt").write_text("mine")
    before = tree(exported)
    said = sentence(invoke("dashboards", "export", exported))
    assert said == (
        f"{', '.join(names[:3])} and 2 more in {exported} would be overwritten; "
        "name another folder, or add --force"
    )
    assert tree(exported) == before
    forced = invoke("dashboards", "export", exported, "--force")
    assert forced.stdout.startswith(
        f"wrote 6 files to {exported}; {len(_FILES) - 6} left as they were"
    )
    kept = {f"{name}~": b"mine" for name in names[:5]}
    assert tree(exported) == {**_FILES, **kept, "notes.txt": b"mine"}
    for name in names[:5]:
        assert f"\n  {name} is overwritten; what it was is {name}~\n" in forced.stdout


def test_export_over_a_file(invoke: Invoke, tmp_path: Path) -> None:
    """A file in the place of the folder, or above it, is named and left alone."""
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        said = sentence(invoke("dashboards", "export", path, "--force"))
        assert said == f"{file} is no folder; name another one to write to"
    assert file.read_text() == "mine"


@pytest.mark.parametrize("there", ["file for a folder", "folder for a file", "pipe"])
def test_export_over_something_else(invoke: Invoke, tmp_path: Path, there: str) -> None:
    """What is in the way is named, and nothing is written, with --force either."""
    if there == "file for a folder":
        (tmp_path / "docs").write_text("mine")
    elif there == "folder for a file":
        (tmp_path / "docker-compose.yml").mkdir()
    else:
        os.mkfifo(tmp_path / "docker-compose.yml")
    said = sentence(invoke("dashboards", "export", tmp_path, "--force"))
    assert said.startswith(str(tmp_path / ("docs" if "file for" in there else "docker-compose")))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["dashboards", "docker-compose.yml"])
def test_export_follows_no_link_out(invoke: Invoke, tmp_path: Path, name: str) -> None:
    """A link that leads elsewhere is named, and nothing is written on either side."""
    outside, folder = tmp_path / "outside", tmp_path / "stack"
    outside.mkdir()
    folder.mkdir()
    (folder / name).symlink_to(outside if name == "dashboards" else outside / "file")
    said = sentence(invoke("dashboards", "export", folder, "--force"))
    assert said.startswith(f"{folder}/{name}")
    assert f"leads out of {folder}; " in said
    assert list(outside.iterdir()) == []
    assert [path.name for path in folder.iterdir()] == [name]


def test_export_takes_a_link_for_its_folder(invoke: Invoke, tmp_path: Path) -> None:
    """The folder itself may be one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert invoke("dashboards", "export", tmp_path / "link").exit_code == 0
    assert tree(tmp_path / "real") == _FILES


@pytest.mark.parametrize("path", ["/proc/nowhere", "circle", "o" * 300])
def test_export_where_nothing_can_be_written(invoke: Invoke, tmp_path: Path, path: str) -> None:
    """The path is named in one sentence."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert path in sentence(invoke("dashboards", "export", tmp_path / path))


def test_check_of_what_ships(invoke: Invoke) -> None:
    """Without a path; all is exported, and what is not ours is named."""
    told = invoke("dashboards", "check")
    assert told.exit_code == 0
    first, second = told.stdout.splitlines()
    assert f"all exported by forwardscope {_VERSION}, and for " in first
    assert "push_time_seconds" in second


def test_check_of_an_exported_tree(invoke: Invoke, exported: Path) -> None:
    """It says the same of the copy, and so does a second time, of the rules alone."""
    told = invoke("dashboards", "check", exported)
    assert (told.exit_code, told.stdout) == (0, invoke("dashboards", "check").stdout)
    alone = invoke("dashboards", "check", exported / "dashboards" / "prometheus" / "recording.yml")
    assert alone.exit_code == 0
    assert alone.stdout.startswith("0 panels, ")


def test_check_of_a_broken_tree(invoke: Invoke, exported: Path) -> None:
    """File, panel, what is wrong, and the query; the last line counts."""
    rules = exported / "dashboards" / "prometheus" / "recording.yml"
    text = rules.read_text()
    rules.write_text(text.replace("forwardscope_run_hits ", "forwardscope_run_hit ", 1))
    told = invoke("dashboards", "check", exported)
    assert told.exit_code == 1
    where, what, query, last = told.stdout.splitlines()[:4]
    assert where == f"{rules}: rule 'run:forwardscope_run_hits_per_lookup:finished'"
    assert what == (
        f"  forwardscope_run_hit is not exported by forwardscope {_VERSION}; "
        "did you mean forwardscope_run_hits?"
    )
    assert query.startswith("  in: max by (suite, model, run_id)")
    assert last.endswith("1 mistake; for labels that your servers add, see --label")


def test_check_of_a_dashboard_of_ones_own(invoke: Invoke, tmp_path: Path) -> None:
    """It may use what the shipped rules record, and labels that are told."""
    mine = tmp_path / "mine.json"
    recorded = "suite:forwardscope_run_forward_passes:latest"
    mine.write_text(page(f'{recorded} or forwardscope_run_hits{{cluster="a"}} or up'))
    refused = invoke("dashboards", "check", mine)
    assert refused.exit_code == 1
    assert "there is no label cluster" in refused.stdout
    told = invoke("dashboards", "check", mine, "--label", "cluster")
    assert told.exit_code == 0
    assert told.stdout.startswith("1 panel, 0 rules, 1 expression in 1 file ask for 1 metric, all")
    assert told.stdout.endswith("not forwardscope's, and not looked at: up\n")


@pytest.mark.parametrize("label", ["cluster=a", "", "1st", "clüster"])
def test_check_takes_names_of_labels(invoke: Invoke, label: str) -> None:
    """Anything else is told, and not taken for one that is never asked for."""
    refused = invoke("dashboards", "check", "--label", label)
    assert refused.exit_code == 2
    assert f"{label!r} is no label's name" in refused.stderr


@pytest.mark.parametrize("rule", ["alert: Mine", "record: job:mine:sum"])
def test_check_misses_the_expr_of_a_rule(invoke: Invoke, tmp_path: Path, rule: str) -> None:
    """A misspelt key is no rule that asks for nothing."""
    mine = tmp_path / "mine.yml"
    mine.write_text(f"groups: [{{name: g, rules: [{{{rule}, exp: up}}]}}]")
    told = invoke("dashboards", "check", mine)
    assert told.exit_code == 1
    assert "it has no expr" in told.stdout


def test_check_of_what_is_not_ours(invoke: Invoke, tmp_path: Path) -> None:
    """Nothing is wrong with it, and nothing is claimed."""
    mine = tmp_path / "mine.json"
    mine.write_text(page("up"))
    told = invoke("dashboards", "check", mine)
    assert told.exit_code == 0
    assert "ask for nothing of forwardscope's\n" in told.stdout


def test_check_does_not_let_files_steer_the_terminal(invoke: Invoke, tmp_path: Path) -> None:
    """Titles and queries are shown without what is not printable, and cut."""
    mine = tmp_path / "mine.json"
    mine.write_text(page("forwardscope_x # \x1b]0;\x07" + "long" * 200, title="\x1b[31m"))
    told = invoke("dashboards", "check", mine)
    assert told.exit_code == 1
    assert "\x1b" not in told.stdout
    assert max(map(len, told.stdout.splitlines())) < 300


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("{", "is not valid JSON: Expecting property name enclosed in double quotes"),
        ("[1, 2]", "holds no dashboard and no rule that asks Prometheus for anything"),
        ("[" * 100_000, "is nested too deeply"),
    ],
    ids=["missing", "malformed", "list", "deep"],
)
def test_check_of_no_dashboard(
    invoke: Invoke, tmp_path: Path, content: str | None, says: str
) -> None:
    """One sentence names the file."""
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    assert sentence(invoke("dashboards", "check", path)).startswith(f"{path} {says}")


def test_check_of_an_empty_folder(invoke: Invoke, tmp_path: Path) -> None:
    """Nothing to check is not nothing wrong."""
    assert "holds no dashboard" in sentence(invoke("dashboards", "check", tmp_path))


def test_check_without_the_parser(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that adds it is told."""
    monkeypatch.delitem(sys.modules, "forwardscope.dashboards.check", raising=False)
    monkeypatch.delattr("forwardscope.dashboards.check", raising=False)
    monkeypatch.setitem(sys.modules, "promql_parser", None)
    assert sentence(invoke("dashboards", "check")) == (
        "promql-parser is not installed; add it with: pip install 'forwardscope[dashboards]'"
    )


def test_doctor_names_the_extra(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is missing like the others are."""

    def found(package: str) -> str:
        if package == "promql-parser":
            raise PackageNotFoundError(package)
        return "1.2.3"

    monkeypatch.setattr("forwardscope.cli.doctor.version", found)
    told = invoke("doctor").stdout
    assert "missing; add it with: pip install 'forwardscope[dashboards]'" in told
