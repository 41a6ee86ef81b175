"""Find the PromQL in files: dashboards of any schema, and rules.

The whole JSON or YAML document is searched, so that a query is found anywhere in it: in a
panel, a collapsed row, an annotation or a variable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from forwardscope.errors import UserError

__all__ = ["Place", "Query", "files_under", "queries_in"]

#: Size limits; dashboards and rules are smaller. YAML has a lower one: its parser is slow.
_MAX_BYTES: Final = {".json": 4 << 20, ".yml": 1 << 20, ".yaml": 1 << 20}
#: The most values in one file, with YAML aliases expanded.
_MAX_VALUES: Final = 1_000_000
_LONGEST_NAME: Final = 100

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
_IN_TEMPLATE: Final = re.compile(r"(?:\$labels|\.Labels)\.(\w+)")


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The place of queries in a file; two panels or rules of equal names are two places.

    Attributes:
        file: The file's name.
        kind: panel, variable, annotation or rule; empty for anything else.
        name: Title or name of the panel, variable, annotation or rule.
    """

    file: str
    kind: str
    name: str

    def __str__(self) -> str:
        """Return the file, the kind and the name as text."""
        return f"{self.file}: {self.kind or 'query'} {self.name[:_LONGEST_NAME]!r}"


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Attributes:
        place: Its place in a file.
        text: PromQL, which may contain the dashboard's variables.
        shown: Labels of the result that the dashboard or the alert displays.
        record: The name under which a rule records the result, or "".
        adds: Labels that the rule adds to the result.
    """

    place: Place
    text: str
    shown: tuple[str, ...] = ()
    record: str = ""
    adds: tuple[str, ...] = ()


def files_under(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of a file, or of each JSON and YAML file in a folder.

    Hidden files and folders are skipped.

    Raises:
        UserError: The path does not exist, or a file cannot be read or is too large.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_dir():
        inside = sorted(path.rglob("*"))
        hidden = {one for one in inside if _is_hidden(one.relative_to(path))}
        files = [one for one in inside if one.suffix in _MAX_BYTES and one not in hidden]
        yield from ((str(one), _content(one)) for one in files if one.is_file())
    elif path.is_file():
        yield str(path), _content(path)
    else:
        raise UserError(f"{path} is neither a file nor a folder")


def queries_in(file: str, content: bytes) -> list[Query]:
    """Return the queries of a file, in document order.

    Raises:
        UserError: The file is malformed, nested too deeply or has too many values.
    """
    try:
        return list(_queries(file, _document(file, content)))
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply") from error


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _content(path: Path) -> bytes:
    most = _MAX_BYTES.get(path.suffix)
    if most is None:
        raise UserError(f"{path} is neither JSON (.json) nor YAML (.yml, .yaml)")
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise UserError(f"{path} is larger than {most >> 20} MiB; no dashboard or rule file is")
    return content


def _document(file: str, content: bytes) -> Any:
    is_json = file.endswith(".json")
    try:
        text = content.decode("utf-8")
        return json.loads(text) if is_json else list(yaml.safe_load_all(text))
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{file} is not valid YAML: {line}{error.problem}") from error
    except (ArithmeticError, AttributeError, LookupError, ValueError, yaml.YAMLError) as error:
        what = "JSON" if is_json else "YAML"  # PyYAML does not wrap its constructors' errors
        raise UserError(f"{file} is not valid {what}: {error}") from error


def _queries(file: str, document: Any) -> Iterator[Query]:
    """Yield the queries of a document, which may be deep, circular or huge through aliases."""
    waiting: list[tuple[Any, Place, bool]] = [(document, Place(file, "", ""), True)]
    visited = 0
    while waiting:
        visited += 1
        if visited + len(waiting) > _MAX_VALUES:
            raise UserError(f"{file} holds more values than any dashboard or rule file does")
        value, place, ours = waiting.pop()
        if isinstance(value, dict):
            place, ours = _named(value, place), _is_for_prometheus(value, ours)
            if ours:
                yield from _asked(value, place)
            below = [(one, _below(key, place), ours) for key, one in value.items()]
            waiting.extend(reversed(below))
        elif isinstance(value, list):
            waiting.extend((one, place, ours) for one in reversed(value))


def _named(value: Mapping[str, Any], place: Place) -> Place:
    names = (value.get(key) for key in _NAMES)
    name = next((name for name in names if isinstance(name, str)), None)
    return place if name is None else Place(place.file, place.kind, name)


def _below(key: object, place: Place) -> Place:
    kind = _KINDS.get(key) if isinstance(key, str) else None
    return place if kind is None else Place(place.file, kind, place.name)


def _is_for_prometheus(value: Mapping[str, Any], before: bool) -> bool:
    """Return whether queries are for Prometheus; other data sources may use `expr` too."""
    source = value.get("datasource")
    kind = source.get("type") if isinstance(source, dict) else None
    if value.get("kind") == "DataQuery":  # the second schema of dashboards
        kind = value.get("group")
    return "prometheus" in kind if isinstance(kind, str) and kind else before


def _asked(value: Mapping[str, Any], place: Place) -> Iterator[Query]:
    expr, record, query = value.get("expr"), value.get("record"), value.get("query")
    is_rule = any(isinstance(value.get(key), str) for key in ("alert", "record"))
    if is_rule and not isinstance(expr, str):
        yield Query(place, "", (), record if isinstance(record, str) else "")
    elif isinstance(expr, str) and (is_rule or expr.strip()):
        name = record if isinstance(record, str) else ""
        yield Query(place, expr, tuple(_shown(value)), name, tuple(_texts(value.get("labels"))))
    if isinstance(query, str):  # the query of a variable
        if found := _LABEL_VALUES.fullmatch(query):
            yield Query(place, found[1], (found[2],))
        elif found := _QUERY_RESULT.fullmatch(query):
            yield Query(place, found[1])


def _shown(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the labels in a panel's legend, an annotation's text or an alert's texts."""
    for key in ("legendFormat", "textFormat", "titleFormat"):
        if isinstance(legend := value.get(key), str):
            yield from _IN_LEGEND.findall(legend)
    if isinstance(keys := value.get("tagKeys"), str):
        yield from filter(None, map(str.strip, keys.split(",")))
    for texts in (_texts(value.get("labels")), _texts(value.get("annotations"))):
        for text in texts.values():
            yield from _IN_TEMPLATE.findall(text)


def _texts(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in pairs if isinstance(key, str) and isinstance(text, str)}
