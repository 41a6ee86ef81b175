"""The command `forwardscope plan`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from forwardscope.analysis.formatting import count, percent, plural
from forwardscope.analysis.tables import Column, Table, as_dicts, as_markdown, as_rich
from forwardscope.cli.planned_store import PlannedStore, planned_store
from forwardscope.cli.terminal import Terminal
from forwardscope.core.series import Counts
from forwardscope.errors import ProbeError, UserError
from forwardscope.suite.formats import format_probe
from forwardscope.suite.loading import load_suite
from forwardscope.suite.plan import Plan, enough_entries, plan_suite, shared_work
from forwardscope.suite.selection import chosen_store
from forwardscope.suite.spec import SuiteSpec

__all__ = ["plan"]


@dataclass(frozen=True, slots=True)
class _Plans:
    """What is known of a suite before its run.

    Attributes:
        spec: The suite.
        unbounded: Its plan with an unbounded cache.
        bounded: Its plan with its own cache.
        enough: A cache size with which nothing is computed twice.
        shared: Hits by the probe of the hit and the probe of the forward pass.
        store: What its store would answer; None without one.
    """

    spec: SuiteSpec
    unbounded: Plan
    bounded: Plan
    enough: int
    shared: dict[tuple[str | None, str | None], int]
    store: PlannedStore | None


def plan(
    suite: Annotated[
        Path, typer.Argument(help="The suite file, or - for standard input.", metavar="SUITE.yaml")
    ],
    store: Annotated[
        str | None,
        typer.Option(
            help="Say which forward passes this store would answer: a path, or default for the "
            "file in the user's cache folder. By default the store of the suite, else the value "
            "of FORWARDSCOPE_STORE.",
            metavar="PATH|default",
            show_default=False,
        ),
    ] = None,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="Ask no store, and load no model.")
    ] = False,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json", "markdown"], typer.Option("--format", help="Output format.")
    ] = "terminal",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Count the lookups and forward passes of a suite, without running its model.

    Runs the probes on made-up values. Prints lookups and forward passes by probe
    and view, with an unbounded cache and with the suite's cache; the probes that
    computed the values of each probe's hits; and a cache size with which no value
    is computed twice. "(outside)" are lookups outside the probes: a run first
    checks both views for NaN and infinity.

    With a store it also prints how many of the forward passes the store would
    answer and how many a run would pay. A store has values by the content of the
    model, so the model is loaded for that, and no forward pass is run. A model
    server sends its models and limits, and loads the adapter of `adapter_dir`
    once. The store is only read.

    Without a store no model is loaded: an adapter is assumed to be plain LoRA,
    whose scales 0 and 1 equal the base and the fine-tuned view. `max_bytes` is
    ignored, since the size of real values is unknown.

    Exit status: 0, or 2 for a mistake in the suite or the options.
    """
    spec = load_suite(suite)
    location = chosen_store(spec.cache, store, no_store=no_store)
    asking = location is not None and spec.cache.enabled
    with planned_store(spec, str(location)) if asking else nullcontext() as asked:
        try:
            plans = _plans(spec, asked)
        except ProbeError as error:
            raise UserError(f"{suite}: {error}") from error
    _write(plans, "json" if as_json else format)


def _plans(spec: SuiteSpec, store: PlannedStore | None) -> _Plans:
    backend = None if store is None else store.backend
    return _Plans(
        spec=spec,
        unbounded=plan_suite(spec, backend),
        bounded=plan_suite(spec, backend, max_entries=spec.cache.max_entries),
        enough=enough_entries(spec, backend),
        shared=shared_work(spec, backend),
        store=store,
    )


def _write(plans: _Plans, form: str) -> None:
    tables = {"series": _series_table(plans), "shared": _shared_table(plans.shared)}
    terminal = Terminal()
    if form == "json":
        terminal.write(json.dumps({**_totals(plans), **_rows(tables)}, indent=2))
        return
    filled = [table for table in tables.values() if table.rows]
    if form == "markdown":
        terminal.write("\n".join(map(as_markdown, filled)))
        terminal.write("\n".join(_summary(plans)))
    else:
        for table in filled:
            terminal.print(as_rich(table))
        for line in _summary(plans):
            terminal.print(line)


def _series_table(plans: _Plans) -> Table:
    columns = [
        Column("probe", "probe"),
        Column("view", "view"),
        Column("lookups", "lookups", count),
        Column("forward_passes", "passes", count),
        Column("forward_passes_of_cache", _cache_title(plans.spec), count),
    ]
    if (answered := _answered(plans)) is not None:
        columns += [Column("stored", "stored", count), Column("to_pay", "to pay", count)]
    rows: dict[tuple[str | None, str], tuple[Counts, Counts]] = {}
    for key, counts in plans.unbounded.series.items():
        first, second = rows.get((key.probe, key.view_id), (Counts(), Counts()))
        rows[key.probe, key.view_id] = (first + counts, second + plans.bounded.series[key])
    listed: list[tuple[Any, ...]] = [
        (format_probe(probe), view, *_passes(*pair)) for (probe, view), pair in rows.items()
    ]
    listed.append(("in all", "", *_passes(plans.unbounded.total, plans.bounded.total)))
    if answered is not None:
        stored = [*(answered.get(place, 0) for place in rows), sum(answered.values())]
        listed = [
            (*row, found, max(0, row[3] - found)) for row, found in zip(listed, stored, strict=True)
        ]
    return Table("lookups and forward passes", columns, listed)


def _answered(plans: _Plans) -> Mapping[tuple[str | None, str], int] | None:
    """Return the passes that the store would answer; None where there is no store to ask."""
    known = None if plans.store is None else plans.store.plan
    return None if known is None else known.answered


def _passes(unbounded: Counts, bounded: Counts) -> tuple[int, int, int]:
    return unbounded.lookups, unbounded.forward_passes, bounded.forward_passes


def _shared_table(shared: dict[tuple[str | None, str | None], int]) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("paid_by", "reuses values of"),
        Column("lookups", "lookups", count),
    )
    rows = [
        (format_probe(probe), format_probe(payer), lookups)
        for (probe, payer), lookups in shared.items()
    ]
    return Table("shared work", columns, rows)


def _totals(plans: _Plans) -> dict[str, Any]:
    return {
        "lookups": plans.unbounded.total.lookups,
        "forward_passes": plans.unbounded.forward_passes,
        "forward_passes_of_cache": plans.bounded.forward_passes,
        "evictions": plans.bounded.evictions,
        "enough_entries": plans.enough,
        "store": None if plans.store is None else plans.store.facts(plans.unbounded.forward_passes),
    }


def _rows(tables: dict[str, Table]) -> dict[str, list[dict[str, Any]]]:
    return {name: as_dicts(table) for name, table in tables.items()}


def _summary(plans: _Plans) -> list[str]:
    spec, unbounded, bounded = plans.spec, plans.unbounded, plans.bounded
    lookups = plural(unbounded.total.lookups, "lookup")
    passes = plural(unbounded.forward_passes, "forward pass")
    if not spec.cache.enabled:
        return [f"{lookups} cost {passes}: the suite's cache is off"]
    first = (
        f"{lookups} cost {passes} with an unbounded cache: a hit rate of "
        f"{percent(unbounded.total.hit_rate)}"
    )
    size, more = count(spec.cache.max_entries), bounded.forward_passes - unbounded.forward_passes
    second = f"max_entries {size} is enough; {count(plans.enough)} would be too"
    if more:
        evictions = plural(bounded.evictions, "eviction")
        costs = "costs {} more" if plans.store is None else "needs {} more, which a store answers"
        second = (
            f"max_entries {size} {costs.format(count(more))}, after {evictions}; set "
            f"cache.max_entries to at least {count(plans.enough)}"
        )
    store = () if plans.store is None else plans.store.sentences(unbounded.forward_passes)
    return [first, second, *store]


def _cache_title(spec: SuiteSpec) -> str:
    return f"at {count(spec.cache.max_entries)}" if spec.cache.enabled else "without a cache"
