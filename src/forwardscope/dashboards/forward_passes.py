"""The dashboard Forward passes: their number, their duration and their errors."""

from __future__ import annotations

from forwardscope.dashboards.batch_panels import batches_and_prefixes
from forwardscope.dashboards.frame import dashboard
from forwardscope.dashboards.machine import machine
from forwardscope.dashboards.panels import (
    ALARM,
    Panel,
    bar_panel,
    heatmap_panel,
    line_panel,
    stat_panel,
)
from forwardscope.dashboards.queries import (
    ESTIMATED,
    RANGE,
    RATE,
    increase,
    named_probes,
    of_chosen_runs,
    quantile,
    rate,
    ratio,
    series,
)
from forwardscope.dashboards.run_queries import (
    BY_RUN,
    WHOLE_RUNS,
    counted,
    finished,
    runs_and_services,
)
from forwardscope.dashboards.sdk import models
from forwardscope.dashboards.server_panels import server
from forwardscope.telemetry import names, run_names

__all__ = ["forward_passes"]


def forward_passes() -> models.Dashboard:
    """Return the dashboard Forward passes."""
    return dashboard(
        "forwardscope-forward-passes",
        "forwardscope / Forward passes",
        "What does the model cost?",
        {
            "What does the model cost?": (
                total_passes(),
                total_seconds(),
                mean_duration(),
                median_duration(),
                p99_duration(),
                total_errors(),
            ),
            "How long does a forward pass take?": (durations(), heatmap()),
            "Where is the time spent?": (
                by_probe(),
                by_view(),
                seconds_by_probe(),
                passes_by_view(),
            ),
            "Is the model slow, or is the machine busy?": machine(),
            "Is the model's server slow or overloaded?": server(),
            "Batches and prefixes": batches_and_prefixes(),
            "Errors, and the share of the wall time": (errors(), share_of_wall()),
        },
    )


# -- what does the model cost? ---------------------------------------------------------------


def total_passes() -> Panel:
    """Number of forward passes."""
    return stat_panel(
        "Forward passes",
        "Prompts that the model computed in the time range. A batch of 8 prompts counts as 8. "
        + WHOLE_RUNS,
        counted(run_names.RUN_FORWARD_PASSES, names.FORWARD_PASSES),
        "locale",
    )


def total_seconds() -> Panel:
    """Total duration of the forward passes."""
    return stat_panel(
        "Time in forward passes",
        f"Total duration of the forward passes in the time range. {WHOLE_RUNS}",
        _seconds(),
        "s",
    )


def mean_duration() -> Panel:
    """Mean duration of a forward pass."""
    return stat_panel(
        "Mean duration",
        "Mean duration of a forward pass in the time range. The prompts of a batch share its "
        f"duration evenly. {WHOLE_RUNS}",
        ratio(_seconds(), counted(run_names.RUN_FORWARD_PASSES, names.FORWARD_PASSES)),
        "s",
    )


def _seconds() -> str:
    grown = increase(names.FORWARD_DURATION, by="job, instance", part="_sum")
    return runs_and_services(series(run_names.RUN_FORWARD_SECONDS), grown)


def median_duration() -> Panel:
    """Median duration of a forward pass."""
    return stat_panel(
        "Median duration",
        "Half of the forward passes in the time range were faster. The value is interpolated "
        f"within a bucket. {ESTIMATED}",
        quantile(0.5, names.FORWARD_DURATION, RANGE),
        "s",
    )


def p99_duration() -> Panel:
    """99th percentile of the duration of a forward pass."""
    return stat_panel(
        "99th percentile",
        "One in a hundred forward passes in the time range was slower. The value is interpolated "
        f"within a bucket. {ESTIMATED}",
        quantile(0.99, names.FORWARD_DURATION, RANGE),
        "s",
    )


def total_errors() -> Panel:
    """Number of failed forward passes."""
    return stat_panel(
        "Failed",
        f"Forward passes in the time range that raised an exception. {WHOLE_RUNS}",
        counted(run_names.RUN_ERRORS, names.FORWARD_ERRORS),
        "locale",
        thresholds=ALARM,
    )


# -- how long does a forward pass take? ------------------------------------------------------


def durations() -> Panel:
    """Quantiles and mean of the duration of a forward pass over time."""
    mean = ratio(
        rate(names.FORWARD_DURATION, part="_sum"), rate(names.FORWARD_DURATION, part="_count")
    )
    quantiles = {f"p{q * 100:g}": quantile(q, names.FORWARD_DURATION) for q in (0.5, 0.9, 0.99)}
    return line_panel(
        "Duration of a forward pass",
        "Quantiles are interpolated within a bucket. A diamond is one forward pass, with a link to "
        "its OpenTelemetry trace if the data source is configured for it.",
        {**quantiles, "mean": mean},
        "s",
        exemplars=True,
    )


def heatmap() -> Panel:
    """Durations of forward passes as a heatmap."""
    grown = f"increase({series(names.FORWARD_DURATION, part='_bucket')}[{RATE}])"
    return heatmap_panel(
        "Durations",
        "Number of forward passes by duration. A point is one forward pass, with a link to its "
        "OpenTelemetry trace.",
        f"sum by (le) ({of_chosen_runs(grown)})",
        "s",
    )


# -- where is the time spent? ----------------------------------------------------------------


def by_probe() -> Panel:
    """Scoring time of each probe over time."""
    return line_panel(
        "Scoring time per second, by probe",
        "Wall time of the scoring calls, including time spent waiting. 1 s means that a probe "
        "spends all of its time in them.",
        {"{{probe}}": named_probes(rate(names.SCORING_SECONDS, by="probe"))},
        "s",
        stacked=True,
    )


def by_view() -> Panel:
    """Scoring time of each view family over time."""
    return line_panel(
        "Scoring time per second, by view",
        "Wall time of the scoring calls, by view family: base, ft, scaled or null.",
        {"{{view}}": rate(names.SCORING_SECONDS, by="view")},
        "s",
        stacked=True,
    )


def seconds_by_probe() -> Panel:
    """Total scoring time of each probe."""
    return bar_panel(
        "Scoring time by probe",
        f"Wall time of the scoring calls in the time range. {ESTIMATED}",
        named_probes(increase(names.SCORING_SECONDS, by="probe")),
        "{{probe}}",
        "s",
        width=12,
    )


def passes_by_view() -> Panel:
    """Total forward passes of each view family."""
    return bar_panel(
        "Forward passes by view",
        f"Prompts that the model computed in the time range, by view family. {ESTIMATED}",
        f"round({increase(names.FORWARD_PASSES, by='view')})",
        "{{view}}",
        "locale",
        width=12,
    )


# -- errors, and the share of the wall time --------------------------------------------------


def errors() -> Panel:
    """Failed forward passes per second, by class of the exception."""
    return line_panel(
        "Failed forward passes per second, by error",
        "Failed forward passes by class of the exception. The message is not exported, because it "
        "may contain a prompt. The panel is empty if none failed.",
        {"{{error_type}}": rate(names.FORWARD_ERRORS, by="error_type")},
        "suffix:/s",
        thresholds=((None, "green"), (0.001, "red")),
        width=12,
    )


def share_of_wall() -> Panel:
    """Forward time as a share of a run's wall time."""
    return line_panel(
        "Share of a run's wall time in forward passes",
        "Total duration of the forward passes of a run, from its gauges. Far below 100 %, most of "
        "the time is not spent in the model. Above 100 %, several threads compute at the same "
        "time.",
        {
            BY_RUN: finished(
                ratio(series(run_names.RUN_FORWARD_SECONDS), series(run_names.RUN_WALL))
            )
        },
        "percentunit",
        width=12,
        stepped=True,
    )
