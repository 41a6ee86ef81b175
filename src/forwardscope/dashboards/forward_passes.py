"""The dashboard Forward passes: their number, their duration and their errors."""

from __future__ import annotations

from forwardscope.dashboards.defaults import ALARM, Panel, bars, heat, lines, number
from forwardscope.dashboards.frame import dashboard
from forwardscope.dashboards.queries import (
    BY_RUN,
    RANGE,
    RATE,
    finished,
    increase,
    named_probes,
    quantile,
    rate,
    ratio,
    seconds_a_pass,
    series,
)
from forwardscope.dashboards.sdk import models
from forwardscope.telemetry import names

__all__ = ["forward_passes"]


def forward_passes() -> models.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "forwardscope-forward-passes",
        "forwardscope / Forward passes",
        "What does the model cost?",
        {
            "What does the model cost?": (
                passes_now(),
                seconds_now(),
                mean_now(),
                p50_now(),
                p99_now(),
                errors_now(),
            ),
            "How long does a forward pass take?": (durations(), heatmap()),
            "Where is the time spent?": (
                by_probe(),
                by_view(),
                seconds_by_probe(),
                passes_by_view(),
            ),
            "Batches": (batch_size(), largest_batch(), batches()),
            "Errors, and the share of the wall time": (
                errors(),
                share_of_wall(),
                duration_by_run(),
            ),
        },
    )


# -- what does the model cost? ---------------------------------------------------------------


def passes_now() -> Panel:
    """Number of forward passes."""
    return number(
        "Forward passes",
        "Prompts that the model computed in the time range; a batch of 8 prompts counts as 8.",
        increase(names.FORWARD_PASSES),
        "short",
    )


def seconds_now() -> Panel:
    """Total duration of the forward passes."""
    return number(
        "Time in forward passes",
        "Total duration of the forward passes in the time range, without failed ones.",
        increase(names.FORWARD_DURATION, part="_sum"),
        "s",
    )


def mean_now() -> Panel:
    """Mean duration of a forward pass."""
    return number(
        "Mean duration",
        "Of the forward passes in the time range; those of a batch share its duration evenly.",
        seconds_a_pass(),
        "s",
    )


def p50_now() -> Panel:
    """Median duration of a forward pass."""
    return number(
        "Median duration",
        "Half of the forward passes in the time range were faster; interpolated within a bucket.",
        quantile(0.5, names.FORWARD_DURATION, RANGE),
        "s",
    )


def p99_now() -> Panel:
    """99th percentile of the duration of a forward pass."""
    return number(
        "99th percentile",
        "One forward pass in a hundred in the time range was slower; interpolated within a bucket.",
        quantile(0.99, names.FORWARD_DURATION, RANGE),
        "s",
    )


def errors_now() -> Panel:
    """Number of failed forward passes."""
    return number(
        "Failed",
        "Forward passes in the time range that raised an exception.",
        f"{increase(names.FORWARD_ERRORS)} or {increase(names.LOOKUPS)} * 0",
        "short",
        steps=ALARM,
    )


# -- how long does a forward pass take? ------------------------------------------------------


def durations() -> Panel:
    """Quantiles and mean of the duration of a forward pass over time."""
    mean = ratio(
        rate(names.FORWARD_DURATION, part="_sum"), rate(names.FORWARD_DURATION, part="_count")
    )
    quantiles = {f"p{q * 100:g}": quantile(q, names.FORWARD_DURATION) for q in (0.5, 0.9, 0.99)}
    return lines(
        "Duration of a forward pass",
        "Quantiles are interpolated within a bucket. A diamond is one pass; it links to its trace "
        "if the data source is configured with a tracing one.",
        {**quantiles, "mean": mean},
        "s",
        exemplars=True,
    )


def heatmap() -> Panel:
    """Durations of forward passes as a heatmap."""
    buckets = f"increase({series(names.FORWARD_DURATION, part='_bucket')}[{RATE}])"
    return heat(
        "Durations",
        "Number of forward passes by duration; a point is one pass and links to its trace.",
        f"sum by (le) ({buckets})",
        "s",
    )


# -- where is the time spent? ----------------------------------------------------------------


def by_probe() -> Panel:
    """Scoring time of each probe over time."""
    return lines(
        "Scoring time a second, by probe",
        "Wall time of the scoring calls, waiting included; 1 s means that the probe always scores.",
        {"{{probe}}": named_probes(rate(names.SCORING_SECONDS, by="probe"))},
        "s",
        stacked=True,
    )


def by_view() -> Panel:
    """Scoring time of each view family over time."""
    return lines(
        "Scoring time a second, by view",
        "Wall time of the scoring calls by view: base, ft, scaled or null.",
        {"{{view}}": rate(names.SCORING_SECONDS, by="view")},
        "s",
        stacked=True,
    )


def seconds_by_probe() -> Panel:
    """Total scoring time of each probe."""
    return bars(
        "Scoring time by probe",
        "Wall time of the scoring calls in the time range.",
        named_probes(increase(names.SCORING_SECONDS, by="probe")),
        "{{probe}}",
        "s",
        width=12,
    )


def passes_by_view() -> Panel:
    """Total forward passes of each view family."""
    return bars(
        "Forward passes by view",
        "Prompts computed in the time range.",
        increase(names.FORWARD_PASSES, by="view"),
        "{{view}}",
        "short",
        width=12,
    )


# -- batches ---------------------------------------------------------------------------------


def batch_size() -> Panel:
    """Mean batch size."""
    return lines(
        "Prompts a batch",
        "Mean size of the batches that were sent to the model.",
        {
            "{{backend}}": ratio(
                rate(names.BATCH_PROMPTS, by="backend", part="_sum"),
                rate(names.BATCH_PROMPTS, by="backend", part="_count"),
            )
        },
        "short",
        width=8,
    )


def largest_batch() -> Panel:
    """Largest batch size."""
    return lines(
        "Largest batch",
        "Prompts in the largest batch since the backend was created.",
        {"{{backend}}": f"max by (backend) ({series(names.BATCH_PROMPTS_MAX)})"},
        "short",
        width=8,
        stepped=True,
    )


def batches() -> Panel:
    """Batches per second."""
    return lines(
        "Batches a second",
        "Forward calls with several prompts.",
        {"{{backend}}": rate(names.BATCH_PROMPTS, by="backend", part="_count")},
        "suffix:/s",
        width=8,
    )


# -- errors, and the share of the wall time --------------------------------------------------


def errors() -> Panel:
    """Failed forward passes per second, by class of the exception."""
    return lines(
        "Failed forward passes a second, by error",
        "By class of the exception. The message is not exported, because it may contain a prompt. "
        "Empty if no pass failed.",
        {"{{error_type}}": rate(names.FORWARD_ERRORS, by="error_type")},
        "suffix:/s",
        steps=((None, "green"), (0.001, "red")),
        width=8,
    )


def share_of_wall() -> Panel:
    """Forward time as a share of a run's wall time."""
    return lines(
        "Share of a run's wall time in forward passes",
        "From the gauges of a run. Far below 100 %, something other than the model is slow; above "
        "100 %, several threads compute at the same time.",
        {BY_RUN: finished(ratio(series(names.RUN_FORWARD_SECONDS), series(names.RUN_WALL)))},
        "percentunit",
        width=8,
        stepped=True,
    )


def duration_by_run() -> Panel:
    """Mean duration of a forward pass in each run."""
    return lines(
        "Time a forward pass, by run",
        "From the gauges of a run: mean duration of its forward passes, failed ones included.",
        {
            BY_RUN: finished(
                ratio(series(names.RUN_FORWARD_SECONDS), series(names.RUN_FORWARD_PASSES))
            )
        },
        "s",
        width=8,
        stepped=True,
    )
