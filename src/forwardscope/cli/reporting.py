"""The command that makes a page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from forwardscope.analysis.report import report as report_of
from forwardscope.analysis.run_data import read_result
from forwardscope.cli.exits import mistakes_exit_with_two
from forwardscope.cli.reading import Traces
from forwardscope.errors import OutputError, UserError
from forwardscope.suite.result import SuiteResult
from forwardscope.trace import TraceEvent

__all__ = ["report"]


def report(
    result: Annotated[
        Path, typer.Argument(help="Of `forwardscope run --json`.", show_default=False)
    ],
    trace: Annotated[
        Path | None,
        typer.Option(help="The run's trace: adds the timeline, durations and the cache curve."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one page of a run, which opens from a disk and asks no network for anything.

    Verdicts, hits by probe and view, and with its trace a timeline, how long
    forward passes took, the hit rate at every cache size, and the slowest
    passes. A trace of several runs is taken for this one's part in it.
    """
    with mistakes_exit_with_two():
        found = read_result(result)
        events = None if trace is None else _of_run(trace, found)
        text = report_of(found, events)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{output} cannot be written: {error.strerror}") from error
    Console(highlight=False, soft_wrap=True, markup=False).print(f"wrote {output}")


def _of_run(trace: Path, result: SuiteResult) -> list[TraceEvent]:
    events = [event for event in Traces([trace]) if event.run_id == result.run_id]
    if not events:
        raise UserError(f"{trace} has no record of run {result.run_id}; it is of another run")
    return events
