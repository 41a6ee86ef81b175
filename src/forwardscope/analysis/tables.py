"""Tables as plain data, and their output for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from forwardscope.text import MAX_NAME, plural, printable, shown

__all__ = [
    "NARROW_SPACE",
    "Column",
    "Table",
    "as_csv",
    "as_dicts",
    "as_markdown",
    "as_rich",
    "markdown_text",
]

#: Thousands separator. A comma is a decimal sign in some languages.
NARROW_SPACE: Final = "\u202f"
#: First characters of a formula in a spreadsheet; tabs and line breaks are escaped anyway.
_FORMULA: Final = ("=", "+", "-", "@")
#: Rows that a terminal has of a table: laying out a row takes a millisecond.
_MAX_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: Name in CSV and JSON.
        title: Heading.
        form: Formats a number and right-aligns the column. None: text, left-aligned.
        optional: Whether the column is hidden in terminal and Markdown output if all its
            values are 0 or None.
        hidden: Whether the column is hidden there in any case.
        length: Characters of a text that terminal, Markdown and HTML output have.
        paths: Whether the texts are names that can be paths, of which a terminal has the ends.
    """

    key: str
    title: str
    form: Callable[[Any], str] | None = None
    optional: bool = False
    hidden: bool = False
    length: int = MAX_NAME
    paths: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with one value for each column."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]

    def formatted(self) -> tuple[list[Column], list[list[str]]]:
        """Return the columns and the rows as formatted text; a dash replaces None."""
        values = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        visible = [
            (column, cells)
            for column, cells in zip(self.columns, values, strict=True)
            if not (column.hidden or (column.optional and not any(cells)))
        ]
        texts = [[_format(column, value) for value in cells] for column, cells in visible]
        return [column for column, _ in visible], [list(row) for row in zip(*texts, strict=True)]


def as_rich(table: Table) -> RichTable:
    """Return the table for a terminal; of a long one, the first rows and how many follow."""
    rich_table = RichTable(
        title=Text(table.title),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    columns, rows = replace(table, rows=table.rows[:_MAX_ROWS]).formatted()
    if more := len(table.rows) - len(rows):
        rich_table.caption = Text(f"and {plural(more, 'further row')}")
        rich_table.caption_justify = "left"
    for column in columns:
        if column.form is None:
            rich_table.add_column(column.title, overflow="fold")
        else:
            rich_table.add_column(column.title, justify="right", no_wrap=True)
    paths = [column.paths for column in columns]
    cells = [
        _ends_of_paths(texts) if shorten else texts
        for shorten, texts in zip(paths, zip(*rows, strict=True), strict=False)
    ]
    for row in zip(*cells, strict=True):
        rich_table.add_row(*map(Text, row))
    return rich_table


def _ends_of_paths(texts: Sequence[str]) -> list[str]:
    """Return of each path the last parts that tell it from the others, after an ellipsis."""
    parts = {text: text.split("/") for text in texts}
    found = Counter(end for own in parts.values() for end in _ends(own))
    short = {text: text for text in texts}
    for text, own in parts.items():
        for end in _ends(own)[: len(own) - 2]:  # two parts, as in a hub id, are not shortened
            if found[end] == 1:
                short[text] = f"…/{end}"
                break
    return [short[text] for text in texts]


def _ends(parts: Sequence[str]) -> list[str]:
    """Return the last part of a path, its last two parts, and so on."""
    return ["/".join(parts[-length:]) for length in range(1, len(parts) + 1)]


def as_markdown(table: Table) -> str:
    """Return the table as GitHub Markdown, with a heading."""
    columns, rows = table.formatted()
    lines = [
        f"### {markdown_text(table.title)}",
        "",
        _markdown_row(column.title for column in columns),
        _markdown_row("---:" if column.form else "---" for column in columns),
        *(_markdown_row(map(markdown_text, row)) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def as_csv(table: Table) -> str:
    """Return the unformatted values as CSV, with the column keys as header.

    Text is printable. An apostrophe precedes text that a spreadsheet would take for
    a formula.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.key for column in table.columns)
    for row in table.rows:
        writer.writerow(_csv_cell(cell) if isinstance(cell, str) else cell for cell in row)
    return text.getvalue()


def as_dicts(table: Table) -> list[dict[str, Any]]:
    """Return the unformatted values of each row by column key."""
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def _format(column: Column, value: Any) -> str:
    if value is None:
        return "–"
    return shown(str(value), column.length) if column.form is None else column.form(value)


def _csv_cell(text: str) -> str:
    return printable(f"'{text}" if text.startswith(_FORMULA) else text)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown_text(text: str) -> str:
    """Return text with escapes for the characters that Markdown or HTML would interpret."""
    return "".join(f"\\{one}" if one in "\\`*_{}[]<>()#+!|&~" else one for one in text)
