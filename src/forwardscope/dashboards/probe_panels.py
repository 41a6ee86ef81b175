"""Panels of what the probes of runs found."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.links import traces_of_suite
from forwardscope.dashboards.panels import Panel, line_panel
from forwardscope.dashboards.queries import RUN_KEY, series
from forwardscope.dashboards.run_queries import BY_RUN, known, newest
from forwardscope.dashboards.tables import TableColumn, table_panel
from forwardscope.telemetry import run_names
from forwardscope.telemetry.names import Metric

__all__ = ["probes"]

_BY_PROBE: Final = f"{BY_RUN}: {{{{probe}}}}"


def probes() -> tuple[Panel, ...]:
    """Return the panels."""
    return scores(), measured(), z_scores(), durations(), verdicts()


def _by_probe(metric: Metric) -> str:
    return f"max by (suite, model, probe) ({known(metric)})"


def measured() -> Panel:
    """What probes measured over time."""
    return line_panel(
        "Probe values",
        "What each probe measured, in its own unit, such as nats. It differs where scores are all "
        "but 1.",
        {_BY_PROBE: _by_probe(run_names.PROBE_RAW)},
        "none",
        stepped=True,
    )


def z_scores() -> Panel:
    """Z-scores of probes over time."""
    return line_panel(
        "Probe z-scores",
        "Distance of what each probe measured from random adapters, in their standard deviations. "
        "A suite without a null_adapter probe has none.",
        {_BY_PROBE: _by_probe(run_names.PROBE_Z)},
        "none",
        stepped=True,
    )


def scores() -> Panel:
    """Scores of probes over time."""
    return line_panel(
        "Probe scores",
        "Score of each probe, from 0 to 1. A probe without a score has no line.",
        {_BY_PROBE: _by_probe(run_names.PROBE_SCORE)},
        "none",
        stepped=True,
    )


def durations() -> Panel:
    """Durations of probes over time."""
    return line_panel(
        "Probe durations",
        "Wall time of each probe.",
        {_BY_PROBE: _by_probe(run_names.PROBE_DURATION)},
        "s",
        stepped=True,
    )


def verdicts() -> Panel:
    """Last verdict of each probe."""
    given = f"({series(run_names.PROBE_VERDICT)} == 1)"
    start = f"{given} * 1000 * on ({RUN_KEY}) group_left () {series(run_names.RUN_START)}"
    return table_panel(
        "Last verdicts",
        "The last verdict of each probe in the time range, and the run that it is from: of the "
        "run before until a probe of an active run has ended.",
        (
            TableColumn(
                "Run started",
                f"max by (suite, model, probe, verdict, run_id) "
                f"({newest(start, 'probe', labels=('verdict',))})",
                unit="dateTimeAsIso",
                width=165,
            ),
            TableColumn("Suite", label="suite", links=traces_of_suite()),
            TableColumn("Model", label="model"),
            TableColumn("Probe", label="probe"),
            TableColumn("Verdict", label="verdict"),
            TableColumn("Run id", label="run_id"),
        ),
        height=8,
    )
