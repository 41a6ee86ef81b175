"""Panels of the telemetry that runs and services delivered or lost."""

from __future__ import annotations

from forwardscope.dashboards.panels import ALARM, Panel, line_panel, stat_panel
from forwardscope.dashboards.queries import rate, series, total
from forwardscope.dashboards.run_queries import newest
from forwardscope.telemetry import names, run_names
from forwardscope.telemetry.names import Metric

__all__ = ["delivery"]


def delivery() -> tuple[Panel, ...]:
    """Return the panels."""
    return spans_dropped(), records_not_written(), last_push(), spans(), records()


def _of_newest_runs(metric: Metric) -> str:
    """Return a sum over the newest run of each suite."""
    return total(newest(series(metric)))


def spans_dropped() -> Panel:
    """Spans lost by the newest runs."""
    return stat_panel(
        "Spans not delivered",
        "Spans lost by the newest run of each suite, because the queue was full or the receiver "
        "did not accept them.",
        _of_newest_runs(run_names.RUN_SPANS_DROPPED),
        "locale",
        thresholds=ALARM,
        width=8,
    )


def records_not_written() -> Panel:
    """Trace records lost by the newest runs."""
    return stat_panel(
        "Trace records not written",
        "Lookups of the newest run of each suite that are missing in its JSONL trace, for "
        "example because the disk was full.",
        _of_newest_runs(run_names.RUN_TRACE_WRITE_ERRORS),
        "locale",
        thresholds=ALARM,
        width=8,
    )


def last_push() -> Panel:
    """Time since the last push."""
    chosen = 'suite!="", job=~"$job", suite=~"$suite", model=~"$model"'
    return stat_panel(
        "Time since the last push",
        "Time since the Pushgateway last accepted the gauges of a run.",
        f"time() - max(push_time_seconds{{{chosen}}})",
        "s",
        width=8,
    )


def spans() -> Panel:
    """Spans per second, by outcome."""
    return line_panel(
        "Spans per second, by outcome",
        "exported: accepted by the receiver. ended: passed to the program's own OpenTelemetry SDK. "
        "elided: beyond the span budget, or not sampled. dropped: lost.",
        {"{{outcome}}": rate(names.SPANS_TOTAL, by="outcome")},
        "suffix:/s",
    )


def records() -> Panel:
    """Trace records written and not written, per second."""
    return line_panel(
        "Trace records per second",
        "Lines of the JSONL trace that were written completely, and lines that were not.",
        {
            "written": rate(names.TRACE_RECORDS),
            "not written": rate(names.TRACE_WRITE_ERRORS),
        },
        "suffix:/s",
    )
