"""The command `forwardscope report`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from forwardscope.analysis.report import report as report_of
from forwardscope.analysis.run_data import read_result
from forwardscope.cli.outputs import check_outputs
from forwardscope.cli.reading import Traces
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.files import write_file
from forwardscope.suite.result import SuiteResult
from forwardscope.trace import TraceEvent

__all__ = ["report"]


def report(
    result: Annotated[
        Path,
        typer.Argument(
            help="Result of the run, from `forwardscope run --json`.",
            metavar="RESULT.json",
            show_default=False,
        ),
    ],
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Trace of the run, for the timeline, durations and cache sizes.", metavar="FILE"
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", metavar="FILE.html")
    ] = Path("report.html"),
) -> None:
    """Write an HTML report of a run: one file, which loads nothing from the network.

    The report has the verdicts and the hits by probe and view; "(outside)" are
    lookups outside the probes: a run first checks both views for NaN and infinity.
    With --trace it also has a timeline, the durations of forward passes, the hit
    rate at every cache size, and the slowest passes. If the trace has several
    runs, only the records of this run are used.

    Exit status: 0, or 2 for an error.
    """
    inputs = [result] if trace is None else [result, trace]
    check_outputs({"report": output}, inputs)
    run = read_result(result)
    events = None if trace is None else _records_of(run, trace)
    text = report_of(run, events)
    write_file("report", output, text, inputs)
    Terminal().print(f"wrote {output}")


def _records_of(run: SuiteResult, trace: Path) -> Iterator[TraceEvent]:
    """Yield the records of a run.

    Raises:
        UserError: The trace cannot be read, or has no record of the run.
    """
    found = False
    for event in Traces([trace]):
        if event.run_id == run.run_id:
            found = True
            yield event
    if not found:
        raise UserError(f"{trace} has no record of run {run.run_id}; use the trace of that run")
