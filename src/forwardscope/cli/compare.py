"""The command `forwardscope compare`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from forwardscope.analysis.compare import MAX_RESULTS, comparison_notes, comparison_tables
from forwardscope.analysis.page import html_table, page, paragraph, section
from forwardscope.analysis.run_data import read_result
from forwardscope.analysis.tables import (
    Table,
    as_csv,
    as_dicts,
    as_markdown,
    as_rich,
    markdown_text,
)
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.files import check_outputs, write_file
from forwardscope.suite.report import print_line
from forwardscope.text import MAX_SENTENCE, plural, shown

__all__ = ["compare"]


class Format(StrEnum):
    """Output formats."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more results, from `forwardscope run --json`. The first is what the "
            "others are compared with.",
            metavar="RESULT.json",
        ),
    ],
    format: Annotated[  # noqa: A002 - the option's name
        Format,
        typer.Option(
            "--format",
            help="Output format; markdown suits a pull request comment, csv has only the probes.",
        ),
    ] = Format.TERMINAL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write to this file instead of the terminal.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Show several results side by side: what each probe measured, and what it cost.

    A change is that to the first result. It is clear where each value lies
    outside the other's 95 % interval; p is the probability of such a change if
    there were none, corrected for the number of comparisons by Holm's method.

    To show how the adapters of two runs differ, and write the same for a browser:

        forwardscope compare before.json after.json

        forwardscope compare before.json after.json --format html -o compare.html

    This command shows; `forwardscope gate` decides, with an exit status for CI.

    Exit status: 0, or 2 for an error.
    """
    if not 2 <= len(files) <= MAX_RESULTS:
        raise UserError(f"compare needs 2 to {MAX_RESULTS} results; got {len(files)}")
    check_outputs({"comparison": output}, files)
    results = [read_result(file) for file in files]
    tables = comparison_tables(results, [str(file) for file in files])
    notes = comparison_notes(results)
    if output is None and format is Format.TERMINAL:
        _print(tables, notes)
    elif output is None:
        Terminal().write(_formatted(format, tables, notes).rstrip("\n"))
    else:
        text = _formatted(_format_of(output, format), tables, notes)
        write_file("comparison", output, text, files)
        Terminal().print(f"wrote {output}")


def _format_of(output: Path, given: Format) -> Format:
    """Return the format of a file: as given, or else as its name ends."""
    endings = {".md": Format.MARKDOWN, ".json": Format.JSON, ".csv": Format.CSV}
    if given is not Format.TERMINAL:
        return given
    return endings.get(output.suffix, Format.HTML)


def _formatted(format: Format, tables: dict[str, Table], notes: list[str]) -> str:  # noqa: A002
    if format is Format.JSON:
        rows = {name: as_dicts(table) for name, table in tables.items()}
        return json.dumps(rows | {"notes": notes}, indent=2) + "\n"
    if format is Format.CSV:
        return as_csv(tables["probes"])
    if format is Format.MARKDOWN:
        parts = [as_markdown(table) for table in tables.values()]
        lines = "".join(f"- {markdown_text(shown(note, MAX_SENTENCE))}\n" for note in notes)
        return "\n".join(["## forwardscope compare\n", *parts, lines])
    body = [section(table.title, html_table(table)) for table in tables.values()]
    title = f"Comparison of {plural(len(tables['runs'].rows), 'run')}"
    return page(title, [f"<h1>{title}</h1>", *body, *map(paragraph, notes)])


def _print(tables: dict[str, Table], notes: list[str]) -> None:
    terminal = Terminal(soft_wrap=False)
    for table in tables.values():
        terminal.print(as_rich(table))
    for note in notes:
        print_line(terminal, Text(shown(note, MAX_SENTENCE)))
