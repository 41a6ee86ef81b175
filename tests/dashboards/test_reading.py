"""Queries are found wherever they stand, and a file that is none is told in one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from forwardscope.dashboards.reading import files_under, queries_in
from forwardscope.errors import UserError


def found(document: Any) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return what was found in a dashboard: kind, name, query and shown labels."""
    queries = queries_in("page.json", json.dumps(document).encode())
    return [(one.place.kind, one.place.name, one.text, one.shown) for one in queries]


def test_panels_also_in_collapsed_rows() -> None:
    """A query has its panel's title and the labels of its legend."""
    inner = {"title": "Inner", "targets": [{"expr": "b"}]}
    page = {
        "title": "Page",
        "panels": [
            {"title": "Outer", "targets": [{"expr": "a", "legendFormat": "{{x}} of {{ y }}"}]},
            {"title": "Row", "type": "row", "panels": [inner]},
        ],
    }
    assert found(page) == [("panel", "Outer", "a", ("x", "y")), ("panel", "Inner", "b", ())]


def test_annotations() -> None:
    """Labels are named in their text and their tags."""
    mark = {"name": "Start", "expr": "a", "textFormat": "{{x}}", "tagKeys": "y, z"}
    assert found({"annotations": {"list": [mark]}}) == [
        ("annotation", "Start", "a", ("x", "y", "z"))
    ]


def test_variables() -> None:
    """Those that ask for a label's values, or for a query's result."""
    values = {"query": 'label_values(up{job=~"a,b"}, job)', "refId": "x"}
    listed = [
        {"name": "first", "query": values, "definition": values["query"]},
        {"name": "second", "query": "query_result(topk(3, up))"},
        {"name": "third", "query": "label_values(job)"},
        {"name": "fourth", "query": "prometheus", "type": "datasource"},
    ]
    assert found({"templating": {"list": listed}}) == [
        ("variable", "first", 'up{job=~"a,b"}', ("job",)),
        ("variable", "second", "topk(3, up)", ()),
    ]


def test_the_second_schema_of_dashboards() -> None:
    """Panels are elements there, and a query says of which data source it is."""

    def element(title: str, group: str) -> dict[str, Any]:
        query = {"kind": "DataQuery", "group": group, "spec": {"expr": "a"}}
        return {"kind": "Panel", "spec": {"title": title, "data": {"query": query}}}

    elements = {"one": element("Ours", "prometheus"), "two": element("Logs", "loki")}
    assert found({"spec": {"elements": elements}}) == [("panel", "Ours", "a", ())]


def test_other_data_sources_are_left_out() -> None:
    """Loki's queries have an `expr` too; a panel's source is that of its targets."""
    logs = {"datasource": {"type": "loki"}, "title": "Logs", "targets": [{"expr": "{a}"}]}
    mixed = {
        "datasource": {"type": "datasource", "uid": "-- Mixed --"},
        "title": "Mixed",
        "targets": [
            {"expr": "a", "datasource": {"type": "prometheus"}},
            {"expr": "b", "datasource": {"type": "loki"}},
        ],
    }
    assert found({"panels": [logs, mixed]}) == [("panel", "Mixed", "a", ())]


def test_rules() -> None:
    """A rule has its name, what it records and adds, and the labels that its texts name."""
    text = b"""
groups:
  - name: a group
    rules:
      - {record: "a:b:c", expr: sum(a), labels: {team: x}}
      - alert: Late
        expr: b > 1
        annotations: {summary: "{{ $labels.suite }} in {{ .Labels.job }}: {{ $value }}"}
"""
    first, second = queries_in("rules.yml", text)
    assert (first.place.kind, first.place.name, first.record, first.adds) == (
        "rule",
        "a:b:c",
        "a:b:c",
        ("team",),
    )
    assert (str(second.place), second.text, second.record) == (
        "rules.yml: rule 'Late'",
        "b > 1",
        "",
    )
    assert second.shown == ("suite", "job")


def test_panels_of_one_title_are_two() -> None:
    """So that a count of places is one of panels."""
    panel = {"title": "Same", "targets": [{"expr": "a"}, {"expr": "b"}]}
    queries = queries_in("x.json", json.dumps({"panels": [panel, panel]}).encode())
    assert (len(queries), len({one.place for one in queries})) == (4, 2)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.json", b"{", "is not valid JSON: Expecting"),
        ("a.json", b"", "is not valid JSON: Expecting value"),
        ("a.json", b"\xff\xfe", "is not valid JSON: 'utf-8' codec"),
        ("a.json", b"9" * 5000, "is not valid JSON: "),
        ("a.json", b"[" * 100_000, "is nested too deeply"),
        ("a.json", b"[" + b"1," * 1_100_000 + b"1]", "holds more values than any dashboard"),
        ("a.yml", b"a: [", "is not valid YAML: line 1: "),
        ("a.yml", b"\x00", "is not valid YAML: "),
        ("a.yml", b"a: !!python/object/apply:os.getcwd []", "is not valid YAML: line 1: could not"),
        ("a.yml", b'a: !!int ""', "is not valid YAML: "),
        ("a.yml", b"a: 2020-99-99", "is not valid YAML: "),
        ("a.yml", b"[" * 10_000, "is nested too deeply"),
        ("a.yml", b"&a [*a, *a]", "holds more values than any dashboard"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_malformed_and_hostile_files(file: str, content: bytes, says: str) -> None:
    """The file is named, and what is wrong with it."""
    with pytest.raises(UserError, match=f"^{file} {says}"):
        queries_in(file, content)


def test_an_alias_bomb() -> None:
    """YAML whose aliases stand for a billion values is given up after a million."""
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(8)]
    with pytest.raises(UserError, match="holds more values"):
        queries_in("bomb.yml", "\n".join(lines).encode())


def test_a_circle_of_aliases_in_a_rule_file_is_left_at_its_queries() -> None:
    """What stands before it does not save the file."""
    text = b"groups: &g [{rules: [{alert: A, expr: up}]}, *g]"
    with pytest.raises(UserError, match="holds more values"):
        queries_in("circle.yml", text)


@pytest.mark.parametrize(
    "content", [b"[]", b"3", b"null", b'["a"]', b'{"panels": 3, "title": [], "datasource": []}']
)
def test_json_that_is_no_dashboard(content: bytes) -> None:
    """Nothing is found in it, and nothing is complained of."""
    assert queries_in("list.json", content) == []


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    """JSON and YAML at any depth, in order, and nothing that is hidden or else."""
    for name in ("b/c.yaml", "a.json", "b/d.yml", ".git/x.json", "b/.y.json", "z.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    read = {
        Path(name).relative_to(tmp_path).as_posix(): text for name, text in files_under(tmp_path)
    }
    assert read == {name: name.encode() for name in ("a.json", "b/c.yaml", "b/d.yml")}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.json", "does not exist"),
        ("a.txt", r"is neither JSON \(.json\) nor YAML"),
        ("pipe.json", "is neither a file nor a folder"),
        ("huge.json", "is larger than 4 MiB"),
        ("huge.yml", "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_not_read(tmp_path: Path, name: str, says: str) -> None:
    """It is named, and no pipe is waited for."""
    (tmp_path / "a.txt").touch()
    os.mkfifo(tmp_path / "pipe.json")
    for huge in ("huge.json", "huge.yml"):
        with (tmp_path / huge).open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(UserError, match=f"/{name} {says}"):
        list(files_under(tmp_path / name))
