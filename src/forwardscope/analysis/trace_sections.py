"""The parts of a run's report that need its trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from forwardscope.analysis import legend
from forwardscope.analysis.chart_data import ChartData, curve_data
from forwardscope.analysis.curve import SHARES, curve_of, optimum_at, representative_sizes
from forwardscope.analysis.formatting import count, curve_table, plural, slowest_table
from forwardscope.analysis.page import Charts, data_table, html_table, paragraph, section
from forwardscope.trace import TraceEvent

__all__ = ["trace_sections"]


def trace_sections(events: Iterable[TraceEvent], charts: Charts) -> Iterator[str]:
    """Yield the sections that need a trace, and add their charts to `charts`."""
    data = ChartData()
    curve = curve_of(data.collect(events))
    if not data.total:
        parts = "The timeline, durations, cache curve and slowest passes need the run's trace"
        yield section("Trace", paragraph(f"{parts}: use the option --trace FILE."))
        return
    timeline = data.timeline()
    omitted = f"Not plotted: {plural(timeline['omitted'], 'lookup')}."
    yield section(
        "Timeline",
        charts.add("timeline", timeline, "Forward passes and hits of each probe over time"),
        paragraph(omitted, muted=True) if timeline["omitted"] else "",
        data_table(data.timeline_table()),
    )
    slowest = data.slowest.events()
    none = paragraph("The run paid for no forward pass that succeeded.", muted=True)
    yield section(
        "Durations of forward passes",
        *(_durations(data, charts) if slowest else [none]),
    )
    best = list(optimum_at(curve, representative_sizes(curve)))
    if best:
        label = "Hit rate over the number of entries in the cache"
        sizes = [f"{count(curve.smallest_size(share))} for {share:.0%}" for share in SHARES]
        yield section(
            "Hit rate by cache size",
            charts.add("curve", curve_data(curve, best), label),
            paragraph(
                f"Entries needed for a share of an unbounded cache's hits: {', '.join(sizes)}. "
                "The dots are the optimum: Bélády's MIN, which knows all later lookups."
            ),
            data_table(curve_table(curve, best)),
        )
    yield section("Slowest forward passes", *(_slowest(slowest) if slowest else [none]))


def _slowest(events: Sequence[TraceEvent]) -> Iterable[str]:
    yield html_table(slowest_table(events))
    if any((event.batch or 1) > 1 for event in events):
        yield paragraph(f"pass: {legend.SHARES}.", muted=True)


def _durations(data: ChartData, charts: Charts) -> Iterable[str]:
    yield charts.add("durations", data.durations(), "Histogram of the durations of forward passes")
    yield data_table(data.durations_table())
