"""Recording rules for suites, from the gauges that their runs push.

The numbers of a complete run are recorded under its id. This separates the last complete
run of a suite from its other runs, also while the next run is active.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.queries import newest_info
from forwardscope.dashboards.rules import Recording
from forwardscope.telemetry import run_names

__all__ = [
    "DEMAND",
    "END",
    "EXPECTED",
    "HIT_RATE",
    "SECONDS_PER_PASS",
    "WALL",
    "latest",
    "median",
    "other_runs_count",
    "recordings",
]

_WEEK: Final = "7d"
#: Minimum number of forward passes and of lookups in a run for a mean duration and a hit rate.
_MIN_PASSES, _MIN_LOOKUPS = 20, 50

#: Labels of the gauges of a run; run_id is a label of `forwardscope_run_info` alone.
_TARGET: Final = "job, instance, suite, model"
_RUN: Final = "suite, model, run_id"
_SUITE: Final = "suite, model"

#: Names of the recorded values.
END: Final = run_names.RUN_END.name
_PASSES: Final = run_names.RUN_FORWARD_PASSES.name
_HITS: Final = run_names.RUN_HITS.name
_STORED: Final = run_names.RUN_STORE_HITS.name
#: Forward passes that an empty store would have needed.
DEMAND: Final = f"{run_names.RUN_FORWARD_PASSES.name}_needed"
EXPECTED: Final = run_names.RUN_EXPECTED.name
WALL: Final = run_names.RUN_WALL.name
SECONDS_PER_PASS: Final = f"{run_names.RUN_FORWARD_SECONDS.name}_per_pass"
#: Without hits of a store, which may be pruned.
HIT_RATE: Final = f"{run_names.RUN_HITS.name}_per_lookup"

#: Query of each recorded value, by metric name.
_RECORDED: Final = {
    # versions before the store have no gauge of its hits
    DEMAND: f"({_PASSES} + ({_STORED} or {_PASSES} * 0))",
    EXPECTED: f"({EXPECTED} >= 0)",  # the gauge is NaN without a plan
    SECONDS_PER_PASS: f"{run_names.RUN_FORWARD_SECONDS.name} / ({_PASSES} >= {_MIN_PASSES})",
    WALL: WALL,
    HIT_RATE: f"({_HITS} - ({_STORED} or {_HITS} * 0)) "
    f"/ ({run_names.RUN_LOOKUPS.name} >= {_MIN_LOOKUPS})",
}


def recordings() -> list[Recording]:
    """Return the rules that record complete runs, the last one, and the median of the others."""
    ended = Recording(_complete_runs(END), _under_run_id(END, "run_id, device, trace_id"))
    each = [
        Recording(_complete_runs(name), _under_run_id(expr)) for name, expr in _RECORDED.items()
    ]
    last = [Recording(latest(name), _of_last_run(name)) for name in _RECORDED]
    week = [
        Recording(median(name), f"quantile by ({_labels(name)}) (0.5,\n{_of_other_runs(name)}\n)")
        for name in _RECORDED
        if name not in (EXPECTED, WALL)
    ]
    runs = [
        Recording(
            other_runs_count(name), f"count by ({_labels(name)}) (\n{_of_other_runs(name)}\n)"
        )
        for name in (SECONDS_PER_PASS, HIT_RATE)
    ]
    return [ended, *each, Recording(latest(END, level="run"), _last_run()), *last, *week, *runs]


# -- names of recorded metrics -----------------------------------------------------------------


def latest(name: str, level: str = "suite") -> str:
    """Return the name of a value of the last complete run."""
    return f"{level}:{name}:latest"


def median(name: str) -> str:
    """Return the name of the median of the other complete runs of the past 7 days."""
    return f"suite:{name}:median{_WEEK}"


def other_runs_count(name: str) -> str:
    """Return the name of the number of the runs in the median."""
    return f"suite:{name}:count{_WEEK}"


def _complete_runs(name: str) -> str:
    return f"run:{name}:finished"


def _labels(name: str) -> str:
    """Return the labels within which runs are compared: durations only on the same device."""
    return f"{_SUITE}, device" if name == SECONDS_PER_PASS else _SUITE


# -- queries -----------------------------------------------------------------------------------


def _in_week(name: str) -> str:
    """Return the value of each complete run of the past 7 days."""
    return f"last_over_time({_complete_runs(name)}[{_WEEK}])"


def _under_run_id(query: str, ids: str = "run_id, device") -> str:
    """Return a gauge of complete runs with labels of `forwardscope_run_info`.

    A run that an endpoint and a Pushgateway both export counts once.
    """
    return (
        f"max by ({_SUITE}, {ids}) (\n"
        f"  {query} * on ({_TARGET}) group_left ({ids}) {newest_info()}\n"
        f"  and on ({_TARGET}) {run_names.RUN_COMPLETE.name} == 1\n"
        ")"
    )


def _last_run() -> str:
    """Return the complete run of each suite that ended last, if the suite is still exported."""
    return (
        f"({_in_week(END)}\n"
        f"  == on ({_SUITE}) group_left () max by ({_SUITE}) ({_in_week(END)}))\n"
        f"and on ({_SUITE}) {run_names.RUN_START.name}"
    )


def _of_last_run(name: str) -> str:
    return (
        f"max by ({_labels(name)}) (\n"
        f"  {_in_week(name)}\n"
        f"  and on ({_RUN}) {latest(END, level='run')}\n"
        ")"
    )


def _of_other_runs(name: str) -> str:
    return f"  {_in_week(name)}\n  unless on ({_RUN}) {latest(END, level='run')}"
