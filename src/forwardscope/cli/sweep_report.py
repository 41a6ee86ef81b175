"""The report of a sweep: in the terminal, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.text import Text

from forwardscope.analysis.formatting import count, seconds
from forwardscope.analysis.report import report
from forwardscope.analysis.sweep_page import AdapterPoint, ProbeLine, SweepFacts, sweep_page
from forwardscope.analysis.tables import Column, Table
from forwardscope.files import write_file
from forwardscope.suite.report import print_line
from forwardscope.suite.result import SuiteResult
from forwardscope.sweep import AdapterRow, SweepFolder, SweepObserver, SweepResult
from forwardscope.sweep.report import change_mark, comparisons_line, passes_line, print_report
from forwardscope.sweep.result import ProbeCell
from forwardscope.text import plural, shown
from forwardscope.trace import TraceReader

__all__ = ["RunReports", "print_sweep", "write_sweep"]

_NOTE = (
    "score: 0.5 at the threshold, 1 at best; raw: what the probe measures; change: that of raw "
    "against the adapter before; p: probability of such a change if there were none, corrected "
    "for all of the sweep's by Holm's method; – where it was not tested. In the table: the change, "
    "with * where p < 0.05 and ° where it was not tested"
)


class RunReports(SweepObserver):
    """Writes the report of each run when its adapter ends.

    Args:
        folder: The folder of the sweep.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder

    def adapter_finished(self, row: AdapterRow) -> None:
        """Write the report beside the result, unless it is there."""
        path = self._folder.report_of(row.label)
        if row.status == "error" or (row.status == "resumed" and path.is_file()):
            return
        data = self._folder.result_of(row.label).read_bytes()
        result = SuiteResult.model_validate_json(data)
        write_file("report", path, _report(result, self._folder.trace(row.label)))


def _report(result: SuiteResult, trace: Path) -> str:
    """Return the page of a run, with what its trace shows if that can be read."""
    events = (event for event in TraceReader(trace) if event.run_id == result.run_id)
    try:
        return report(result, events)
    except OSError:
        return report(result, None)


def write_sweep(result: SweepResult, folder: SweepFolder) -> None:
    """Write sweep.json and report.html.

    Raises:
        OutputError: One cannot be written.
    """
    result.write(folder.result)
    facts = SweepFacts(
        title=f"{result.suite}: {_adapters(result)}",
        about=list(_about(result)),
        events=result.events,
        reports=list(_reports(result, folder)),
        traces_url=result.trace_url,
        delivery=[f"{one.to}: {one.what}" for one in result.delivery],
    )
    text = sweep_page(facts, _lines(result), [_table(result), _scores(result)], _NOTE)
    write_file("report", folder.report, text)


def print_sweep(result: SweepResult, folder: SweepFolder, console: Console) -> None:
    """Print what each adapter measured, what that cost, what happened, and where it is."""
    print_report(result, console)
    style = "bold green" if result.passed else "bold red"
    passed = sum(row.passed for row in result.rows)
    line = f"{passed} of {plural(len(result.rows), 'adapter')} passed"
    print_line(console, Text(line, style=style))
    place = quote(str(folder.report))
    print_line(console, Text(f"{shown(place)} shows the scores along the adapters"))


def _about(result: SweepResult) -> Iterator[str]:
    if result.not_run:
        yield f"The sweep was interrupted; not measured: {', '.join(result.not_run)}"
    passed = sum(row.passed for row in result.rows)
    yield f"{passed} of {_adapters(result)} on {result.model} passed"
    yield f"{result.started_at}, {seconds(result.wall_s)}; {passes_line(result)}"
    yield comparisons_line(result)


def _adapters(result: SweepResult) -> str:
    """Return how many adapters were to be measured."""
    return plural(len(result.rows) + len(result.not_run), "adapter")


def _reports(result: SweepResult, folder: SweepFolder) -> Iterator[tuple[str, str]]:
    for row in result.rows:
        path = folder.report_of(row.label)
        if path.is_file():
            yield row.label, f"{row.folder}/{path.name}"


def _lines(result: SweepResult) -> list[ProbeLine]:
    """Return the probes that have a score; a calibration has none."""
    cells = [cell for row in result.rows for cell in row.probes]
    names = dict.fromkeys(cell.name for cell in cells if cell.score is not None)
    return [ProbeLine(name, [_point(row, name) for row in result.rows]) for name in names]


def _point(row: AdapterRow, name: str) -> AdapterPoint:
    cell = next((one for one in row.probes if one.name == name), None)
    if cell is None:
        return AdapterPoint(row.index + 1, row.label, None, None, None, None, None)
    measured = (cell.verdict.value, cell.score, cell.raw, cell.change, cell.p)
    return AdapterPoint(row.index + 1, row.label, *measured)


def _scores(result: SweepResult) -> Table:
    """Return the table adapter × probe."""
    names = list(dict.fromkeys(cell.name for row in result.rows for cell in row.probes))
    columns = [Column("label", "adapter"), *(Column(name, shown(name)) for name in names)]
    rows = []
    for row in result.rows:
        cells = {cell.name: cell for cell in row.probes}
        empty = "error" if row.status == "error" else None
        rows.append(
            [row.label, *(_text(cells[name]) if name in cells else empty for name in names)]
        )
    return Table("scores", columns, rows)


def _text(cell: ProbeCell) -> str:
    score = "" if cell.score is None else f"{cell.score:.2f} "
    if cell.change is None:
        return f"{score}{cell.verdict.value}"
    mark = change_mark(cell.p)
    return f"{score}{cell.verdict.value}, {cell.change:+.3g}{mark}"


def _table(result: SweepResult) -> Table:
    columns = (
        Column("number", "#", str),
        Column("label", "adapter"),
        Column("status", "status"),
        Column("score", "score", lambda value: f"{value:.2f}"),
        Column("passed", "passed"),
        Column("demand", "needed", count),
        Column("forward_passes", "paid", count),
        Column("wall_s", "took", seconds),
        Column("worker", "worker", optional=True),
    )
    rows = [
        (
            *(row.index + 1, row.label, row.status, row.score, "yes" if row.passed else "no"),
            *(row.passes.demand, row.passes.forward_passes, row.wall_s),
            row.worker if result.workers > 1 else None,
        )
        for row in result.rows
    ]
    return Table("adapters", columns, rows)
