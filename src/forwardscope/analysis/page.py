"""An HTML page of tables and charts that loads no other file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from forwardscope.analysis.tables import Column, Table
from forwardscope.text import MAX_SENTENCE, printable, shown

__all__ = [
    "Charts",
    "data_table",
    "figure",
    "html_table",
    "link",
    "page",
    "paragraph",
    "section",
    "stacked_bar",
]

_FOLDER: Final = files("forwardscope.analysis") / "page"


class Charts:
    """The charts of a page that report.js draws.

    Attributes:
        data: Their data by the id of their element: the kind of the chart, with a number after
            the first of a kind.
    """

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self._numbers: Counter[str] = Counter()

    def add(self, kind: str, data: Any, label: str) -> str:
        """Return the empty element of a chart, with a label for screen readers."""
        self._numbers[kind] += 1
        number = self._numbers[kind]
        name = kind if number == 1 else f"{kind}-{number}"
        self.data[name] = data
        return (
            f'<div class="chart" id="{name}" data-kind="{kind}" role="img" '
            f'aria-label="{_escape(label)}"></div>'
        )


def page(title: str, body: Iterable[str], charts: Charts | None = None) -> str:
    """Return the page as HTML.

    Args:
        title: Plain text.
        body: HTML from the functions below.
        charts: The charts in the body, if report.js draws some.
    """
    return Template(_read("report.html")).substitute(
        title=_escape(title),
        styles=_read("uPlot.min.css") + _read("chart.css") + _read("report.css"),
        body="\n".join(body),
        # an escaped "<" cannot close the script element that contains the data
        data=json.dumps(charts.data if charts else {}).replace("<", "\\u003c"),
        scripts=_read("uPlot.iife.min.js") + _read("report.js"),
    )


def section(title: str, *parts: str) -> str:
    """Return a heading, followed by its parts."""
    return f"<section><h2>{_escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, *, muted: bool = False, bad: bool = False) -> str:
    """Return a paragraph of plain text, in a lighter colour if `muted`, in red if `bad`."""
    kind = "muted" if muted else "fail" if bad else ""
    return f'<p class="{kind}">{_escape(text)}</p>' if kind else f"<p>{_escape(text)}</p>"


def link(url: str, text: str) -> str:
    """Return a paragraph with a link; the URL is http or https."""
    return f'<p class="muted"><a href="{escape(printable(url))}">{_escape(text)}</a></p>'


def figure(title: str, svg: str, table: Table, note: str = "") -> str:
    """Return a chart of `forwardscope.analysis.svg` with a title, and its data beneath."""
    said = paragraph(note, muted=True) if note else ""
    return (
        f"<figure><figcaption>{_escape(title)}</figcaption>{svg}{said}{data_table(table)}</figure>"
    )


def data_table(table: Table) -> str:
    """Return the data of a chart as a table that opens at a click."""
    return f"<details><summary>Data</summary>{html_table(table)}</details>"


def stacked_bar(shares: Mapping[str, float], label: str) -> str:
    """Return a bar of parts, whose names are classes, with a label for screen readers."""
    parts = "".join(
        f'<span class="{_escape(name)}" style="flex-grow: {share:.4f}"></span>'
        for name, share in shares.items()
        if share
    )
    return f'<div class="bar" role="img" aria-label="{_escape(label)}">{parts}</div>'


def html_table(table: Table) -> str:
    """Return a table with a bar behind each hit rate, and colours of verdicts and tiers."""
    columns, rows = table.formatted()
    places = [table.columns.index(column) for column in columns]
    head = "".join(f"<th{_class(column)}>{escape(column.title)}</th>" for column in columns)
    lines = [
        "".join(
            _cell(column, text, row[place])
            for column, text, place in zip(columns, texts, places, strict=True)
        )
        for texts, row in zip(rows, table.rows, strict=True)
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    label = _escape(table.title)
    # a keyboard scrolls what has the focus
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">{html}</div>'


def _escape(text: str) -> str:
    return escape(shown(text, MAX_SENTENCE))


def _cell(column: Column, text: str, value: Any) -> str:
    if column.key == "verdict":
        return f'<td class="{escape(text)}">{escape(text)}</td>'
    if column.key == "tier":
        return f'<td class="tier {escape(text)}">{escape(text)}</td>'
    if column.key == "hit_rate" and value is not None:
        return f'<td class="number share" style="--share: {100 * value:.1f}%">{escape(text)}</td>'
    if column.key == "mismatches" and value:
        return f'<td class="number fail">{escape(text)}</td>'
    return f"<td{_class(column)}>{escape(text)}</td>"


def _class(column: Column) -> str:
    return ' class="number"' if column.form else ""


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
