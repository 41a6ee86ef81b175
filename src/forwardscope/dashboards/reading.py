"""Find the PromQL in files: dashboards of any schema, and rules.

The whole JSON or YAML document is searched, so queries are found in panels, collapsed rows,
annotations, variables and rules alike.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from forwardscope.errors import UserError

__all__ = ["Place", "Query", "files_under", "queries_in"]

#: Maximum size of a file by its suffix; the YAML parser is slow.
_MAX_BYTES: Final = {".json": 4 << 20, ".yml": 1 << 20, ".yaml": 1 << 20}
_MAX_NAME: Final = 100

#: `Place.kind` of the values below a key.
_KINDS: Final = {
    "panels": "panel",
    "elements": "panel",
    "templating": "variable",
    "variables": "variable",
    "annotations": "annotation",
    "rules": "rule",
}
_NAMES: Final = ("alert", "record", "title", "name")
_LABEL_VALUES: Final = re.compile(r"\s*label_values\((.+),\s*(\w+)\s*\)\s*", re.DOTALL)
_QUERY_RESULT: Final = re.compile(r"\s*query_result\((.+)\)\s*", re.DOTALL)
_IN_LEGEND: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
#: Labels of the alert; `$one.Labels` are those of a result of another query.
_IN_TEMPLATE: Final = re.compile(r"(?:\$labels|(?<!\w)\.Labels)\.(\w+)")
#: A part of a template about the results of a query of its own.
_OF_QUERY: Final = re.compile(r"\{\{ with query .*?\}\}\.\{\{ end \}\}")


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The place of queries in a file; two panels or rules with equal names are two places.

    Attributes:
        file: The file's name.
        kind: panel, variable, annotation or rule; empty for anything else.
        name: Title or name of the panel, variable, annotation or rule.
    """

    file: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind or 'query'} {self.name[:_MAX_NAME]!r}"


@dataclass(frozen=True, slots=True)
class Query:
    """A query in a file.

    Attributes:
        place: The panel, variable, annotation or rule.
        text: PromQL, which may contain the dashboard's variables.
        displayed: Labels of the result that a dashboard or an alert displays.
        record: The name under which a rule records the result, or "".
    """

    place: Place
    text: str
    displayed: tuple[str, ...] = ()
    record: str = ""


def files_under(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of a file, or of each JSON and YAML file in a folder.

    Hidden files and folders are skipped.

    Raises:
        UserError: A file does not exist, cannot be read or is too large.
    """
    if os.path.isdir(path):  # noqa: PTH112 - false for an impossible name
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.suffix in _MAX_BYTES and file.is_file() and not hidden:
                yield str(file), _content(file)
    elif os.path.isfile(path):  # noqa: PTH113
        yield str(path), _content(path)
    else:
        raise UserError(f"{path} does not exist or is not a file")


def queries_in(file: str, content: bytes) -> list[Query]:
    """Return the queries of a file, in document order.

    Raises:
        UserError: The file is malformed or nested too deeply.
    """
    try:
        return list(_queries(_document(file, content), Place(file, "", ""), True, set()))
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply") from error


def _content(path: Path) -> bytes:
    limit = _MAX_BYTES.get(path.suffix)
    if limit is None:
        raise UserError(f"{path} is neither JSON (.json) nor YAML (.yml, .yaml)")
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit >> 20} MiB; no dashboard or rule file is")
    return content


def _document(file: str, content: bytes) -> Any:
    is_json = file.endswith(".json")
    try:
        text = content.decode("utf-8")
        return json.loads(text) if is_json else list(yaml.safe_load_all(text))
    # PyYAML does not wrap the errors of its constructors
    except (ArithmeticError, AttributeError, LookupError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is not valid {'JSON' if is_json else 'YAML'}: {reason}") from error


def _queries(value: Any, place: Place, prometheus: bool, visited: set[int]) -> Iterator[Query]:
    """Yield the queries in a value. A value with several YAML aliases is visited once."""
    if not isinstance(value, (dict, list)) or id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, list):
        for item in value:
            yield from _queries(item, place, prometheus, visited)
        return
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    place = place if name is None else Place(place.file, place.kind, name)
    prometheus = _is_for_prometheus(value, prometheus)
    if prometheus:
        yield from _queries_of(value, place)
    for key, item in value.items():
        kind = _KINDS.get(key)
        below = place if kind is None else Place(place.file, kind, place.name)
        yield from _queries(item, below, prometheus, visited)


def _is_for_prometheus(value: Mapping[str, Any], outer: bool) -> bool:
    """Return whether the queries are for Prometheus; those of other sources can have `expr` too."""
    source = value.get("datasource")
    kind = source.get("type") if isinstance(source, dict) else None
    if value.get("kind") == "DataQuery":  # the second schema of dashboards
        kind = value.get("group")
    return "prometheus" in kind if isinstance(kind, str) and kind else outer


def _queries_of(value: Mapping[str, Any], place: Place) -> Iterator[Query]:
    texts = {key: text for key, text in value.items() if isinstance(text, str)}
    expr, record, query = (texts.get(key, "") for key in ("expr", "record", "query"))
    if expr.strip() or "alert" in texts or "record" in texts:
        yield Query(place, expr, tuple(_displayed(value, texts)), record)
    if found := _LABEL_VALUES.fullmatch(query):  # the query of a variable
        yield Query(place, found[1], (found[2],))
    elif found := _QUERY_RESULT.fullmatch(query):
        yield Query(place, found[1])


def _displayed(value: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the labels in a panel's legend, an annotation's text or an alert's texts."""
    for key in ("legendFormat", "textFormat", "titleFormat"):
        yield from _IN_LEGEND.findall(texts.get(key, ""))
    yield from filter(None, map(str.strip, texts.get("tagKeys", "").split(",")))
    for key in ("labels", "annotations"):
        if isinstance(templates := value.get(key), dict):
            for template in map(str, templates.values()):
                yield from _IN_TEMPLATE.findall(_OF_QUERY.sub("", template))
