"""The dashboard Sweep: scores along adapters, what was paid, and workers."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.along_adapters import measured, passes, scores, verdicts
from forwardscope.dashboards.frame import dashboard, trace_variables
from forwardscope.dashboards.links import to_runs, traces_of_run, traces_of_suite
from forwardscope.dashboards.panels import (
    ALARM,
    Panel,
    bar_panel,
    line_panel,
    stat_panel,
)
from forwardscope.dashboards.queries import HITS, rate, ratio, series, total
from forwardscope.dashboards.run_queries import BY_RUN
from forwardscope.dashboards.sdk import models
from forwardscope.dashboards.sweep_queries import ADAPTER, of_sweep
from forwardscope.dashboards.tables import TableColumn, table_panel
from forwardscope.telemetry import names, sweep_names
from forwardscope.telemetry.names import Metric

__all__ = ["sweep"]

#: Adapters that have ended.
_ENDED: Final = 'state=~"finished|resumed|error"'
_NEWEST: Final = "Of the newest sweep of each suite in the time range."


def sweep() -> models.Dashboard:
    """Return the dashboard Sweep."""
    return dashboard(
        "forwardscope-sweep",
        "forwardscope / Sweep",
        "How do adapters change along a sweep?",
        {
            "How do adapters change along a sweep?": (
                *(ended(), left(), not_passed(), errors(), saved(), workers_lost()),
                *(scores(), measured(), verdicts()),
            ),
            "What became of each adapter?": (table_of_sweeps(), table_of_adapters()),
            "What was paid?": (passes(), by_tier(), tiers_now(), passes_now()),
            "Is the sweep going on?": (adapters_by_state(), workers()),
        },
        since="now-6h",
        more_variables=trace_variables(),
    )


# -- how do adapters change along a sweep? ---------------------------------------------------


def _adapters(*matchers: str) -> str:
    return total(of_sweep(series(sweep_names.SWEEP_ADAPTERS_BY_STATE, *matchers), "state"))


def ended() -> Panel:
    """Number of adapters that have ended."""
    text = f"Adapters that were measured, resumed, or could not be measured. {_NEWEST}"
    return stat_panel("Adapters ended", text, _adapters(_ENDED), "locale")


def left() -> Panel:
    """Number of adapters that have not ended."""
    return stat_panel(
        "Adapters left",
        f"Adapters that are running or pending; after an interrupt, those not reached. {_NEWEST}",
        _adapters('state=~"running|pending"'),
        "locale",
    )


def not_passed() -> Panel:
    """Number of adapters that did not pass."""
    passed = of_sweep(f"{series(sweep_names.SWEEP_ADAPTER_PASSED)} == bool 0", *ADAPTER)
    return stat_panel(
        "Adapters not passed",
        f"Adapters with a failed probe, or that could not be measured. {_NEWEST}",
        total(passed),
        "locale",
        thresholds=ALARM,
    )


def errors() -> Panel:
    """Number of adapters that could not be measured."""
    return stat_panel(
        "Adapter errors",
        f"Adapters that could not be measured; the sweep's report has the reasons. {_NEWEST}",
        _adapters('state="error"'),
        "locale",
        thresholds=ALARM,
    )


def saved() -> Panel:
    """Share of the forward passes that the store saved."""
    paid = total(of_sweep(series(sweep_names.SWEEP_FORWARD_PASSES)))
    without = total(of_sweep(series(sweep_names.SWEEP_PASSES_NEEDED)))
    return stat_panel(
        "Passes saved",
        "Share of the forward passes that the adapters would have needed without a store, and "
        f"that it answered. {_NEWEST}",
        f"1 - {ratio(paid, without)}",
        "percentunit",
    )


def workers_lost() -> Panel:
    """Number of workers that were lost."""
    return stat_panel(
        "Workers lost",
        f"Workers that were lost. Their adapters are measured again, or are errors. {_NEWEST}",
        total(of_sweep(series(sweep_names.SWEEP_WORKERS_LOST))),
        "locale",
        thresholds=ALARM,
    )


# -- what became of each adapter? ------------------------------------------------------------


def table_of_sweeps() -> Panel:
    """One row for each suite's newest sweep."""
    info = f"({series(sweep_names.SWEEP_START)} * 1000) * on (job, instance, suite, model) "
    info += f"group_left (trace_id) {series(sweep_names.SWEEP_INFO)}"
    return table_panel(
        "Newest sweeps",
        "The newest sweep of each suite in the time range, with its trace. The runs of all "
        "adapters are below it, in this process or on Ray.",
        (
            TableColumn("Started", of_sweep(info, "trace_id"), unit="dateTimeAsIso", width=165),
            TableColumn("Suite", label="suite", links=traces_of_suite()),
            TableColumn("Model", label="model"),
            TableColumn("Trace", label="trace_id", links=traces_of_run()),
        ),
        height=5,
    )


def table_of_adapters() -> Panel:
    """One row for each adapter that has ended."""
    of_info = ("state", "worker", "run_id")
    on_adapter = f"on (job, instance, suite, model, {', '.join(ADAPTER)})"
    info = f"{on_adapter} group_left ({', '.join(of_info)}) "
    info += series(sweep_names.SWEEP_ADAPTER_INFO, _ENDED)

    def column(title: str, metric: Metric, unit: str, width: int) -> TableColumn:
        query = of_sweep(f"{series(metric)} * {info}", *ADAPTER, *of_info)
        return TableColumn(title, query, unit=unit, width=width)

    return table_panel(
        "Adapters",
        "The adapters of the newest sweep that have ended, in their order. Passes: forward passes "
        "that were paid when the adapter was measured. Needed: those that it would have paid "
        "without a store.",
        (
            TableColumn("Position", label="position", width=75),
            TableColumn("Suite", label="suite"),
            TableColumn("Model", label="model"),
            TableColumn("Adapter", label="adapter"),
            TableColumn("State", label="state", width=80),
            column("Passed", sweep_names.SWEEP_ADAPTER_PASSED, "bool_yes_no", 70),
            column("Score", sweep_names.SWEEP_ADAPTER_SCORE, "none", 70),
            column("Wall time", sweep_names.SWEEP_ADAPTER_WALL, "s", 80),
            column("Passes", sweep_names.SWEEP_ADAPTER_PASSES, "locale", 70),
            column("Needed", sweep_names.SWEEP_ADAPTER_PASSES_NEEDED, "locale", 70),
            TableColumn("Worker", label="worker"),
            TableColumn("Run id", label="run_id", links=[to_runs("Runs")], width=70),
        ),
        sorted_by="Position",
    )


# -- what was paid? --------------------------------------------------------------------------


def by_tier() -> Panel:
    """Lookups of the sweep by the tier that answered."""
    tiers = of_sweep(series(sweep_names.SWEEP_LOOKUPS), "result", "tier")
    return bar_panel(
        "Lookups by tier",
        "Lookups of the adapters that the sweep measured, by result and by the tier that "
        f"answered; a miss has none. {_NEWEST}",
        f"sum by (result, tier) ({tiers})",
        "{{result}} {{tier}}",
        "locale",
        width=12,
    )


def tiers_now() -> Panel:
    """Hits per second by tier."""
    return line_panel(
        "Hits per second, by tier",
        "Hits of the runs that are scraped while they go on, by the tier that answered. memory: "
        "the cache of a process. disk: a store in a file. remote: a store on a server.",
        {"{{tier}}": rate(names.LOOKUPS, HITS, by="tier")},
        "suffix:/s",
        stacked=True,
    )


def passes_now() -> Panel:
    """Forward passes per second by view."""
    return line_panel(
        "Forward passes per second, by view",
        "Forward passes of the runs that are scraped while they go on. With a store, those of "
        "base and null views are paid by the first adapters alone.",
        {"{{view}}": rate(names.FORWARD_PASSES, by="view")},
        "suffix:/s",
        stacked=True,
    )


# -- is the sweep going on? ------------------------------------------------------------------


def adapters_by_state() -> Panel:
    """Adapters by state over time."""
    states = f"max by (suite, model, state) ({series(sweep_names.SWEEP_ADAPTERS_BY_STATE)})"
    return line_panel(
        "Adapters by state",
        "Adapters of each sweep that are pending, running, finished, resumed or errors.",
        {f"{BY_RUN}: {{{{state}}}}": states},
        "none",
        stepped=True,
    )


def workers() -> Panel:
    """Workers over time."""

    def of(metric: Metric) -> str:
        return f"max by (suite, model) ({series(metric)})"

    return line_panel(
        "Workers",
        "Workers that a sweep has or is going to start, those that measure an adapter, and those "
        "that were lost so far.",
        {
            BY_RUN: of(sweep_names.SWEEP_WORKERS),
            f"{BY_RUN}, busy": of(sweep_names.SWEEP_WORKERS_BUSY),
            f"{BY_RUN}, lost": of(sweep_names.SWEEP_WORKERS_LOST),
        },
        "none",
        stepped=True,
    )
