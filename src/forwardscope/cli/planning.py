"""The command `forwardscope plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forwardscope.analysis.formatting import OUTSIDE, count, percent, plural
from forwardscope.analysis.tables import Column, Table, as_dicts, as_markdown, as_rich
from forwardscope.cli.terminal import Terminal
from forwardscope.core.series import Counts
from forwardscope.errors import ProbeError, UserError
from forwardscope.suite.loading import load_suite
from forwardscope.suite.plan import Plan, enough_entries, plan_suite, shared_work
from forwardscope.suite.spec import SuiteSpec

__all__ = ["plan"]


def plan(
    suite: Annotated[Path, typer.Argument(help="The suite file.", metavar="SUITE.yaml")],
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json", "markdown"], typer.Option("--format", help="Output format.")
    ] = "terminal",
) -> None:
    """Count the lookups and forward passes of a suite, without loading a model.

    Runs the probes on made-up values. Prints lookups and forward passes by probe
    and view, with an unbounded cache and with the suite's cache; the probes that
    computed the values of each probe's hits; and a cache size with which no value
    is computed twice. "(outside)" are lookups outside the probes: a run first
    checks both views for NaN and infinity.

    Assumes that an adapter is plain LoRA, whose scales 0 and 1 equal the base and
    the fine-tuned view. Ignores `max_bytes`, since the size of real values is unknown.

    Exit status: 0, or 2 for a mistake in the suite.
    """
    spec = load_suite(suite)
    try:
        unbounded = plan_suite(spec)
        bounded = plan_suite(spec, max_entries=spec.cache.max_entries)
        enough, shared = enough_entries(spec), shared_work(spec)
    except ProbeError as error:
        raise UserError(f"{suite}: {error}") from error
    tables = {"series": _series_table(spec, unbounded, bounded), "shared": _shared_table(shared)}
    if format == "json":
        Terminal().write(
            json.dumps({**_totals(unbounded, bounded, enough), **_rows(tables)}, indent=2)
        )
    elif format == "markdown":
        Terminal().write("\n".join(as_markdown(table) for table in tables.values()))
        Terminal().write("\n".join(_summary(spec, unbounded, bounded, enough)))
    else:
        terminal = Terminal()
        for table in tables.values():
            terminal.print(as_rich(table))
        for line in _summary(spec, unbounded, bounded, enough):
            terminal.print(line)


def _series_table(spec: SuiteSpec, unbounded: Plan, bounded: Plan) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("lookups", "lookups", count),
        Column("forward_passes", "passes", count),
        Column("forward_passes_of_cache", _cache_title(spec), count),
    )
    rows: dict[tuple[str | None, str], tuple[Counts, Counts]] = {}
    for key, counts in unbounded.series.items():
        first, second = rows.get((key.probe, key.view_id), (Counts(), Counts()))
        rows[key.probe, key.view_id] = (first + counts, second + bounded.series[key])
    listed = [(_probe_name(probe), view, *_passes(*pair)) for (probe, view), pair in rows.items()]
    return Table(
        "lookups and forward passes",
        columns,
        [*listed, ("in all", "", *_passes(unbounded.total, bounded.total))],
    )


def _passes(unbounded: Counts, bounded: Counts) -> tuple[int, int, int]:
    return unbounded.lookups, unbounded.forward_passes, bounded.forward_passes


def _shared_table(shared: dict[tuple[str | None, str | None], int]) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("paid_by", "reuses values of"),
        Column("lookups", "lookups", count),
    )
    rows = [
        (_probe_name(probe), _probe_name(payer), lookups)
        for (probe, payer), lookups in shared.items()
    ]
    return Table("shared work", columns, rows)


def _totals(unbounded: Plan, bounded: Plan, enough: int) -> dict[str, Any]:
    return {
        "lookups": unbounded.total.lookups,
        "forward_passes": unbounded.forward_passes,
        "forward_passes_of_cache": bounded.forward_passes,
        "evictions": bounded.evictions,
        "enough_entries": enough,
    }


def _rows(tables: dict[str, Table]) -> dict[str, list[dict[str, Any]]]:
    return {name: as_dicts(table) for name, table in tables.items()}


def _summary(spec: SuiteSpec, unbounded: Plan, bounded: Plan, enough: int) -> list[str]:
    lookups = plural(unbounded.total.lookups, "lookup")
    passes = plural(unbounded.forward_passes, "forward pass")
    if not spec.cache.enabled:
        return [f"{lookups} cost {passes}: the suite's cache is off"]
    first = (
        f"{lookups} cost {passes} with an unbounded cache: a hit rate of "
        f"{percent(unbounded.total.hit_rate)}"
    )
    size, more = count(spec.cache.max_entries), bounded.forward_passes - unbounded.forward_passes
    if not more:
        return [first, f"max_entries {size} is enough; {count(enough)} would be too"]
    evictions = plural(bounded.evictions, "eviction")
    return [
        first,
        f"max_entries {size} costs {count(more)} more, after {evictions}; set cache.max_entries "
        f"to at least {count(enough)}",
    ]


def _cache_title(spec: SuiteSpec) -> str:
    return f"at {count(spec.cache.max_entries)}" if spec.cache.enabled else "without a cache"


def _probe_name(probe: str | None) -> str:
    return OUTSIDE if probe is None else probe
