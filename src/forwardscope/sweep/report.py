"""Terminal report of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forwardscope.probes import Verdict
from forwardscope.suite.report import print_line
from forwardscope.sweep.result import AdapterRow, ProbeCell, SweepResult
from forwardscope.text import MAX_SENTENCE, plural, printable, shown

__all__ = ["LEGEND", "change_mark", "comparisons_line", "passes_line", "print_report"]

#: Corrected p below which a change is marked.
_SIGNIFICANT: Final = 0.05
LEGEND: Final = (
    "each probe: score (0.5 at the threshold) and verdict; beneath, the change of what it measures "
    "against the adapter before: * p < 0.05, corrected; ° without an interval, not tested"
)
_STYLES: Final = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold red reverse",
    Verdict.SKIP: "dim",
}
_NO_VALUE: Final = "–"
#: Columns of a probe, and of all but adapters and probes; each with the space after it.
_PROBE: Final = 13
_OTHERS: Final = 9
_MIN_LABEL, _MAX_LABEL = 12, 40


def print_report(result: SweepResult, console: Console) -> None:
    """Print a table adapter × probe, what it cost, what happened, and what was delivered."""
    console.print()
    about = f"{result.suite} on {result.model}: {plural(len(result.rows), 'adapter')}"
    print_line(console, Text(shown(f"{about}, {result.wall_s:.1f} s", MAX_SENTENCE)))
    for names in _blocks(result, console.width):
        console.print(_table(result.rows, names))
    print_line(console, Text(LEGEND, style="dim"))
    print_line(console, Text(comparisons_line(result)))
    print_line(console, Text(passes_line(result)))
    for event in result.events:
        line = Text(f"warning: {shown(event, MAX_SENTENCE)}", style="bold yellow")
        print_line(console, line)
    if result.trace_id is not None:
        url = result.trace_url
        where = "" if url is None else f": {printable(url)}"
        print_line(console, Text(f"trace {printable(result.trace_id)}{where}"))
    for one in result.delivery:
        style = "" if one.ok else "bold yellow"
        print_line(console, Text(shown(f"{one.to}: {one.what}", MAX_SENTENCE), style=style))


def comparisons_line(result: SweepResult) -> str:
    """Return how many comparisons were made, and how they were corrected."""
    made, tested = result.comparisons.changes, result.comparisons.tested
    if not made:
        return "no adapter could be compared with the one before"
    line = f"{plural(made, 'comparison')} with the adapter before"
    if tested:
        line += f"; p of {tested} corrected together by Holm's method"
    if made > tested:
        line += f"; {made - tested} without an interval on both sides, so neither tested"
        line += " nor corrected"
    return line


def passes_line(result: SweepResult) -> str:
    """Return what the sweep's forward passes cost."""
    passes = result.passes
    tiers = [f"{n} from {tier}" for tier, n in passes.by_tier.items() if tier != "memory"]
    line = f"{passes.forward_passes} of {passes.demand} needed were paid"
    line = "forward passes: " + (", ".join([line, *tiers]) if passes.lookups else "none")
    resumed = sum(row.status == "resumed" for row in result.rows)
    kept = f"; {plural(resumed, 'adapter')} kept from before" if resumed else ""
    return f"{line}; {plural(result.workers, 'worker')}{kept}"


def change_mark(p: float | None) -> str:
    """Return the mark of a change with this corrected p; None if it was not tested."""
    if p is None:
        return "°"
    return "*" if p < _SIGNIFICANT else ""


def _blocks(result: SweepResult, width: int) -> Iterator[Sequence[str]]:
    """Yield the probes in groups that fit beside the adapters."""
    names = list(dict.fromkeys(cell.name for row in result.rows for cell in row.probes))
    fit = max(1, (width - _label_width(result.rows) - _OTHERS) // _PROBE)
    yield from (names[start : start + fit] for start in range(0, len(names), fit))
    if not names:
        yield []


def _label_width(rows: Sequence[AdapterRow]) -> int:
    longest = max((cell_len(row.label) for row in rows), default=0)
    return min(max(longest, _MIN_LABEL), _MAX_LABEL)


def _table(rows: Sequence[AdapterRow], names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("adapter", overflow="fold", max_width=_label_width(rows))
    table.add_column("score", justify="right", no_wrap=True)
    for name in names:
        table.add_column(Text(shown(name)), overflow="fold", max_width=_PROBE - 1)
    for row in rows:
        cells = {cell.name: cell for cell in row.probes}
        own = [_cell(row, cells.get(name)) for name in names]
        score = _NO_VALUE if row.score is None else f"{row.score:.2f}"
        table.add_row(Text(shown(row.label)), score, *own)
    return table


def _cell(row: AdapterRow, cell: ProbeCell | None) -> Text:
    if cell is None:
        return Text("ERROR" if row.status == "error" else _NO_VALUE, style=_STYLES[Verdict.ERROR])
    score = _NO_VALUE if cell.score is None else f"{cell.score:.2f}"
    text = Text.assemble(f"{score} ", (cell.verdict.value, _STYLES[cell.verdict]))
    if cell.change is not None:
        mark = change_mark(cell.p)
        text.append(f"\n{cell.change:+.3g}{mark}", style="bold" if mark == "*" else "dim")
    return text
