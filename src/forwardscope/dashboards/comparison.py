"""Panels that compare a chosen run with a chosen baseline."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.links import traces_of_run
from forwardscope.dashboards.panels import SOURCE, Panel
from forwardscope.dashboards.queries import ratio, series
from forwardscope.dashboards.run_queries import (
    known,
    of_each_run,
    reached_hit_rate,
    run_hit_rate,
    short_id,
)
from forwardscope.dashboards.sdk import builders, models
from forwardscope.dashboards.tables import TableColumn, table_panel
from forwardscope.telemetry import run_names
from forwardscope.telemetry.names import Metric

__all__ = ["comparison", "run_variables"]

_RUN: Final = 'run_id="$run"'
_BASELINE: Final = 'run_id="$baseline"'
#: Reads id and name of a run from a result of `_listed`.
_ID_AND_NAME: Final = '/name="(?<text>[^"]+)".*run_id="(?<value>[^"]+)"/'


def comparison() -> tuple[Panel, ...]:
    """Return the panels."""
    return cost_of_both(), probes_of_both()


def run_variables() -> list[builders.QueryVariable]:
    """Return the variables `run`, by default the newest one, and `baseline`, the oldest one."""
    return [
        _run_variable("run", "Run", f"sort_desc({_listed()})"),
        _run_variable("baseline", "Baseline", f"sort({_listed()})"),
    ]


def _listed() -> str:
    """Return the start of each run, with its suite and the start of its id as the label `name`."""
    each = short_id(of_each_run(series(run_names.RUN_START)))
    return f'label_join({each}, "name", " ", "suite", "run")'


def _run_variable(name: str, label: str, expr: str) -> builders.QueryVariable:
    query = f"query_result({expr})"
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .definition(query)
        .regex(_ID_AND_NAME)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.DISABLED)
        .multi(False)
        .include_all(False)
    )


def cost_of_both() -> Panel:
    """Cost of the run and of the baseline."""
    passes = series(run_names.RUN_FORWARD_PASSES)
    values = {
        "Started": (f"{series(run_names.RUN_START)} * 1000", "dateTimeAsIso", 150),
        "Wall time": (series(run_names.RUN_WALL), "s", 80),
        "Lookups": (series(run_names.RUN_LOOKUPS), "locale", 75),
        "Hit rate": (run_hit_rate(), "percentunit", 75),
        "Reached": (reached_hit_rate(), "percentunit", 80),
        "Passes": (passes, "locale", 70),
        "Store": (series(run_names.RUN_STORE_HITS), "locale", 60),
        "Time per pass": (ratio(series(run_names.RUN_FORWARD_SECONDS), passes), "s", 105),
        "CPU per pass": (ratio(series(run_names.RUN_CPU_SECONDS), passes), "s", 105),
        "Peak memory": (series(run_names.RUN_MEMORY), "bytes", 105),
    }
    columns = [
        TableColumn(title, _of_both(query), unit=unit, width=width)
        for title, (query, unit, width) in values.items()
    ]
    started, *others = columns
    return table_panel(
        "Run and baseline",
        "The run that is chosen as `Run` and the one that is chosen as `Baseline`; by default the "
        "newest and the oldest in the time range. Reached: the hit rate as a share of the "
        "attainable one. Passes: forward passes. Store: lookups that the store answered.",
        (
            started,
            TableColumn("Role", label="role", width=80),
            TableColumn("Suite", label="suite"),
            TableColumn("Model", label="model"),
            TableColumn("Adapter", label="adapter"),
            TableColumn("Device", label="device", width=70),
            *others,
            TableColumn("Run id", label="run_id", width=80),
            TableColumn("Trace", label="trace_id", width=80, links=traces_of_run()),
        ),
        height=5,
    )


def probes_of_both() -> Panel:
    """Probe values of the run and of the baseline."""
    metrics = {
        "Score": (run_names.PROBE_SCORE, "none"),
        "Value": (run_names.PROBE_RAW, "none"),
        "z-score": (run_names.PROBE_Z, "none"),
        "Duration": (run_names.PROBE_DURATION, "s"),
    }
    columns = [
        TableColumn(f"{title}{suffix}", _by_probe(metric, only), unit=unit)
        for title, (metric, unit) in metrics.items()
        for suffix, only in (("", _RUN), (", baseline", _BASELINE))
    ]
    return table_panel(
        "Probes of run and baseline",
        "What each probe of the run found, beside the probe of the same name in the baseline; runs "
        "of two models have rows of their own. Value: what the probe measured, in its own unit.",
        (TableColumn("Probe", label="probe"), TableColumn("Model", label="model"), *columns),
        height=8,
    )


def _of_both(query: str) -> str:
    """Return the values of run and baseline, with the label `role`."""
    both = of_each_run(query, only='run_id=~"$run|$baseline"')
    run = f'label_replace({both}, "role", "run", "run_id", "$run")'
    return f'label_replace({run}, "role", "baseline", "run_id", "$baseline")'


def _by_probe(metric: Metric, only: str) -> str:
    return f"max by (model, probe) ({of_each_run(known(metric), 'probe', only=only)})"
