"""The command that tells what a suite would ask, before any model is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from forwardscope.analysis.formatting import OUTSIDE, count, percent
from forwardscope.analysis.tables import Column, Table, as_dicts, as_markdown, as_rich
from forwardscope.cli.exits import mistakes_exit_with_two
from forwardscope.core.series import Counts
from forwardscope.errors import ProbeError, UserError
from forwardscope.suite.loading import load_suite
from forwardscope.suite.plan import Plan, enough_entries, plan_suite, shared_work
from forwardscope.suite.spec import SuiteSpec

__all__ = ["plan"]


def plan(
    suite: Annotated[Path, typer.Argument(help="The suite file.", metavar="SUITE.yaml")],
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json", "markdown"], typer.Option("--format", help="How to write it.")
    ] = "terminal",
) -> None:
    """Say what a suite would ask and pay, without a model.

    Its probes run against answers that are made up: lookups and forward
    passes by probe and view, with the suite's own cache and with an endless
    one, which probes share work, and how many entries are enough to pay for
    nothing twice. Assumed is a plain LoRA adapter, whose scales 0 and 1 are the
    base and the tuned view; `max_bytes` is not looked at, as the size of real
    answers is not known here. Exits with 0, or 2 for a mistake in the suite.
    """
    with mistakes_exit_with_two():
        spec = load_suite(suite)
        try:
            endless = plan_suite(spec)
            own = plan_suite(spec, max_entries=spec.cache.max_entries)
            enough, shared = enough_entries(spec), shared_work(spec)
        except ProbeError as error:
            raise UserError(f"{suite}: {error}") from error
    tables = {"series": _asked(spec, endless, own), "shared": _shared(shared)}
    if format == "json":
        typer.echo(json.dumps({**_facts(endless, own, enough), **_rows(tables)}, indent=2))
    elif format == "markdown":
        typer.echo("\n".join(as_markdown(table) for table in tables.values()))
        typer.echo("\n".join(_told(spec, endless, own, enough)))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for table in tables.values():
            console.print(as_rich(table))
        for line in _told(spec, endless, own, enough):
            console.print(line)


def _asked(spec: SuiteSpec, endless: Plan, own: Plan) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("lookups", "lookups", count),
        Column("forward_passes", "passes", count),
        Column("forward_passes_of_cache", _with_own(spec), count),
    )
    rows: dict[tuple[str | None, str], tuple[Counts, Counts]] = {}
    for key, counts in endless.series.items():
        both = rows.get((key.probe, key.view_id), (Counts(), Counts()))
        rows[key.probe, key.view_id] = (both[0] + counts, both[1] + own.series[key])
    listed = [(_name(probe), view, *_passes(*both)) for (probe, view), both in rows.items()]
    return Table(
        "what it would ask", columns, [*listed, ("in all", "", *_passes(endless.total, own.total))]
    )


def _passes(endless: Counts, own: Counts) -> tuple[int, int, int]:
    return endless.lookups, endless.forward_passes, own.forward_passes


def _shared(shared: dict[tuple[str | None, str | None], int]) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("paid_by", "asks again what was paid by"),
        Column("lookups", "lookups", count),
    )
    rows = [(_name(probe), _name(payer), lookups) for (probe, payer), lookups in shared.items()]
    return Table("shared work", columns, rows)


def _facts(endless: Plan, own: Plan, enough: int) -> dict[str, Any]:
    return {
        "lookups": endless.total.lookups,
        "forward_passes": endless.forward_passes,
        "forward_passes_of_cache": own.forward_passes,
        "evictions": own.evictions,
        "enough_entries": enough,
    }


def _rows(tables: dict[str, Table]) -> dict[str, list[dict[str, Any]]]:
    return {name: as_dicts(table) for name, table in tables.items()}


def _told(spec: SuiteSpec, endless: Plan, own: Plan, enough: int) -> list[str]:
    total, paid = endless.total, endless.forward_passes
    asked = f"{count(total.lookups)} lookups"
    if not spec.cache.enabled:
        off = "the suite's cache is off, and nothing is kept between calls"
        return [f"{asked} cost {count(paid)} forward passes: {off}"]
    again = own.forward_passes - paid
    lines = [
        f"{asked} of {count(paid)} distinct questions: as many forward passes where nothing is "
        f"evicted, a hit rate of {percent(total.hit_rate)}"
    ]
    if again:
        lines.append(
            f"with max_entries {count(spec.cache.max_entries)} it pays {count(again)} more: "
            f"{count(own.evictions)} evictions; set cache.max_entries to at least {count(enough)}"
        )
    else:
        lines.append(
            f"max_entries {count(spec.cache.max_entries)} is enough; so would be {count(enough)}"
        )
    return lines


def _with_own(spec: SuiteSpec) -> str:
    return f"at {count(spec.cache.max_entries)}" if spec.cache.enabled else "without a cache"


def _name(probe: str | None) -> str:
    return OUTSIDE if probe is None else probe
