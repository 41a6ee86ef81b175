"""The dashboard Runs: cost, verdicts and lost telemetry of each run."""

from __future__ import annotations

from forwardscope.dashboards.alert_panels import alert_list, firing
from forwardscope.dashboards.comparison import comparison, run_variables
from forwardscope.dashboards.delivery_panels import delivery
from forwardscope.dashboards.frame import dashboard, trace_variables
from forwardscope.dashboards.links import traces_of_run, traces_of_suite
from forwardscope.dashboards.panels import ALARM, NEUTRAL, REACHED, Panel, line_panel
from forwardscope.dashboards.probe_panels import probes
from forwardscope.dashboards.queries import series
from forwardscope.dashboards.run_queries import (
    BY_RUN,
    EXPECTED,
    attainable_hit_rate,
    finished,
    needed_passes,
    of_each_run,
    reached_hit_rate,
    run_hit_rate,
)
from forwardscope.dashboards.sdk import models
from forwardscope.dashboards.tables import TableColumn, table_panel
from forwardscope.telemetry import run_names

__all__ = ["runs"]


def runs() -> models.Dashboard:
    """Return the dashboard Runs."""
    return dashboard(
        "forwardscope-runs",
        "forwardscope / Runs",
        "How did each run do?",
        {
            "How did each run do?": (table_of_runs(),),
            "Is anything wrong?": (firing(), alert_list()),
            "What did each run cost?": (passes(), hit_rates(), wall_times()),
            "What did its probes find?": probes(),
            "How does a run compare with a baseline?": comparison(),
            "Is the telemetry complete?": delivery(),
        },
        since="now-24h",
        more_variables=(*trace_variables(), *run_variables()),
    )


# -- how did each run do? --------------------------------------------------------------------


def table_of_runs() -> Panel:
    """One row for each run."""
    failed = series(run_names.PROBE_VERDICT, 'verdict=~"fail|error"')
    values = {
        "Started": (f"{series(run_names.RUN_START)} * 1000", "dateTimeAsIso", 150),
        "Complete": (series(run_names.RUN_COMPLETE), "bool_yes_no", 76),
        "Wall time": (series(run_names.RUN_WALL), "s", 73),
        "Lookups": (series(run_names.RUN_LOOKUPS), "locale", 69),
        "Hit rate": (run_hit_rate(), "percentunit", 66),
        "Attainable": (attainable_hit_rate(), "percentunit", 82),
        "Reached": (reached_hit_rate(), "percentunit", 72),
        "Passes": (series(run_names.RUN_FORWARD_PASSES), "locale", 65),
        "Store": (series(run_names.RUN_STORE_HITS), "locale", 56),
        "Over expected": (f"{needed_passes()} - {EXPECTED}", "locale", 108),
        "Failed probes": (f"sum without (probe, verdict) ({failed})", "locale", 103),
        "Failed passes": (series(run_names.RUN_ERRORS), "locale", 103),
    }
    coloured = ("Over expected", "Failed probes", "Failed passes")
    colours = dict.fromkeys(values, NEUTRAL) | dict.fromkeys(coloured, ALARM)
    colours["Reached"] = REACHED
    started, *others = (
        TableColumn(title, of_each_run(query), unit=unit, width=width, thresholds=colours[title])
        for title, (query, unit, width) in values.items()
    )
    return table_panel(
        "Runs",
        "The runs in the time range, with their last numbers. Complete: the run has ended, was "
        "not interrupted, and no probe had an error. Attainable: the hit rate of the suite if "
        "nothing is evicted. Reached: the hit rate as a share of it, above 100 % if the cache was "
        "not empty. Passes: forward passes. Store: lookups that the store answered. Over "
        "expected: passes, and those that the store saved, beyond the ones of the suite if "
        "nothing is evicted.",
        (
            started,
            TableColumn("Suite", label="suite", links=traces_of_suite()),
            TableColumn("Model", label="model"),
            TableColumn("Adapter", label="adapter"),
            TableColumn("Device", label="device", width=60),
            *others,
            TableColumn("Run id", label="run_id", width=70),
            TableColumn("Trace", label="trace_id", width=70, links=traces_of_run()),
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
            BY_RUN: finished(series(run_names.RUN_FORWARD_PASSES)),
            f"{BY_RUN}, expected": finished(EXPECTED),
        },
        "locale",
        width=8,
        stepped=True,
    )


def hit_rates() -> Panel:
    """Hit rate of each run."""
    return line_panel(
        "Hit rate per run",
        "Share of a run's lookups that needed no forward pass, and the attainable one: that of "
        "its suite if nothing is evicted.",
        {
            BY_RUN: finished(run_hit_rate()),
            f"{BY_RUN}, attainable": finished(attainable_hit_rate()),
        },
        "percentunit",
        width=8,
        stepped=True,
    )


def wall_times() -> Panel:
    """Wall time of each run."""
    return line_panel(
        "Wall time per run",
        "Time from the first lookup to the last verdict, without the loading of the model.",
        {BY_RUN: finished(series(run_names.RUN_WALL))},
        "s",
        width=8,
        stepped=True,
    )
