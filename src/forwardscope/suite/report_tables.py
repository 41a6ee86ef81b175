"""Tables of the terminal report: what each probe measured, and what each view cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from forwardscope.core.keys import view_family
from forwardscope.probes import Verdict
from forwardscope.suite.formats import (
    OUTSIDE,
    format_percent,
    format_probe,
    format_raw,
    format_z,
)
from forwardscope.suite.result import ProbeResult, SeriesResult, SuiteResult
from forwardscope.text import plural, shown

__all__ = ["probe_table", "task_table", "view_table"]

_STYLES: Final = {
    Verdict.PASS: "bold green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold red reverse",
    Verdict.SKIP: "dim",
}
_NO_VALUE: Final = "–"
#: With more views, those of one family share a row.
_MAX_VIEWS: Final = 12


def probe_table(result: SuiteResult) -> Table:
    """Return the table of the probes; 80 columns hold names of 24 characters."""
    score = "" if result.score is None else f", score {result.score:.2f}"
    table = _table(f"{shown(result.suite)}, {result.wall_s:.1f} s{score}")
    table.add_column("probe", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for header in ("score", "raw", "z", "time", "lookups", "hit rate"):
        table.add_column(header, justify="right", no_wrap=True)
    for probe in result.probes:
        table.add_row(*_probe_row(probe))
    outside = [counts for counts in result.series if counts.probe is None]
    if outside:
        table.add_row(Text(OUTSIDE), *[""] * 4, *_cost(outside), style="dim")
    return table


def view_table(series: list[SeriesResult], *, stored: bool) -> Table:
    """Return the table of the views, of families where there are many views.

    Args:
        series: The counts, at least one of each view.
        stored: Whether the run had a store, whose answers have a column.
    """
    return _cost_table("view", _by_view(series), stored)


def task_table(series: list[SeriesResult], what: str, *, stored: bool) -> Table:
    """Return the table of what each task or probe of another tool cost; see `view_table`.

    `what` is the tool's word for them.
    """
    tasks: dict[str, list[SeriesResult]] = {}
    for one in series:
        tasks.setdefault(format_probe(one.probe), []).append(one)
    return _cost_table(what, tasks, stored)


def _cost_table(what: str, groups: Mapping[str, list[SeriesResult]], stored: bool) -> Table:
    """Return a table with the counts of each group of series."""
    table = _table(f"{what}s")
    table.add_column(what, overflow="fold")
    costs = ("from store", "passes") if stored else ("forward passes",)  # to fit 80 columns
    for header in ("lookups", "hits", *costs, "errors", "hit rate", "time"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, counts in groups.items():
        lookups, hits = sum(one.lookups for one in counts), sum(one.cache_hits for one in counts)
        table.add_row(
            Text(shown(name)),
            str(lookups),
            str(hits),
            *([str(sum(one.store_hits for one in counts))] if stored else []),
            str(sum(one.forward_passes for one in counts)),
            str(sum(one.forward_errors for one in counts)),
            format_percent(hits / lookups),
            _seconds(counts),
        )
    return table


def _probe_row(probe: ProbeResult) -> Iterable[RenderableType]:
    yield Text(shown(probe.name))
    yield Text(probe.verdict.value, style=_STYLES[probe.verdict])
    yield _NO_VALUE if probe.score is None else f"{probe.score:.2f}"
    yield _NO_VALUE if probe.raw is None else format_raw(probe.raw)
    yield _NO_VALUE if probe.z_score is None else format_z(probe.z_score)
    yield f"{probe.duration_s:.1f} s"
    yield str(probe.stats.lookups)
    yield format_percent(probe.stats.hit_rate) if probe.stats.lookups else _NO_VALUE


def _cost(counts: list[SeriesResult]) -> Iterable[str]:
    lookups = sum(one.lookups for one in counts)
    yield _seconds(counts)
    yield str(lookups)
    yield format_percent(sum(one.cache_hits for one in counts) / lookups)


def _by_view(series: list[SeriesResult]) -> dict[str, list[SeriesResult]]:
    """Group by view, or by family where there are many views and a family has several."""
    views = dict.fromkeys(counts.view_id for counts in series)
    families: dict[str, list[str]] = {}
    for view_id in views:
        families.setdefault(view_family(view_id), []).append(view_id)
    names = {view_id: view_id for view_id in views}
    if len(views) > _MAX_VIEWS:
        for family, members in families.items():
            if len(members) > 1:
                names |= dict.fromkeys(members, f"{family} ({plural(len(members), 'view')})")
    groups: dict[str, list[SeriesResult]] = {}
    for counts in series:
        groups.setdefault(names[counts.view_id], []).append(counts)
    return groups


def _seconds(counts: list[SeriesResult]) -> str:
    return f"{sum(one.scoring_wall_s for one in counts):.1f} s"


def _table(title: str) -> Table:
    return Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
