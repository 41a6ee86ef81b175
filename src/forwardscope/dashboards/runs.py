"""The dashboard Runs: cost, verdicts and lost telemetry of each run."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.frame import annotation, dashboard
from forwardscope.dashboards.panels import (
    ALARM,
    HIT_RATE,
    Panel,
    TableColumn,
    line_panel,
    stat_panel,
    table_panel,
)
from forwardscope.dashboards.queries import (
    BY_RUN,
    finished,
    last_of_each_run,
    rate,
    run_hit_rate,
    series,
    total,
)
from forwardscope.dashboards.sdk import builders, models
from forwardscope.telemetry import names
from forwardscope.telemetry.names import Metric

__all__ = ["runs"]

_BY_PROBE: Final = f"{BY_RUN}: {{{{probe}}}}"
_FAILED = 'verdict=~"fail|error"'
#: Expected forward passes of the runs that have a plan; the gauge of other runs is NaN.
_EXPECTED: Final = f"({series(names.RUN_EXPECTED)} >= 0)"
#: Page of one trace in Grafana; the value of `panes` is URL-escaped JSON.
_TRACE_URL: Final = (
    "/explore?schemaVersion=1&orgId=1&panes=%7B%22trace%22:%7B%22datasource%22:%22${jaeger}%22,"
    "%22queries%22:%5B%7B%22refId%22:%22A%22,%22query%22:%22${__value.raw}%22%7D%5D,"
    "%22range%22:%7B%22from%22:%22${__from}%22,%22to%22:%22${__to}%22%7D%7D%7D"
)
#: Search for the traces of one suite.
_SUITE_URL: Final = (
    "/explore?schemaVersion=1&orgId=1&panes=%7B%22traces%22:%7B%22datasource%22:%22${jaeger}%22,"
    "%22queries%22:%5B%7B%22refId%22:%22A%22,%22queryType%22:%22search%22,"
    f"%22service%22:%22{names.TRACER}%22,"
    f"%22tags%22:%22{names.SUITE_NAME.name}=%5C%22${{__value.raw}}%5C%22%22%7D%5D,"
    "%22range%22:%7B%22from%22:%22${__from}%22,%22to%22:%22${__to}%22%7D%7D%7D"
)


def runs() -> models.Dashboard:
    """Return the dashboard Runs."""
    return dashboard(
        "forwardscope-runs",
        "forwardscope / Runs",
        "How did each run do?",
        {
            "How did each run do?": (table_of_runs(),),
            "What did each run cost?": (passes(), hit_rates(), wall_times()),
            "What did its probes find?": (
                scores(),
                measured(),
                z_scores(),
                durations(),
                verdicts(),
            ),
            "Is the telemetry complete?": (
                spans_dropped(),
                records_not_written(),
                last_push(),
                spans(),
                records(),
            ),
        },
        since="now-24h",
        annotations=(started(), ended()),
        more_variables=(_jaeger(),),
    )


def _jaeger() -> builders.DatasourceVariable:
    return builders.DatasourceVariable("jaeger").label("Traces").type("jaeger")


def started() -> builders.AnnotationQuery:
    """Return the annotation at the start of each run."""
    return annotation("Run start", f"{series(names.RUN_START)} * 1000", BY_RUN, "blue")


def ended() -> builders.AnnotationQuery:
    """Return the annotation at the end of each run."""
    return annotation("Run end", f"{series(names.RUN_END)} * 1000", BY_RUN, "purple")


# -- how did each run do? --------------------------------------------------------------------


def table_of_runs() -> Panel:
    """One row for each run."""
    over = f"{series(names.RUN_FORWARD_PASSES)} - {_EXPECTED}"
    failed = f"sum without (probe, verdict) ({series(names.PROBE_VERDICT, _FAILED)})"
    return table_panel(
        "Runs",
        "The runs in the time range, with their last numbers. Complete: the run has ended, was "
        "not interrupted, and no probe had an error. Expected: the forward passes of the suite "
        "if nothing is evicted.",
        (
            TableColumn(
                "Started",
                last_of_each_run(f"{series(names.RUN_START)} * 1000"),
                unit="dateTimeAsIso",
                width=165,
            ),
            TableColumn("Suite", label="suite", link=("Its traces", _SUITE_URL)),
            TableColumn("Model", label="model"),
            TableColumn("Adapter", label="adapter"),
            TableColumn(
                "Complete",
                last_of_each_run(series(names.RUN_COMPLETE)),
                unit="bool_yes_no",
                width=80,
            ),
            TableColumn("Wall time", last_of_each_run(series(names.RUN_WALL)), unit="s", width=90),
            TableColumn("Lookups", last_of_each_run(series(names.RUN_LOOKUPS)), width=80),
            TableColumn(
                "Hit rate",
                last_of_each_run(run_hit_rate()),
                unit="percentunit",
                thresholds=HIT_RATE,
                width=80,
            ),
            TableColumn(
                "Forward passes", last_of_each_run(series(names.RUN_FORWARD_PASSES)), width=115
            ),
            TableColumn("Over expected", last_of_each_run(over), thresholds=ALARM, width=115),
            TableColumn("Failed probes", last_of_each_run(failed), thresholds=ALARM, width=100),
            TableColumn(
                "Failed passes",
                last_of_each_run(series(names.RUN_ERRORS)),
                thresholds=ALARM,
                width=100,
            ),
            TableColumn("Run id", label="run_id", width=80),
            TableColumn("Trace", label="trace_id", link=("Open the trace", _TRACE_URL)),
        ),
    )


# -- what did each run cost? -----------------------------------------------------------------


def passes() -> Panel:
    """Forward passes and expected forward passes of each run."""
    return line_panel(
        "Forward passes per run",
        "Forward passes of each run, and the expected ones: those of its suite if nothing is "
        "evicted. A run above the expected number has computed prompts again.",
        {
            BY_RUN: finished(series(names.RUN_FORWARD_PASSES)),
            f"{BY_RUN}, expected": finished(_EXPECTED),
        },
        "short",
        width=8,
        stepped=True,
    )


def hit_rates() -> Panel:
    """Hit rate of each run."""
    return line_panel(
        "Hit rate per run",
        "Share of a run's lookups that needed no forward pass.",
        {BY_RUN: finished(run_hit_rate())},
        "percentunit",
        width=8,
        stepped=True,
    )


def wall_times() -> Panel:
    """Wall time of each run."""
    return line_panel(
        "Wall time per run",
        "Time from the first lookup to the last verdict, without the loading of the model.",
        {BY_RUN: finished(series(names.RUN_WALL))},
        "s",
        width=8,
        stepped=True,
    )


# -- what did its probes find? ---------------------------------------------------------------


def _by_probe(metric: Metric) -> str:
    return f"max by (suite, model, probe) ({series(metric)})"


def measured() -> Panel:
    """What probes measured over time."""
    return line_panel(
        "Probe values",
        "What each probe measured, in its own unit, such as nats. It differs where scores are all "
        "but 1.",
        {_BY_PROBE: _by_probe(names.PROBE_RAW)},
        "none",
        stepped=True,
    )


def z_scores() -> Panel:
    """Z-scores of probes over time."""
    return line_panel(
        "Probe z-scores",
        "Distance of what each probe measured from random adapters, in their standard deviations. "
        "A suite without a null_adapter probe has none.",
        {_BY_PROBE: _by_probe(names.PROBE_Z)},
        "none",
        stepped=True,
    )


def scores() -> Panel:
    """Scores of probes over time."""
    return line_panel(
        "Probe scores",
        "Score of each probe, from 0 to 1. A probe without a score has no line.",
        {_BY_PROBE: _by_probe(names.PROBE_SCORE)},
        "none",
        stepped=True,
    )


def durations() -> Panel:
    """Durations of probes over time."""
    return line_panel(
        "Probe durations",
        "Wall time of each probe.",
        {_BY_PROBE: _by_probe(names.PROBE_DURATION)},
        "s",
        stepped=True,
    )


def verdicts() -> Panel:
    """Verdict of each probe in its last run."""
    return table_panel(
        "Verdicts of the last run",
        "Verdict of each probe in its last run.",
        (
            TableColumn("Suite", label="suite", link=("Its traces", _SUITE_URL)),
            TableColumn("Model", label="model"),
            TableColumn("Probe", label="probe"),
            TableColumn("Verdict", label="verdict"),
            TableColumn(
                "Now",
                f"max by (suite, model, probe, verdict) ({series(names.PROBE_VERDICT)}) == 1",
            ),
        ),
        height=8,
    )


# -- is the telemetry complete? --------------------------------------------------------------


def _of_newest_runs(metric: Metric) -> str:
    """Return a sum over the newest run of each suite.

    A run that an endpoint and a Pushgateway both export counts once.
    """
    return total(f"max by (suite, model) ({series(metric)})")


def spans_dropped() -> Panel:
    """Spans lost by the newest runs."""
    return stat_panel(
        "Spans not delivered",
        "Spans lost by the newest run of each suite, because the queue was full or the receiver "
        "did not accept them.",
        _of_newest_runs(names.RUN_SPANS_DROPPED),
        "short",
        thresholds=ALARM,
        width=8,
    )


def records_not_written() -> Panel:
    """Trace records lost by the newest runs."""
    return stat_panel(
        "Trace records not written",
        "Lookups of the newest run of each suite that are missing in its JSONL trace, for "
        "example because the disk was full.",
        _of_newest_runs(names.RUN_TRACE_WRITE_ERRORS),
        "short",
        thresholds=ALARM,
        width=8,
    )


def last_push() -> Panel:
    """Time since the last push."""
    return stat_panel(
        "Time since the last push",
        "Time since the Pushgateway last accepted the gauges of a run.",
        'time() - max(push_time_seconds{job=~"$job"})',
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
