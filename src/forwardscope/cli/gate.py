"""The command `forwardscope gate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from forwardscope.analysis.formatting import plural
from forwardscope.analysis.gate import Check, Limits, as_junit, compare, comparison_table
from forwardscope.analysis.run_data import RunData, is_result, run_data_of_result, run_data_of_trace
from forwardscope.analysis.tables import (
    Column,
    Table,
    as_dicts,
    as_markdown,
    as_rich,
)
from forwardscope.cli.reading import Traces, require_plain_file
from forwardscope.cli.terminal import Terminal
from forwardscope.files import write_file
from forwardscope.text import MAX_SENTENCE

__all__ = ["gate"]


def gate(
    reference: Annotated[
        Path,
        typer.Argument(
            help="Result or trace of the reference run.", metavar="REFERENCE", show_default=False
        ),
    ],
    current: Annotated[
        Path,
        typer.Argument(
            help="Result or trace of the run to check.", metavar="CURRENT", show_default=False
        ),
    ],
    max_more_passes: Annotated[
        int,
        typer.Option(help="Additional forward passes to allow per probe and view.", min=0),
    ] = 0,
    max_hit_rate_drop: Annotated[
        float,
        typer.Option(
            help="Drop of the hit rate to allow; 0.01 is one percentage point.", min=0, max=1
        ),
    ] = 0.0,
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            help="Allowed ratio of the mean durations of a forward pass, for example 1.5. By "
            "default times are printed and not checked.",
            min=0,
            show_default=False,
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(help="Write the checks to this file as JUnit XML.", metavar="FILE.xml"),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json", "markdown"],
        typer.Option("--format", help="Output format; markdown suits a pull request comment."),
    ] = "terminal",
) -> None:
    """Compare a run with a reference run of the same suite.

    Each argument is a result (`forwardscope run --json`) or a trace (`--trace`).
    A check fails when a probe needed more forward passes on a view, when the hit
    rate fell, or when a probe's verdict got worse. Needed passes are those that a
    run paid, and those that a store spared it. From two traces, additional passes for
    new distinct lookups (view, op, prompt and top_k) are counted.

    Exit status: 0 when nothing is worse, 1 when something is, 2 when the files
    cannot be compared.
    """
    limits = Limits(max_more_passes, max_hit_rate_drop, max_slowdown)
    before, now = _run_data(reference), _run_data(current)
    checks = compare(before, now, limits)
    if junit is not None:
        write_file("JUnit file", junit, as_junit(checks), [reference, current])
    table = comparison_table(before, now)
    failed = [check for check in checks if not check.ok]
    if format == "json":
        urls = {"reference_trace": before.trace_url, "current_trace": now.trace_url}
        Terminal().write(json.dumps(_facts(checks, table) | urls, indent=2))
    elif format == "markdown":
        Terminal().write(_markdown(failed, len(checks), table, _traces(before, now)))
    else:
        _print(failed, len(checks), table, _traces(before, now))
    raise typer.Exit(1 if failed else 0)


def _run_data(path: Path) -> RunData:
    require_plain_file(path)
    if is_result(path):
        return run_data_of_result(path)
    return run_data_of_trace(path, Traces([path]))


def _facts(checks: list[Check], table: Table) -> dict[str, Any]:
    found = [{"name": check.name, "ok": check.ok, "says": check.finding} for check in checks]
    return {"ok": all(check.ok for check in checks), "checks": found, "compared": as_dicts(table)}


def _summary(failed: list[Check], checks: int) -> str:
    if not failed:
        return f"nothing is worse: {plural(checks, 'check')}"
    return f"worse than the reference run: {len(failed)} of {plural(checks, 'check')}"


def _traces(before: RunData, now: RunData) -> list[str]:
    """Return a line with the address of each trace."""
    runs = {"reference": before.trace_url, "current": now.trace_url}
    return [f"trace of the {name} run: {url}" for name, url in runs.items() if url is not None]


def _print(failed: list[Check], checks: int, table: Table, traces: list[str]) -> None:
    terminal = Terminal()
    terminal.print(as_rich(table))
    for check in failed:
        terminal.print_message("worse", "bold red", check.finding)
    for line in traces:
        terminal.print(line)
    style = "bold red" if failed else "bold green"
    terminal.print(Text(_summary(failed, checks), style=style))


def _markdown(failed: list[Check], checks: int, table: Table, traces: list[str]) -> str:
    finding = Column("finding", "finding", length=MAX_SENTENCE)
    rows = [(check.finding,) for check in failed]
    worse = as_markdown(Table("Worse", (finding,), rows)) + "\n" if rows else ""
    links = "".join(f"{line}\n\n" for line in traces)
    return f"## forwardscope gate: {_summary(failed, checks)}\n\n{links}{worse}{as_markdown(table)}"
