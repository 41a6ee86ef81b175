"""`forwardscope dashboards export` and `check`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.dashboards.files import working_folder

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]

_VERSION = version("forwardscope")
_FILES = working_folder(_VERSION)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, by path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def exported(invoke: Invoke, tmp_path: Path) -> Path:
    """A folder with the exported files."""
    folder = tmp_path / "stack"
    assert invoke("dashboards", "export", folder).exit_code == 0
    return folder


def page(expr: str, **more: str) -> str:
    """Return a dashboard with one panel."""
    target = {"expr": expr, **more}
    return json.dumps({"title": "Mine", "panels": [{"title": "A panel", "targets": [target]}]})


@pytest.mark.parametrize("exists", [True, False])
def test_export_writes_the_files(invoke: Invoke, tmp_path: Path, exists: bool) -> None:
    """All shipped files are written, and the next commands are printed."""
    folder = tmp_path / "new" / "stack"
    if exists:
        folder.mkdir(parents=True)
    ran = invoke("dashboards", "export", folder)
    assert (ran.exit_code, tree(folder)) == (0, _FILES)
    assert ran.stdout.startswith(f"wrote {len(_FILES)} files to {folder}\n")
    for part in (
        "cp .env.example .env",
        "docker compose up -d",
        "http://127.0.0.1:3000",
        f"{folder}/dashboards/grafana",
        f"forwardscope dashboards check {folder}",
    ):
        assert part in ran.stdout


def test_the_image_installs_this_version(exported: Path) -> None:
    """The folder has no source, so the image installs the release."""
    text = (exported / ".env.example").read_text()
    assert f"\nFORWARDSCOPE=forwardscope[hf,otel]=={_VERSION}\n" in text


def test_export_twice_changes_nothing(invoke: Invoke, exported: Path) -> None:
    """Equal files are not written again, and other files are not touched."""
    (exported / ".env").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    ran = invoke("dashboards", "export", exported)
    assert ran.exit_code == 0
    assert ran.stdout.startswith(f"wrote 0 files to {exported}; {len(_FILES)} unchanged")
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before


def test_export_overwrites_only_with_force(
    invoke: Invoke, error_of: ErrorOf, exported: Path
) -> None:
    """Without --force nothing is written; with it the old contents are saved as NAME~."""
    names = sorted(_FILES)
    for name in names[:5]:
        (exported / name).write_text("mine")
    (exported / names[-1]).unlink()
    (exported / "notes.txt").write_text("mine")
    before = tree(exported)
    assert error_of("dashboards", "export", exported) == (
        f"{', '.join(names[:3])} and 2 more in {exported} would be overwritten; "
        "name another folder, or add --force"
    )
    assert tree(exported) == before
    forced = invoke("dashboards", "export", exported, "--force")
    assert forced.stdout.startswith(f"wrote 6 files to {exported}; {len(_FILES) - 6} unchanged")
    backups = {f"{name}~": b"mine" for name in names[:5]}
    assert tree(exported) == {**_FILES, **backups, "notes.txt": b"mine"}
    for name in names[:5]:
        assert f"\n  {name} is overwritten; its old content is in {name}~\n" in forced.stdout


def test_export_to_a_path_that_is_a_file(error_of: ErrorOf, tmp_path: Path) -> None:
    """The error has the file, also for a path below it; the file is not changed."""
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        error = error_of("dashboards", "export", path, "--force")
        assert error == f"{file} is not a folder; name another one to write to"
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "create"),
    [("docs", Path.touch), ("docker-compose.yml", Path.mkdir), ("docker-compose.yml", os.mkfifo)],
    ids=["file", "folder", "pipe"],
)
def test_export_over_another_kind_of_file(
    error_of: ErrorOf, tmp_path: Path, name: str, create: Callable[[Path], object]
) -> None:
    """The error has the path; no file is written, even with --force."""
    create(tmp_path / name)
    error = error_of("dashboards", "export", tmp_path, "--force")
    assert error.startswith(str(tmp_path / name))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["dashboards", "docker-compose.yml"])
def test_export_follows_no_link_out_of_the_folder(
    error_of: ErrorOf, tmp_path: Path, name: str
) -> None:
    """The error has the link; no file is written in either folder."""
    outside, folder = tmp_path / "outside", tmp_path / "stack"
    outside.mkdir()
    folder.mkdir()
    (folder / name).symlink_to(outside if name == "dashboards" else outside / "file")
    error = error_of("dashboards", "export", folder, "--force")
    assert error.startswith(f"{folder}/{name}")
    assert f"leads out of {folder}; " in error
    assert list(outside.iterdir()) == []
    assert [path.name for path in folder.iterdir()] == [name]


def test_export_to_a_link(invoke: Invoke, tmp_path: Path) -> None:
    """The folder itself may be a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert invoke("dashboards", "export", tmp_path / "link").exit_code == 0
    assert tree(tmp_path / "real") == _FILES


@pytest.mark.parametrize("path", ["/proc/nowhere", "circle", "o" * 300])
def test_export_to_a_path_that_cannot_be_written(
    error_of: ErrorOf, tmp_path: Path, path: str
) -> None:
    """The error has the path."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert path in error_of("dashboards", "export", tmp_path / path)


def test_check_of_the_shipped_files(invoke: Invoke) -> None:
    """Without a path the shipped files are checked; metrics of other programs are listed."""
    ran = invoke("dashboards", "check")
    assert ran.exit_code == 0
    first, second = ran.stdout.splitlines()
    assert f" metrics exported by forwardscope {_VERSION}, " in first
    assert first.endswith(" recorded by rules; no mistakes")
    assert "push_time_seconds" in second


def test_check_of_exported_files(invoke: Invoke, exported: Path) -> None:
    """The result is that of the shipped files; a single rule file can be checked too."""
    ran = invoke("dashboards", "check", exported)
    assert (ran.exit_code, ran.stdout) == (0, invoke("dashboards", "check").stdout)
    single = invoke("dashboards", "check", exported / "dashboards" / "prometheus" / "recording.yml")
    assert single.exit_code == 0
    assert single.stdout.startswith("0 panels, ")


def test_check_reports_a_mistake(invoke: Invoke, exported: Path) -> None:
    """The file, the rule, the problem and the query are printed, then a count."""
    rules = exported / "dashboards" / "prometheus" / "recording.yml"
    text = rules.read_text()
    rules.write_text(text.replace("forwardscope_run_hits ", "forwardscope_run_hit ", 1))
    ran = invoke("dashboards", "check", exported)
    assert ran.exit_code == 1
    where, what, query, last = ran.stdout.splitlines()[:4]
    assert where == f"{rules}: rule 'run:forwardscope_run_hits_per_lookup:finished'"
    assert what == (
        f"  forwardscope_run_hit is not exported by forwardscope {_VERSION}; "
        "did you mean forwardscope_run_hits?"
    )
    assert query.startswith("  in: max by (suite, model, run_id, device)")
    assert last.endswith("1 mistake; for labels that your servers add, see --label")


def test_check_of_a_users_dashboard(invoke: Invoke, tmp_path: Path) -> None:
    """A dashboard may use metrics that the shipped rules record, and labels given by --label."""
    mine = tmp_path / "mine.json"
    recorded = "suite:forwardscope_run_forward_passes_needed:latest"
    mine.write_text(page(f'{recorded} or forwardscope_run_hits{{cluster="a"}} or up'))
    refused = invoke("dashboards", "check", mine)
    assert refused.exit_code == 1
    assert "there is no label cluster" in refused.stdout
    ran = invoke("dashboards", "check", mine, "--label", "cluster")
    assert ran.exit_code == 0
    assert ran.stdout.startswith("1 panel, 0 rules, 1 expression in 1 file: 1 metric exported by ")
    assert ran.stdout.endswith("not checked, since other programs export them: up\n")


@pytest.mark.parametrize("label", ["cluster=a", "", "1st", "clüster"])
def test_check_rejects_an_invalid_label_name(invoke: Invoke, label: str) -> None:
    """The error has the value."""
    refused = invoke("dashboards", "check", "--label", label)
    assert refused.exit_code == 2
    assert f"{label!r} is not a label name" in refused.stderr


@pytest.mark.parametrize("rule", ["alert: Mine", "record: job:mine:sum"])
def test_check_of_a_rule_without_expr(invoke: Invoke, tmp_path: Path, rule: str) -> None:
    """A misspelt key `expr` is a mistake."""
    mine = tmp_path / "mine.yml"
    mine.write_text(f"groups: [{{name: g, rules: [{{{rule}, exp: up}}]}}]")
    ran = invoke("dashboards", "check", mine)
    assert ran.exit_code == 1
    assert "it has no expr" in ran.stdout


def test_check_of_other_metrics_only(invoke: Invoke, tmp_path: Path) -> None:
    """There is no mistake, and the summary states that no forwardscope metric is used."""
    mine = tmp_path / "mine.json"
    mine.write_text(page("up"))
    ran = invoke("dashboards", "check", mine)
    assert ran.exit_code == 0
    assert ": no forwardscope metric is used\n" in ran.stdout


def test_check_prints_no_control_characters(invoke: Invoke, tmp_path: Path) -> None:
    """Control characters in titles and queries are replaced, and long queries are truncated."""
    mine = tmp_path / "mine.json"
    mine.write_text(page("forwardscope_x # \x1b]0;\x07" + "long" * 200, title="\x1b[31m"))
    ran = invoke("dashboards", "check", mine)
    assert ran.exit_code == 1
    assert "\x1b" not in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "is not valid JSON: Expecting property name enclosed in double quotes"),
        ("[1, 2]", "has no dashboard and no rule with a Prometheus query"),
        ("[" * 100_000, "is nested too deeply"),
    ],
    ids=["missing", "malformed", "list", "deep"],
)
def test_check_of_an_invalid_file(
    error_of: ErrorOf, tmp_path: Path, content: str | None, message: str
) -> None:
    """The error has the file and the reason."""
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    assert error_of("dashboards", "check", path).startswith(f"{path} {message}")


def test_check_of_an_empty_folder(error_of: ErrorOf, tmp_path: Path) -> None:
    """A folder without files to check is an error."""
    assert "has no dashboard" in error_of("dashboards", "check", tmp_path)


def test_check_without_the_parser(error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that installs it is printed."""
    monkeypatch.delitem(sys.modules, "forwardscope.dashboards.check", raising=False)
    monkeypatch.delattr("forwardscope.dashboards.check", raising=False)
    monkeypatch.setitem(sys.modules, "promql_parser", None)
    assert error_of("dashboards", "check") == (
        "promql-parser is not installed; add it with: pip install '.[dashboards]' "
        "in a checkout, or 'forwardscope[dashboards]'"
    )
