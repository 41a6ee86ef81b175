"""The report of a run as one HTML page, from its result and its trace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from forwardscope.analysis.curve import (
    SHARES,
    Curve,
    CurvePoint,
    curve_of,
    optimum_at,
    representative_sizes,
)
from forwardscope.analysis.formatting import (
    OUTSIDE,
    OUTSIDE_MEANING,
    count,
    percent,
    seconds,
    summary_tables,
)
from forwardscope.analysis.page import chart, html_table, page, paragraph, section
from forwardscope.analysis.summary import summarize
from forwardscope.analysis.tables import Column, Table
from forwardscope.suite.report import format_z
from forwardscope.suite.result import SuiteResult
from forwardscope.trace import TraceEvent

__all__ = ["report"]

#: Maximum dots of each timeline series, and maximum sizes of the curve.
_MAX_DOTS, _MAX_SIZES = 5000, 600
#: Histogram bars per factor of ten.
_BARS: Final = 4


def report(result: SuiteResult, events: Sequence[TraceEvent] | None) -> str:
    """Return the page as HTML.

    Args:
        result: The run's result.
        events: The run's records in order; None without a trace. Without records, the
            page lists the parts that need a trace.
    """
    body = [_head(result), section("Verdicts", html_table(_verdicts(result)))]
    charts: dict[str, Any] = {}
    if events:
        charts = {"timeline": _timeline(events), "durations": _durations(events)}
        body += _trace_sections(events, charts)
    else:
        parts = "The timeline, durations, cache curve and slowest passes need the run's trace"
        body.append(section("Trace", paragraph(f"{parts}: use the option --trace FILE.")))
    note = paragraph(f"{OUTSIDE}: {OUTSIDE_MEANING}.", muted=True)
    series = section("Hits by probe and view", html_table(_series(result)), note)
    body.insert(3 if events else 2, series)
    body.append(section("Delivery", *_delivery(result)))
    return page(f"{result.suite}: forwardscope", body, charts)


def _head(result: SuiteResult) -> str:
    verdict = "passed" if result.passed else "did not pass"
    stats, use = result.backend_stats, result.cache
    passes = f"{count(int(stats['forward_passes']))} forward passes"
    if result.expected_forward_passes is not None:
        passes += f", {count(result.expected_forward_passes)} expected"
    lookups = int(stats["cache_hits"] + stats["cache_misses"])
    cache = f"cache: {use.entries} of {use.max_entries} entries, {use.evictions} evictions"
    lines = [
        f"{count(lookups)} lookups, {percent(stats['hit_rate'])} answered without a forward pass; "
        f"{passes}; {cache if use.enabled else 'the cache is off'}",
        f"{result.model} with {result.adapter}, {result.exactness}, {result.dtype} on "
        f"{result.device}; {result.started_at}, {seconds(result.wall_s)}; run {result.run_id}",
    ]
    title = f"<h1>{escape(result.suite)} {verdict}</h1>"
    return title + paragraph(lines[0]) + paragraph(lines[1], muted=True)


def _verdicts(result: SuiteResult) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("verdict", "verdict"),
        Column("score", "score", lambda value: f"{value:.2f}"),
        Column("raw", "raw", lambda value: f"{value:.4g}"),
        Column("z_score", "z", format_z),
        Column("duration_s", "time", seconds),
        Column("lookups", "lookups", count),
        Column("forward_passes", "passes", count),
        Column("message", "message"),
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
            probe.stats.forward_passes,
            probe.message,
        )
        for probe in result.probes
    ]
    return Table("verdicts", columns, rows)


def _series(result: SuiteResult) -> Table:
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("lookups", "lookups", count),
        Column("forward_passes", "passes", count),
        Column("expected", "expected", count),
        Column("forward_errors", "failed", count, optional=True),
        Column("hit_rate", "hit rate", percent),
        Column("forward_s", "time", seconds),
    )
    rows = [
        (
            OUTSIDE if series.probe is None else series.probe,
            series.view_id,
            series.lookups,
            series.forward_passes,
            series.expected_forward_passes,
            series.forward_errors,
            series.hit_rate,
            series.forward_s,
        )
        for series in result.series
    ]
    return Table("series", columns, rows)


def _trace_sections(events: Sequence[TraceEvent], charts: dict[str, Any]) -> Iterable[str]:
    """Yield the sections that need a trace, and add their charts to `charts`."""
    yield section(
        "Timeline",
        chart("timeline", "Forward passes and hits of each probe over time"),
        *_omission(charts["timeline"]),
    )
    yield section(
        "Durations of forward passes",
        chart("durations", "Histogram of the durations of forward passes"),
    )
    curve = curve_of(events)
    best = list(optimum_at(curve, representative_sizes(curve)))
    if best:
        charts["curve"] = _curve(curve, best)
        sizes = [f"{count(curve.smallest_size(share))} for {share:.0%}" for share in SHARES]
        yield section(
            "Hit rate by cache size",
            chart("curve", "Hit rate over the number of entries in the cache"),
            paragraph(
                f"Entries needed for a share of an unbounded cache's hits: {', '.join(sizes)}. "
                "The dots are the optimum: Bélády's MIN, which knows all later lookups."
            ),
        )
    yield section(
        "Slowest forward passes", html_table(summary_tables(summarize(events))["slowest"])
    )


def _timeline(events: Sequence[TraceEvent]) -> dict[str, Any]:
    """Return the end and the probe of each forward pass and each hit."""
    start = min(event.ts - event.wall_ms / 1e3 for event in events)
    rows = {name: row for row, name in enumerate(dict.fromkeys(event.probe for event in events))}
    passes, hits = ([event for event in events if event.hit is hit] for hit in (False, True))
    plotted = sorted((*_sample(passes), *_sample(hits)), key=lambda event: event.ts)
    return {
        "probes": [OUTSIDE if name is None else name for name in rows],
        "seconds": [round(event.ts - start, 6) for event in plotted],
        "passes": [None if event.hit else rows[event.probe] for event in plotted],
        "hits": [rows[event.probe] if event.hit else None for event in plotted],
        "omitted": len(events) - len(plotted),
    }


def _sample(events: Sequence[TraceEvent]) -> Sequence[TraceEvent]:
    """Return an even sample of at most `_MAX_DOTS` records."""
    return events[:: math.ceil(len(events) / _MAX_DOTS) or 1]


def _omission(timeline: dict[str, Any]) -> Iterable[str]:
    if timeline["omitted"]:
        yield paragraph(f"{count(timeline['omitted'])} lookups are not plotted.", muted=True)


def _durations(events: Sequence[TraceEvent]) -> dict[str, Any]:
    """Return a histogram of the durations of successful passes on a logarithmic axis."""
    passes = (event for event in events if not event.hit and event.error is None)
    logs = np.log10([max(event.wall_ms, 1e-3) for event in passes])
    if not logs.size:
        return {"labels": [], "counts": []}
    places = np.floor(logs * _BARS).astype(int)
    first = int(places.min())
    counts = np.bincount(places - first)
    edges = 10 ** (np.arange(first, first + counts.size) / _BARS)
    return {"labels": [_duration(edge) for edge in edges], "counts": counts.tolist()}


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.3g} s" if milliseconds >= 1e3 else f"{milliseconds:.3g} ms"


def _curve(curve: Curve, best: Sequence[CurvePoint]) -> dict[str, Any]:
    best_rates = {point.size: point.hits / curve.total for point in best}
    steps = np.rint(np.geomspace(1, curve.largest, _MAX_SIZES)).astype(int)
    sizes = sorted(best_rates.keys() | set(steps.tolist()))
    return {
        "sizes": sizes,
        "rates": [curve.at(size).hits / curve.total for size in sizes],
        "best": [best_rates.get(size) for size in sizes],
    }


def _delivery(result: SuiteResult) -> Iterable[str]:
    for delivery in result.delivery:
        yield paragraph(f"{delivery.to}: {delivery.what}")
    reconciliation = result.reconciliation
    sides = [f"{count(reconciliation.lookups)} lookups"]
    if reconciliation.trace_records is not None:
        sides.append(f"{count(reconciliation.trace_records)} trace records")
    if reconciliation.spans is not None:
        sides.append(f"{count(sum(reconciliation.spans.values()))} spans")
    yield paragraph(
        f"{'Reconciled' if reconciliation.holds else 'NOT reconciled'}: {', '.join(sides)}."
    )
    yield paragraph(
        ", ".join(f"{name} {version}" for name, version in result.versions.items()), muted=True
    )
