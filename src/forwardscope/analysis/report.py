"""The report of a run as one HTML page, from its result and its trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from forwardscope.analysis.chart_data import ChartData, curve_data
from forwardscope.analysis.cost import cost_section, needed
from forwardscope.analysis.curve import SHARES, curve_of, optimum_at, representative_sizes
from forwardscope.analysis.formatting import (
    OUTSIDE,
    OUTSIDE_MEANING,
    count,
    percent,
    plural,
    seconds,
    slowest_table,
)
from forwardscope.analysis.page import chart, html_table, link, page, paragraph, section
from forwardscope.analysis.tables import Column, Table
from forwardscope.suite.report_tables import format_z
from forwardscope.suite.result import SuiteResult
from forwardscope.text import MAX_SENTENCE, shown
from forwardscope.trace import TraceEvent

__all__ = ["report"]


def report(result: SuiteResult, events: Iterable[TraceEvent] | None) -> str:
    """Return the page as HTML.

    Args:
        result: The run's result.
        events: The run's records in order, read once and not kept; None without a trace.
            Without records, the page lists the parts that need a trace.
    """
    charts: dict[str, Any] = {}
    timeline, *others = _trace_sections(events or (), charts)
    note = paragraph(f"{OUTSIDE}: {OUTSIDE_MEANING}.", muted=True)
    body = [
        _head(result),
        section("Verdicts", html_table(_verdicts(result))),
        cost_section(result),
        timeline,
        section("Hits by probe and view", html_table(_series(result)), note),
        *others,
        section("Delivery", *_delivery(result)),
    ]
    return page(f"{result.suite}: forwardscope", body, charts)


def _head(result: SuiteResult) -> str:
    verdict = "passed" if result.passed else "did not pass"
    stats, use = result.backend_stats, result.cache
    lookups = int(stats["cache_hits"] + stats["cache_misses"])
    entries, evictions = plural(use.max_entries, "entry"), plural(use.evictions, "eviction")
    cache = f"cache: {use.entries} of {entries}, {evictions}"
    lines = [
        f"{plural(lookups, 'lookup')}, {percent(stats['hit_rate'])} answered without a forward "
        f"pass; {needed(result)}; {cache if use.enabled else 'the cache is off'}",
        f"{result.about}; {result.started_at}, {seconds(result.wall_s)}; run {result.run_id}",
    ]
    title = f"<h1>{escape(shown(result.suite))} {verdict}</h1>"
    url = result.trace_url
    trace = "" if url is None else link(url, f"trace {result.trace_id}")
    warnings = "".join(paragraph(f"Warning: {warning}") for warning in result.warnings)
    return title + paragraph(lines[0]) + paragraph(lines[1], muted=True) + trace + warnings


def _verdicts(result: SuiteResult) -> Table:
    stored = result.store is not None
    columns = (
        Column("probe", "probe"),
        Column("verdict", "verdict"),
        Column("score", "score", lambda value: f"{value:.2f}"),
        Column("raw", "raw", lambda value: f"{value:.4g}"),
        Column("z_score", "z", format_z),
        Column("duration_s", "time", seconds),
        Column("lookups", "lookups", count),
        Column("demand", "needed" if stored else "passes", count),
        Column("forward_passes", "paid", count, hidden=not stored),
        Column("message", "message", length=MAX_SENTENCE),
    )
    rows = [
        (
            probe.name,
            probe.verdict.value,
            probe.score,
            probe.raw,
            probe.z_score,
            probe.duration_s,
            probe.stats.lookups,
            probe.stats.demand,
            probe.stats.forward_passes,
            "; ".join(filter(None, (probe.message, probe.interval_note))),
        )
        for probe in result.probes
    ]
    return Table("verdicts", columns, rows)


def _series(result: SuiteResult) -> Table:
    stored = result.store is not None
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("lookups", "lookups", count),
        Column("demand", "needed" if stored else "passes", count),
        Column("expected", "expected", count),
        Column("forward_passes", "paid", count, hidden=not stored),
        Column("forward_errors", "failed", count, optional=True),
        Column("hit_rate", "hit rate", percent),
        Column("forward_s", "time", seconds),
    )
    rows = [
        (
            OUTSIDE if series.probe is None else series.probe,
            series.view_id,
            series.lookups,
            series.demand,
            series.expected_forward_passes,
            series.forward_passes,
            series.forward_errors,
            series.hit_rate,
            series.forward_s,
        )
        for series in result.series
    ]
    return Table("series", columns, rows)


def _trace_sections(events: Iterable[TraceEvent], charts: dict[str, Any]) -> Iterator[str]:
    """Yield the sections that need a trace, and add their charts to `charts`."""
    data = ChartData()
    curve = curve_of(data.collect(events))
    if not data.total:
        parts = "The timeline, durations, cache curve and slowest passes need the run's trace"
        yield section("Trace", paragraph(f"{parts}: use the option --trace FILE."))
        return
    charts |= {"timeline": data.timeline(), "durations": data.durations()}
    yield section(
        "Timeline",
        chart("timeline", "Forward passes and hits of each probe over time"),
        *_omission(charts["timeline"]),
    )
    slowest = data.slowest.events()
    none = paragraph("The run paid for no forward pass that succeeded.", muted=True)
    yield section(
        "Durations of forward passes",
        chart("durations", "Histogram of the durations of forward passes") if slowest else none,
    )
    best = list(optimum_at(curve, representative_sizes(curve)))
    if best:
        charts["curve"] = curve_data(curve, best)
        sizes = [f"{count(curve.smallest_size(share))} for {share:.0%}" for share in SHARES]
        yield section(
            "Hit rate by cache size",
            chart("curve", "Hit rate over the number of entries in the cache"),
            paragraph(
                f"Entries needed for a share of an unbounded cache's hits: {', '.join(sizes)}. "
                "The dots are the optimum: Bélády's MIN, which knows all later lookups."
            ),
        )
    yield section("Slowest forward passes", html_table(slowest_table(slowest)) if slowest else none)


def _omission(timeline: dict[str, Any]) -> Iterable[str]:
    if timeline["omitted"]:
        yield paragraph(f"Not plotted: {plural(timeline['omitted'], 'lookup')}.", muted=True)


def _delivery(result: SuiteResult) -> Iterable[str]:
    for delivery in result.delivery:
        yield paragraph(f"{delivery.to}: {delivery.what}")
    reconciliation = result.reconciliation
    sides = [plural(reconciliation.lookups, "lookup")]
    if reconciliation.trace_records is not None:
        sides.append(plural(reconciliation.trace_records, "trace record"))
    if reconciliation.spans is not None:
        sides.append(plural(sum(reconciliation.spans.values()), "span"))
    yield paragraph(
        f"{'Reconciled' if reconciliation.holds else 'NOT reconciled'}: {', '.join(sides)}."
    )
    yield paragraph(
        ", ".join(f"{name} {version}" for name, version in result.versions.items()), muted=True
    )
