"""Queries are found anywhere in a file; a malformed file is an error of one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from forwardscope.dashboards.reading import files_under, queries_in
from forwardscope.errors import UserError


def found(document: Any) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return the queries in a dashboard: kind, name, text and displayed labels."""
    queries = queries_in("page.json", json.dumps(document).encode())
    return [(one.place.kind, one.place.name, one.text, one.displayed) for one in queries]


def test_panels_also_in_collapsed_rows() -> None:
    """A query has the title of its panel and the labels of its legend."""
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
    """The text and the tags of an annotation display labels."""
    mark = {"name": "Start", "expr": "a", "textFormat": "{{x}}", "tagKeys": "y, z"}
    assert found({"annotations": {"list": [mark]}}) == [
        ("annotation", "Start", "a", ("x", "y", "z"))
    ]


def test_variables() -> None:
    """Variables query the values of a label, or the result of a query."""
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
    """Panels are elements, and a query names the type of its data source."""

    def element(title: str, group: str) -> dict[str, Any]:
        query = {"kind": "DataQuery", "group": group, "spec": {"expr": "a"}}
        return {"kind": "Panel", "spec": {"title": title, "data": {"query": query}}}

    elements = {"one": element("Ours", "prometheus"), "two": element("Logs", "loki")}
    assert found({"spec": {"elements": elements}}) == [("panel", "Ours", "a", ())]


def test_other_data_sources_are_skipped() -> None:
    """Queries of Loki have an `expr` too; a target can have its own data source."""
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
    """A query has the name of its rule, the recorded name, and the labels in the texts."""
    text = b"""
groups:
  - name: a group
    rules:
      - {record: "a:b:c", expr: sum(a)}
      - alert: Late
        expr: b > 1
        annotations: {summary: "{{ $labels.suite }} in {{ .Labels.job }}: {{ $value }}"}
"""
    first, second = queries_in("rules.yml", text)
    assert (str(first.place), first.record) == ("rules.yml: rule 'a:b:c'", "a:b:c")
    assert (str(second.place), second.text) == ("rules.yml: rule 'Late'", "b > 1")
    assert (second.record, second.displayed) == ("", ("suite", "job"))


def test_panels_with_equal_titles_are_two_places() -> None:
    """There are as many places as panels."""
    panel = {"title": "Same", "targets": [{"expr": "a"}, {"expr": "b"}]}
    queries = queries_in("x.json", json.dumps({"panels": [panel, panel]}).encode())
    assert (len(queries), len({one.place for one in queries})) == (4, 2)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", b"{", "is not valid JSON: Expecting"),
        ("a.json", b"", "is not valid JSON: Expecting value"),
        ("a.json", b"\xff\xfe", "is not valid JSON: 'utf-8' codec"),
        ("a.json", b"9" * 5000, "is not valid JSON: "),
        ("a.json", b"[" * 100_000, "is nested too deeply"),
        ("a.yml", b"a: [", "is not valid YAML: .*line 1, "),
        ("a.yml", b"\x00", "is not valid YAML: "),
        ("a.yml", b"a: !!python/object/apply:os.getcwd []", "is not valid YAML: could not"),
        ("a.yml", b'a: !!int ""', "is not valid YAML: "),
        ("a.yml", b"a: 2020-99-99", "is not valid YAML: "),
        ("a.yml", b"[" * 10_000, "is nested too deeply"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_malformed_files(file: str, content: bytes, message: str) -> None:
    """The error names the file and the reason."""
    with pytest.raises(UserError, match=f"^{file} {message}"):
        queries_in(file, content)


def test_yaml_aliases_are_visited_once() -> None:
    """A file with a billion aliases, or with a cycle of them, is read at once."""
    lines = ["- &a0 [{expr: up}]"]
    lines += [f"- &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(8)]
    assert len(queries_in("many.yml", "\n".join(lines).encode())) == 1
    cycle = b"groups: &g [{rules: [{alert: A, expr: up}]}, *g]"
    assert len(queries_in("cycle.yml", cycle)) == 1


@pytest.mark.parametrize(
    "content", [b"[]", b"3", b"null", b'["a"]', b'{"panels": 3, "title": [], "datasource": []}']
)
def test_json_without_queries(content: bytes) -> None:
    """Other JSON is valid and has no query."""
    assert queries_in("list.json", content) == []


def test_files_under_a_folder(tmp_path: Path) -> None:
    """JSON and YAML files at any depth are read in order; hidden files are not."""
    for name in ("b/c.yaml", "a.json", "b/d.yml", ".git/x.json", "b/.y.json", "z.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    read = {
        Path(name).relative_to(tmp_path).as_posix(): text for name, text in files_under(tmp_path)
    }
    assert read == {name: name.encode() for name in ("a.json", "b/c.yaml", "b/d.yml")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.json", "does not exist or is not a file"),
        ("a.txt", r"is neither JSON \(.json\) nor YAML"),
        ("pipe.json", "does not exist or is not a file"),
        ("huge.json", "is larger than 4 MiB"),
        ("huge.yml", "is larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    """The error names the file and the reason; a pipe does not block."""
    (tmp_path / "a.txt").touch()
    os.mkfifo(tmp_path / "pipe.json")
    for huge in ("huge.json", "huge.yml"):
        with (tmp_path / huge).open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(UserError, match=f"/{name} {message}"):
        list(files_under(tmp_path / name))
