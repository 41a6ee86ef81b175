"""The dashboard Runs: cost, verdicts and delivery of telemetry of each run."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.defaults import ALARM, RATIO, Column, Panel, lines, number, rows
from forwardscope.dashboards.frame import annotation, dashboard
from forwardscope.dashboards.queries import (
    BY_RUN,
    finished,
    of_run,
    rate,
    run_hit_ratio,
    series,
    total,
)
from forwardscope.dashboards.sdk import builders, models
from forwardscope.telemetry import names
from forwardscope.telemetry.names import Metric

__all__ = ["runs"]

_FAILED = 'verdict=~"fail|error"'
#: Expected forward passes of the runs with a plan; the gauge is NaN for the others.
_EXPECTED: Final = f"({series(names.RUN_EXPECTED)} >= 0)"
#: Grafana's explore page for one trace; the value of `panes` is URL-escaped JSON.
_TRACE_URL: Final = (
    "/explore?schemaVersion=1&orgId=1&panes=%7B%22trace%22:%7B%22datasource%22:%22${jaeger}%22,"
    "%22queries%22:%5B%7B%22refId%22:%22A%22,%22query%22:%22${__value.raw}%22%7D%5D,"
    "%22range%22:%7B%22from%22:%22${__from}%22,%22to%22:%22${__to}%22%7D%7D%7D"
)


def runs() -> models.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "forwardscope-runs",
        "forwardscope / Runs",
        "How did each run do?",
        {
            "How did each run do?": (table_of_runs(),),
            "What did each run cost?": (passes(), ratios(), wall()),
            "What did its probes find?": (scores(), durations(), verdicts()),
            "Is the telemetry complete?": (
                dropped_now(),
                unwritten_now(),
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
    """Table with one row for each run."""
    over = f"{series(names.RUN_FORWARD_PASSES)} - {_EXPECTED}"
    failed = f"sum without (probe, verdict) ({series(names.PROBE_VERDICT, _FAILED)})"
    return rows(
        "Runs",
        "The runs in the time range, with their last numbers; an active run has its numbers so "
        "far. Complete: the run has ended, was not interrupted, and no probe had an error. "
        "Expected: the forward passes of the suite if nothing is evicted.",
        (
            Column(
                "Begun",
                of_run(f"{series(names.RUN_START)} * 1000"),
                unit="dateTimeAsIso",
                width=165,
            ),
            Column("Suite", label="suite"),
            Column("Model", label="model"),
            Column("Complete", of_run(series(names.RUN_COMPLETE)), unit="bool_yes_no", width=80),
            Column("Wall time", of_run(series(names.RUN_WALL)), unit="s", width=90),
            Column("Lookups", of_run(series(names.RUN_LOOKUPS)), width=80),
            Column("Hit ratio", of_run(run_hit_ratio()), unit="percentunit", steps=RATIO, width=80),
            Column("Forward passes", of_run(series(names.RUN_FORWARD_PASSES)), width=115),
            Column("Over expected", of_run(over), steps=ALARM, width=115),
            Column("Failed probes", of_run(failed), steps=ALARM, width=100),
            Column("Failed passes", of_run(series(names.RUN_ERRORS)), steps=ALARM, width=100),
            Column("Run id", label="run_id", width=80),
            Column("Trace", label="trace_id", link=("Open the trace", _TRACE_URL)),
        ),
    )


# -- what did each run cost? -----------------------------------------------------------------


def passes() -> Panel:
    """Forward passes of runs, beside the expected ones."""
    return lines(
        "Forward passes a run",
        "Forward passes of each run, until the next run has ended, and those of its suite if "
        "nothing is evicted. A line above the expected one means that prompts were computed "
        "again.",
        {
            BY_RUN: finished(series(names.RUN_FORWARD_PASSES)),
            f"{BY_RUN}, expected": finished(_EXPECTED),
        },
        "short",
        width=8,
        stepped=True,
    )


def ratios() -> Panel:
    """Hit ratio of runs."""
    return lines(
        "Hit ratio a run",
        "Share of a run's lookups that needed no forward pass.",
        {BY_RUN: finished(run_hit_ratio())},
        "percentunit",
        width=8,
        stepped=True,
    )


def wall() -> Panel:
    """Wall time of runs."""
    return lines(
        "Wall time a run",
        "From the first lookup to the last verdict, without the loading of the model.",
        {BY_RUN: finished(series(names.RUN_WALL))},
        "s",
        width=8,
        stepped=True,
    )


# -- what did its probes find? ---------------------------------------------------------------


def scores() -> Panel:
    """Scores of probes over time."""
    return lines(
        "Probe scores",
        "Score of each probe, 0 to 1; a probe without a score has no line.",
        {"{{suite}}: {{probe}}": f"max by (suite, model, probe) ({series(names.PROBE_SCORE)})"},
        "none",
        stepped=True,
    )


def durations() -> Panel:
    """Durations of probes."""
    return lines(
        "Probe durations",
        "Wall time of each probe.",
        {"{{suite}}: {{probe}}": f"max by (suite, model, probe) ({series(names.PROBE_DURATION)})"},
        "s",
        stepped=True,
    )


def verdicts() -> Panel:
    """Verdicts of the probes in the last runs."""
    return rows(
        "Verdicts of the last run",
        "The verdict of each probe when it last ran.",
        (
            Column("Suite", label="suite"),
            Column("Probe", label="probe"),
            Column("Verdict", label="verdict"),
            Column(
                "Now",
                f"max by (suite, probe, verdict) ({series(names.PROBE_VERDICT)}) == 1",
            ),
        ),
        height=8,
    )


# -- is the telemetry complete? --------------------------------------------------------------


def _of_last_runs(metric: Metric) -> str:
    """Return a sum over the last runs, each once even if endpoint and gateway both export it."""
    return total(f"max by (suite, model) ({series(metric)})")


def dropped_now() -> Panel:
    """Spans lost by the last runs."""
    return number(
        "Spans not delivered",
        "By the last run of each suite: the queue was full, or the receiver did not accept them.",
        _of_last_runs(names.RUN_SPANS_DROPPED),
        "short",
        steps=ALARM,
        width=8,
    )


def unwritten_now() -> Panel:
    """Records lost by the last runs."""
    return number(
        "Trace records not written",
        "By the last run of each suite: the disk was full, or the file was removed.",
        _of_last_runs(names.RUN_TRACE_WRITE_ERRORS),
        "short",
        steps=ALARM,
        width=8,
    )


def last_push() -> Panel:
    """Time since the last push."""
    return number(
        "Since the last push",
        "Time since a run last pushed its gauges to the Pushgateway.",
        'time() - max(push_time_seconds{job=~"$job"})',
        "s",
        width=8,
    )


def spans() -> Panel:
    """Spans per second, by outcome."""
    return lines(
        "Spans a second, by outcome",
        "exported: accepted by the receiver. ended: passed to the program's own SDK. elided: "
        "beyond the span budget, or not sampled. dropped: lost.",
        {"{{outcome}}": rate(names.SPANS_TOTAL, by="outcome")},
        "suffix:/s",
    )


def records() -> Panel:
    """Trace records written and not written, per second."""
    return lines(
        "Trace records a second",
        "Lines of the JSONL trace that were written completely, and those that were not; none "
        "without a trace.",
        {
            "written": rate(names.TRACE_RECORDS),
            "not written": rate(names.TRACE_WRITE_ERRORS),
        },
        "suffix:/s",
    )
