"""The command `forwardscope report`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from forwardscope.analysis.report import report_of_runs
from forwardscope.analysis.run_data import read_result
from forwardscope.cli.reading import Traces
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.files import check_outputs, write_file
from forwardscope.suite.result import SuiteResult
from forwardscope.trace import TraceEvent

__all__ = ["report"]


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Results of runs, from `forwardscope run --json`.",
            metavar="RESULT.json",
            show_default=False,
        ),
    ],
    trace: Annotated[
        list[Path] | None,
        typer.Option(
            help="Trace of a run, for its timeline, durations and cache sizes; may be repeated.",
            metavar="FILE",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write.", metavar="FILE.html")
    ] = Path("report.html"),
) -> None:
    """Write an HTML report of runs: one file, which loads nothing from the network.

    The report has the verdicts, charts of what the probes measured, and the hits
    by probe and view; "(outside)" are lookups outside the probes: a run first
    checks both views for NaN and infinity. With --trace it also has a timeline,
    the durations of forward passes, the hit rate at every cache size, and the
    slowest passes. Of the traces each run has its own records.

    Exit status: 0, or 2 for an error.
    """
    traces = trace or []
    inputs = [*results, *traces]
    check_outputs({"report": output}, inputs)
    runs = [read_result(path) for path in results]
    text = report_of_runs([(run, _records_of(run, traces, len(runs) == 1)) for run in runs])
    write_file("report", output, text, inputs)
    Terminal().print(f"wrote {output}")


def _records_of(run: SuiteResult, traces: Sequence[Path], required: bool) -> Iterator[TraceEvent]:
    """Yield the records of a run in traces.

    Raises:
        UserError: A trace cannot be read, or none has a record of the run and one is required.
    """
    found = False
    for event in Traces(traces):
        if event.run_id == run.run_id:
            found = True
            yield event
    if traces and required and not found:
        places = ", ".join(map(str, traces))
        raise UserError(f"{places} has no record of run {run.run_id}; use the trace of that run")
