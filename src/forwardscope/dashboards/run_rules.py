"""Recording rules and alerts for suites: batch jobs, read from the gauges that they push.

Once a run is complete, its numbers are recorded under its id for as long as the gateway
has them. This separates the last run of a suite from earlier runs, also while the next
run is active. An alert lasts until a better run has ended, and a run is never compared
with itself. A run that was interrupted, or that has a probe with an error, makes fewer
lookups than complete runs. It is therefore not compared with them, and it does not end
an alert on their cost.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.rules import Alert, Recording
from forwardscope.telemetry import names
from forwardscope.telemetry.delivery import JOB
from forwardscope.telemetry.names import Metric

__all__ = ["alerts", "recordings"]

_WEEK: Final = "7d"
#: Allowed forward passes of a run without a plan, as a multiple of its week's median.
_MORE_PASSES: Final = 1.1
#: Allowed duration of a forward pass, as a multiple of its week's median.
_SLOWER: Final = 1.5
#: Minimum runs in the week, and minimum passes in a run, to compare durations.
_MIN_RUNS, _MIN_PASSES = 3, 20
#: Allowed drop of the hit ratio below its week's median, and minimum lookups in a run.
_HIT_RATIO_DROP, _MIN_LOOKUPS = 0.1, 50
_STALLED_S: Final = 600
#: Age of the last run at which the next one is late, in periods of the suite.
_LATE: Final = 1.5

_TARGET = "job, instance, suite, model"
_RUN = "suite, model, run_id"
_SUITE = "suite, model"
_WHO = "{{ $labels.suite }} on {{ $labels.model }}"

_END = names.RUN_END.name
_PASSES = names.RUN_FORWARD_PASSES.name
_EXPECTED = names.RUN_EXPECTED.name
_SECONDS_A_PASS = f"{names.RUN_FORWARD_SECONDS.name}_per_pass"
_HIT_RATIO = f"{names.RUN_HITS.name}_per_lookup"

#: Queries that are compared with the week before, by the metric name in their rules.
_COMPARED: Final = {
    _PASSES: _PASSES,
    _EXPECTED: f"({_EXPECTED} >= 0)",  # the gauge is NaN without a plan
    _SECONDS_A_PASS: f"{names.RUN_FORWARD_SECONDS.name} / ({_PASSES} >= {_MIN_PASSES})",
    _HIT_RATIO: f"{names.RUN_HITS.name} / ({names.RUN_LOOKUPS.name} >= {_MIN_LOOKUPS})",
}


def recordings() -> list[Recording]:
    """Return the recording rules of each run, of each suite's last run and of its week."""
    ended = Recording(_finished(_END), _of_complete_run(_END))
    each = [Recording(_finished(name), _of_complete_run(expr)) for name, expr in _COMPARED.items()]
    last = [Recording(_latest(name), _of_last_run(name)) for name in _COMPARED]
    week = [
        Recording(_median(name), f"quantile by ({_SUITE}) (0.5,\n{_of_runs_before(name)}\n)")
        for name in _COMPARED
        if name != _EXPECTED
    ]
    runs = Recording(
        _count(_SECONDS_A_PASS), f"count by ({_SUITE}) (\n{_of_runs_before(_SECONDS_A_PASS)}\n)"
    )
    return [ended, *each, Recording(_latest(_END, level="run"), _last_run()), *last, *week, runs]


def alerts() -> list[Alert]:
    """Return the alerts of suites."""
    return [
        _forward_pass_regression(),
        _forward_latency_regression(),
        _cache_hit_rate_drop(),
        _run_failed(),
        _run_stalled(),
        _run_missing(),
        *_push_failed(),
        _forward_errors(),
        _spans_dropped(),
        _trace_write_errors(),
    ]


# -- recording rules ---------------------------------------------------------------------------


def _finished(name: str) -> str:
    return f"run:{name}:finished"


def _latest(name: str, level: str = "suite") -> str:
    return f"{level}:{name}:latest"


def _median(name: str) -> str:
    return f"suite:{name}:median{_WEEK}"


def _count(name: str) -> str:
    return f"suite:{name}:count{_WEEK}"


def _in_week(name: str) -> str:
    return f"last_over_time({_finished(name)}[{_WEEK}])"


def _of_complete_run(query: str) -> str:
    """Return a gauge under its run's id, once even if endpoint and gateway both export it.

    Only complete runs are included. A complete run has ended.
    """
    return (
        f"max by ({_RUN}) (\n"
        f"  {query} * on ({_TARGET}) group_left (run_id) {names.RUN_INFO.name}\n"
        f"  and on ({_TARGET}) {names.RUN_COMPLETE.name} == 1\n"
        ")"
    )


def _last_run() -> str:
    """Return the run of each suite that ended last, for suites that are still exported."""
    return (
        f"({_in_week(_END)}\n"
        f"  == on ({_SUITE}) group_left () max by ({_SUITE}) ({_in_week(_END)}))\n"
        f"and on ({_SUITE}) {names.RUN_START.name}"
    )


def _of_last_run(name: str) -> str:
    return (
        f"max by ({_SUITE}) (\n"
        f"  {_in_week(name)}\n"
        f"  and on ({_RUN}) {_latest(_END, level='run')}\n"
        ")"
    )


def _of_runs_before(name: str) -> str:
    return f"  {_in_week(name)}\n  unless on ({_RUN}) {_latest(_END, level='run')}"


# -- cost --------------------------------------------------------------------------------------


def _forward_pass_regression() -> Alert:
    return Alert(
        "ForwardPassRegression",
        f"{_latest(_PASSES)}\n- ({_latest(_EXPECTED)} or {_MORE_PASSES} * {_median(_PASSES)})\n> 0",
        "1m",
        "warning",
        f"{_WHO} computes too many forward passes",
        'The last run computed {{ printf "%.0f" $value }} forward passes more than its plan, or '
        f"than {_MORE_PASSES} times the median of its week if it has no plan. Its cache may be too "
        "small: see the evictions in its report and in the dashboard Overview.",
    )


def _forward_latency_regression() -> Alert:
    return Alert(
        "ForwardLatencyRegression",
        f"{_latest(_SECONDS_A_PASS)} / {_median(_SECONDS_A_PASS)} > {_SLOWER}\n"
        f"and {_count(_SECONDS_A_PASS)} >= {_MIN_RUNS}",
        "1m",
        "warning",
        f"{_WHO} has slow forward passes",
        'A forward pass of the last run took on average {{ printf "%.2f" $value }} times as long '
        "as the median of the runs in its week.",
    )


def _cache_hit_rate_drop() -> Alert:
    return Alert(
        "CacheHitRateDrop",
        f"{_median(_HIT_RATIO)} - {_latest(_HIT_RATIO)} > {_HIT_RATIO_DROP}",
        "1m",
        "warning",
        f"{_WHO} has a lower hit ratio",
        "The hit ratio of the last run is {{ $value | humanizePercentage }} of all lookups below "
        "the median of the runs in its week.",
    )


# -- missing results ---------------------------------------------------------------------------


def _newest(metric: Metric) -> str:
    return f"max by ({_SUITE}) ({metric.name})"


def _run_failed() -> Alert:
    end, success = _newest(names.RUN_END), _newest(names.RUN_LAST_SUCCESS)
    return Alert(
        "RunFailed",
        f"{end} > {success}\nor {end} unless {success}",
        "1m",
        "critical",
        f"{_WHO} did not pass",
        "The run that ended at {{ $value | humanizeTimestamp }} was interrupted, or one of its "
        "probes failed or had an error. Its report and the dashboard Runs have the verdicts.",
    )


def _run_stalled() -> Alert:
    return Alert(
        "RunStalled",
        f"time() - {_newest(names.RUN_PROGRESS)} > {_STALLED_S}\n"
        f"and {_newest(names.RUN_ACTIVE)} == 1",
        "1m",
        "critical",
        f"{_WHO} makes no progress",
        "The run has answered no lookup for {{ $value | humanizeDuration }} and has not ended. Its "
        "process hangs or was killed.",
    )


def _run_missing() -> Alert:
    return Alert(
        "RunMissing",
        f"time() - {_newest(names.RUN_START)} > {_LATE} * {_newest(names.RUN_PERIOD)}",
        "5m",
        "critical",
        f"{_WHO} is overdue",
        "The last run began {{ $value | humanizeDuration }} ago, which is more than "
        f"{_LATE} periods of the suite.",
    )


def _push_failed() -> list[Alert]:
    """Return an alert for each cause of a failed push, distinguished by `reason`."""
    pushed = f'push_time_seconds{{job="{JOB}"}}'
    failed = f'push_failure_time_seconds{{job="{JOB}"}}'
    build = "pushgateway_build_info"

    def alert(reason: str, expr: str, summary: str, description: str) -> Alert:
        labels = {"reason": reason}
        return Alert("PushFailed", expr, "5m", "critical", summary, description, labels)

    return [
        alert(
            "rejected",
            f"max by ({_SUITE}) ({failed})\n> max by ({_SUITE}) ({pushed})",
            f"The Pushgateway rejects {_WHO}",
            "It rejected a push at {{ $value | humanizeTimestamp }} and has accepted none since. "
            "The metrics of the suite are out of date.",
        ),
        alert(
            "lost",
            f"max by ({_SUITE}) (max_over_time(timestamp({pushed})[1d:1m]) unless {pushed})\n"
            f"< on () group_left () max(process_start_time_seconds and on (job, instance) {build})",
            f"The Pushgateway has lost {_WHO}",
            "The gateway restarted and no longer has the metrics that it had at {{ $value | "
            "humanizeTimestamp }}. No alert on the suite can fire until its next run.",
        ),
        alert(
            "gateway",
            f"absent({build})",
            "No Pushgateway is scraped",
            "Prometheus scrapes no Pushgateway, so no alert on a suite can fire.",
        ),
    ]


# -- errors and lost telemetry -----------------------------------------------------------------


def _forward_errors() -> Alert:
    return Alert(
        "ForwardErrors",
        f"{_newest(names.RUN_ERRORS)} > 0",
        "1m",
        "warning",
        f"{_WHO} has failed forward passes",
        "{{ $value }} forward passes of the last run failed. The trace names their exceptions.",
    )


def _spans_dropped() -> Alert:
    return Alert(
        "SpansDropped",
        f"{_newest(names.RUN_SPANS_DROPPED)} > 0",
        "1m",
        "warning",
        f"{_WHO} has lost spans",
        "{{ $value }} spans of the last run were not delivered. Its trace has gaps; its results "
        "are complete.",
    )


def _trace_write_errors() -> Alert:
    return Alert(
        "TraceWriteErrors",
        f"{_newest(names.RUN_TRACE_WRITE_ERRORS)} > 0",
        "1m",
        "warning",
        f"{_WHO} has lost lines of its JSONL trace",
        "{{ $value }} lookups of the last run are missing in its JSONL trace. Its results are "
        "complete.",
    )
