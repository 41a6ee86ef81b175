"""The commands `forwardscope trace summary`, `curve`, `why` and `export`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated, Final

import typer

from forwardscope.analysis import legend
from forwardscope.analysis.curve import SHARES, Curve, curve_of, optimum_at, representative_sizes
from forwardscope.analysis.formatting import (
    count,
    counts_table,
    curve_table,
    plural,
    summary_tables,
    with_bars,
)
from forwardscope.analysis.summary import summarize
from forwardscope.analysis.tables import (
    Table,
    as_csv,
    as_dicts,
    as_markdown,
    as_rich,
)
from forwardscope.cli.reading import REQUIRED_KEYS, Traces
from forwardscope.cli.terminal import Terminal
from forwardscope.cli.trace_export import export
from forwardscope.cli.why import why
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["traces"]

traces = typer.Typer(
    help="Analyse trace files: forward passes, hit rates, cache sizes and misses.\n\n"
    "`forwardscope run --trace` writes them. Files of other tools are read if each line is a JSON "
    f"object with the keys {REQUIRED_KEYS}.",
    no_args_is_help=True,
)


_NOT_TIMED: Final = (
    "the time saved is not known (–) where the trace has no forward pass of an op; give the trace "
    "of the run that paid for them as well"
)


class Format(StrEnum):
    """Output formats."""

    TERMINAL = "terminal"
    JSON = "json"
    MARKDOWN = "markdown"
    CSV = "csv"


_Files = Annotated[
    list[Path], typer.Argument(help="Trace files, read as one trace.", metavar="FILE")
]
_File = Annotated[Path, typer.Argument(help="A trace file.", metavar="FILE", show_default=False)]


@traces.command()
def summary(
    files: _Files,
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="Output format; csv has only the counts.")
    ] = Format.TERMINAL,
) -> None:
    """Count lookups, hits and forward passes by probe, view and op.

    Also prints the time spent in forward passes, the time that hits saved, the
    slowest passes and the prompts with the most lookups. A distinct lookup is a
    combination of view, op, prompt and top_k. A hit saves the mean duration of
    the passes of its distinct lookup, or of its op and view, or of its op if the
    trace has none. The hit rate is the share of lookups without a forward pass of
    their own; it includes coalesced lookups. "(outside)" are lookups outside the
    probes: a run first checks both views for NaN and infinity.

    Exit status: 0, or 2 when a file is not a trace or cannot be read.
    """
    events = Traces(files)
    result = summarize(events)
    tables = summary_tables(result)
    not_timed = result.total.saved_s is None
    if format is Format.JSON:
        facts = {"skipped_lines": events.skipped, "questions": result.distinct_lookups}
        rows = {name: as_dicts(table) for name, table in tables.items()}
        Terminal().write(json.dumps({**facts, **rows}, indent=2))
    elif format is Format.CSV:
        Terminal().write(as_csv(counts_table(result)).rstrip("\n"))
    elif format is Format.MARKDOWN:
        Terminal().write("\n".join(as_markdown(table) for table in tables.values()))
        if not_timed:
            Terminal().write(_NOT_TIMED)
    else:
        _print(*(table for table in tables.values() if table.rows))
        _print_line(plural(result.distinct_lookups, "distinct lookup"))
        if any((event.batch or 1) > 1 for event in result.slowest):
            _print_line(f"slowest passes: {legend.SHARES}")
        if result.slowest and len(files) == 1:
            file = quote(str(files[0]))
            _print_line(f"why each miss: forwardscope trace why {file} [--miss N]")
        if not_timed:
            _print_line(_NOT_TIMED)
    _print_skipped(events)


@traces.command()
def curve(
    file: _File,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the curve into this file, for example an SVG.", metavar="FILE.svg"),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="Output format.")
    ] = Format.TERMINAL,
) -> None:
    """Compute the hit rate at every cache size, and the sizes that are large enough.

    The hit rate is exact for a cache that evicts the least recently used entry,
    as forwardscope's does. The column `optimum` is the hit rate of Bélády's MIN,
    which knows all later lookups; no policy exceeds it. Each run in the file
    starts with an empty cache. Failed lookups do not count. Lookups of one batch
    are taken in the order of the file.

    Exit status: 0, or 2 when the file is not a trace or cannot be read.
    """
    if plot is not None:
        from forwardscope.analysis.plot import write_plot  # noqa: PLC0415 - of an extra
    events = Traces([file])
    result = curve_of(events)
    best = list(optimum_at(result, representative_sizes(result)))
    if plot is not None:
        write_plot(result, best, plot, [file])
    table = curve_table(result, best)
    if format is Format.JSON:
        lookups, hits = result.total, result.lookups.hits
        facts = {"skipped_lines": events.skipped, "lookups": lookups, "hits": hits}
        sizes = {f"{share:.0%}": result.smallest_size(share) for share in SHARES}
        Terminal().write(json.dumps({**facts, "worth": sizes, "sizes": as_dicts(table)}, indent=2))
    elif format is Format.CSV:
        Terminal().write(as_csv(table).rstrip("\n"))
    elif format is Format.MARKDOWN:
        Terminal().write(as_markdown(table))
    else:
        _print_curve(result, table)
    _print_skipped(events)


traces.command()(why)
traces.command()(export)


def _print_curve(curve: Curve, table: Table) -> None:
    if not table.rows:
        _print_line(f"{plural(curve.total, 'lookup')}, all distinct: no cache size gives a hit")
        return
    _print(with_bars(table))
    _print_line(f"recorded: {plural(curve.lookups.hits, 'hit')} in {plural(curve.total, 'lookup')}")
    for share in SHARES:
        size, part = count(curve.smallest_size(share)), "all" if share == 1 else f"{share:.0%}"
        _print_line(f"max_entries {size} gives {part} of the hits of an unbounded cache")


def _print(*tables: Table) -> None:
    terminal = Terminal(soft_wrap=False)
    for table in tables:
        terminal.print()
        terminal.print(as_rich(table))


def _print_line(line: str) -> None:
    Terminal().print(shown(line, MAX_SENTENCE))


def _print_skipped(events: Traces) -> None:
    if events.skipped:
        lines = "1 line is" if events.skipped == 1 else f"{count(events.skipped)} lines are"
        note = f"{lines} skipped: incomplete, or not a trace record"
        Terminal(stderr=True).print(note)
