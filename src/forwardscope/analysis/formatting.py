"""Format numbers, and summaries and curves as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from forwardscope import text
from forwardscope.analysis.curve import Curve, CurvePoint
from forwardscope.analysis.summary import Summary, Totals
from forwardscope.analysis.tables import NARROW_SPACE, Column, Table, as_dicts
from forwardscope.core.series import Counts
from forwardscope.suite.formats import format_probe
from forwardscope.trace import TraceEvent

__all__ = [
    "OUTSIDE_MEANING",
    "count",
    "counts_table",
    "curve_table",
    "milliseconds",
    "percent",
    "plural",
    "seconds",
    "slowest_table",
    "summary_tables",
    "with_bars",
]

OUTSIDE_MEANING: Final = (
    "lookups outside the probes: a run first checks both views for NaN and infinity"
)
#: Durations below this many seconds have two decimals.
_PRECISE_S: Final = 10.0
#: Length of the bar of a rate of 1, in characters.
_BAR_LENGTH: Final = 32
_BAR_COLUMNS: Final = ("size", "hit_rate", "saved_s", "best_hit_rate")


def count(value: int) -> str:
    """Format a count."""
    return _with_narrow_spaces(f"{value:,}")


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, as `forwardscope.text.plural`, formatted as a count."""
    return text.plural(number, noun, count)


def percent(value: float) -> str:
    """Format a share as a percentage."""
    return f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """Format a duration given in seconds."""
    return _with_narrow_spaces(f"{value:,.2f} s" if abs(value) < _PRECISE_S else f"{value:,.1f} s")


def milliseconds(value: float) -> str:
    """Format a duration given in milliseconds."""
    return _with_narrow_spaces(f"{value:,.1f} ms")


def _with_narrow_spaces(formatted: str) -> str:
    return formatted.replace(",", NARROW_SPACE)


_COUNTS: Final = (
    Column("lookups", "lookups", count),
    Column("hits", "hits", count),
    Column("coalesced", "coalesced", count, optional=True),
    Column("store_hits", "from store", count, optional=True),
    Column("forward_passes", "passes", count),
    Column("forward_errors", "failed", count, optional=True),
    Column("hit_rate", "hit rate", percent),
    Column("forward_s", "time", seconds),
    Column("saved_s", "saved", seconds),
)


def summary_tables(summary: Summary) -> dict[str, Table]:
    """Return all tables of a summary, by their names in the JSON output."""
    return {
        "total": _grouped("all lookups", {"": summary.total}, Column("trace", "")),
        "by_probe": _grouped("by probe", summary.by_probe(), Column("probe", "probe")),
        "by_view": _grouped("by view", summary.by_view(), Column("view", "view")),
        "by_op": _grouped("by op", summary.by_op(), Column("op", "op")),
        "hits_by_tier": _hits(summary.total.counts),
        "slowest": slowest_table(summary.slowest, summary.slowest_numbers),
        "most_asked": _most_repeated(summary),
    }


def counts_table(summary: Summary) -> Table:
    """Return all counts as one table; the first two columns name the group of each row."""
    groups: dict[str, Mapping[str | None, Totals]] = {
        "total": {"": summary.total},
        "probe": summary.by_probe(),
        "view": summary.by_view(),
        "op": summary.by_op(),
    }
    return Table(
        "counts",
        (Column("by", "by"), Column("name", "name"), *_COUNTS),
        [
            (by, name, *_values(totals))
            for by, members in groups.items()
            for name, totals in members.items()
        ],
    )


def curve_table(curve: Curve, optimum: Sequence[CurvePoint]) -> Table:
    """Return the curve and the optimum at the sizes of the optimum.

    Without any forward pass in the trace, the time saved is not known.
    """
    timed = bool(curve.lookups.pass_s.any())
    columns = (
        Column("size", "entries", count),
        Column("hits", "hits", count),
        Column("hit_rate", "hit rate", percent),
        Column("saved_s", "saved", seconds),
        Column("best_hits", "optimum", count),
        Column("best_hit_rate", "optimum", percent),
        Column("best_saved_s", "saved", seconds),
    )
    rows = [
        (
            best.size,
            (lru := curve.at(best.size)).hits,
            lru.hits / curve.total,
            lru.saved_s if timed else None,
            best.hits,
            best.hits / curve.total,
            best.saved_s if timed else None,
        )
        for best in optimum
    ]
    return Table("hit rate by cache size", columns, rows)


def with_bars(table: Table) -> Table:
    """Return the columns of a curve table that fit a terminal, and a bar for each rate.

    The dark part of a bar is the hit rate; the light part extends it to the optimum.
    """
    columns = [column for column in table.columns if column.key in _BAR_COLUMNS]
    rows = []
    for row in as_dicts(table):
        full, best = (round(row[key] * _BAR_LENGTH) for key in ("hit_rate", "best_hit_rate"))
        rows.append((*(row[key] for key in _BAR_COLUMNS), "█" * full + "░" * (best - full)))
    return Table(table.title, (*columns, Column("bar", "")), rows)


def _grouped(title: str, groups: Mapping[str | None, Totals], first: Column) -> Table:
    rows = [(format_probe(name), *_values(totals)) for name, totals in groups.items()]
    return Table(title, (first, *_COUNTS), rows)


def _hits(counts: Counts) -> Table:
    """Return where hits were found, and how many were verified; no row without a store's."""
    columns = (
        Column("memory_hits", "memory", count),
        Column("disk_hits", "disk", count, optional=True),
        Column("remote_hits", "remote", count, optional=True),
        Column("remote_coalesced", "from another machine", count, optional=True),
        Column("verified", "verified", count),
        Column("mismatches", "mismatches", count),
    )
    verified = counts.matches + counts.mismatches
    row = (
        *(counts.memory_hits, counts.disk_hits, counts.remote_hits, counts.remote_coalesced),
        *(verified, counts.mismatches),
    )
    return Table("hits by tier", columns, [row] if counts.store_hits else [])


def _values(totals: Totals) -> tuple[Any, ...]:
    counts = totals.counts
    return (
        counts.lookups,
        counts.hits,
        counts.coalesced,
        counts.store_hits,
        counts.forward_passes,
        counts.forward_errors,
        counts.hit_rate,
        totals.forward_s,
        totals.saved_s,
    )


def slowest_table(events: Sequence[TraceEvent], numbers: Sequence[int] = ()) -> Table:
    """Return the records of forward passes as a table, with their numbers as misses if given.

    A table with numbers has no sizes of batches in the terminal, to fit 80 columns.
    """
    columns = (
        Column("miss", "miss", count, optional=True),
        Column("wall_ms", "pass", milliseconds),
        Column("probe", "probe"),
        Column("view", "view"),
        Column("op", "op"),
        Column("prompt_hash", "prompt"),
        Column("tokens", "tokens", count, optional=True),
        Column("batch", "batch", count, optional=True, hidden=bool(numbers)),
    )
    rows = [
        (
            number,
            event.wall_ms,
            format_probe(event.probe),
            event.view_id,
            event.op,
            event.prompt_hash,
            event.tokens,
            event.batch,
        )
        for event, number in zip_longest(events, numbers)
    ]
    return Table("slowest passes", columns, rows)


def _most_repeated(summary: Summary) -> Table:
    columns = (
        Column("prompt_hash", "prompt"),
        Column("lookups", "lookups", count),
        Column("forward_passes", "passes", count),
    )
    return Table("most repeated prompts", columns, summary.most_repeated)
