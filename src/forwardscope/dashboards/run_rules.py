"""Recording rules and alerts for suites, from the gauges that their runs push.

The numbers of a complete run are recorded under its id. This separates the last complete
run of a suite from its other runs, also while the next run is active.

The alerts on cost compare the last complete run with its plan or with the other runs.
A run that was interrupted, or that has a probe with an error, makes fewer lookups and is
not compared. The alerts on cost, RunFailed and RunStartFailed last until a better run has
ended. The others follow the newest run, also while it is active.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.queries import newest_info
from forwardscope.dashboards.rules import Alert, Recording
from forwardscope.telemetry import names
from forwardscope.telemetry.delivery import JOB
from forwardscope.telemetry.names import Metric

__all__ = ["alerts", "recordings"]

_WEEK: Final = "7d"
#: Allowed forward passes of a run without a plan, as a multiple of the median.
_MORE_PASSES: Final = 1.1
#: Allowed mean duration of a forward pass, as a multiple of the median.
_SLOWER: Final = 1.5
#: Minimum number of other runs, and of forward passes in a run, to compare durations.
_MIN_RUNS, _MIN_PASSES = 3, 20
#: Allowed drop of the hit rate below the median in percentage points, and minimum lookups.
_HIT_RATE_DROP, _MIN_LOOKUPS = 10, 50
#: Time without a lookup after which an active run is stalled.
_STALLED_S: Final = 600
#: The same as a share of the wall time of the last complete run, if that is longer.
_STALLED_SHARE: Final = 0.25
#: Age of the newest run at which the next one is missing, in periods of the suite.
_LATE: Final = 1.5

#: Labels of the gauges of a run; run_id is a label of `forwardscope_run_info` alone.
_TARGET: Final = "job, instance, suite, model"
_RUN: Final = "suite, model, run_id"
_SUITE: Final = "suite, model"
#: Name of a suite in the text of an alert.
_NAME: Final = "{{ $labels.suite }} on {{ $labels.model }}"

#: What the alerts on cost are compared with.
_OTHER_RUNS: Final = "the median of the suite's other complete runs of the past 7 days"

_END = names.RUN_END.name
_PASSES = names.RUN_FORWARD_PASSES.name
_EXPECTED = names.RUN_EXPECTED.name
_WALL = names.RUN_WALL.name
_SECONDS_PER_PASS = f"{names.RUN_FORWARD_SECONDS.name}_per_pass"
_HIT_RATE = f"{names.RUN_HITS.name}_per_lookup"

#: Query of each recorded value, by metric name.
_RECORDED: Final = {
    _PASSES: _PASSES,
    _EXPECTED: f"({_EXPECTED} >= 0)",  # the gauge is NaN without a plan
    _SECONDS_PER_PASS: f"{names.RUN_FORWARD_SECONDS.name} / ({_PASSES} >= {_MIN_PASSES})",
    _WALL: _WALL,
    _HIT_RATE: f"{names.RUN_HITS.name} / ({names.RUN_LOOKUPS.name} >= {_MIN_LOOKUPS})",
}


def recordings() -> list[Recording]:
    """Return the rules that record complete runs, the last one, and the median of the others."""
    ended = Recording(_complete_runs(_END), _under_run_id(_END))
    each = [
        Recording(_complete_runs(name), _under_run_id(expr)) for name, expr in _RECORDED.items()
    ]
    last = [Recording(_latest(name), _of_last_run(name)) for name in _RECORDED]
    week = [
        Recording(_median(name), f"quantile by ({_labels(name)}) (0.5,\n{_of_other_runs(name)}\n)")
        for name in _RECORDED
        if name not in (_EXPECTED, _WALL)
    ]
    runs = [
        Recording(
            _other_runs_count(name), f"count by ({_labels(name)}) (\n{_of_other_runs(name)}\n)"
        )
        for name in (_SECONDS_PER_PASS, _HIT_RATE)
    ]
    return [ended, *each, Recording(_latest(_END, level="run"), _last_run()), *last, *week, *runs]


def alerts() -> list[Alert]:
    """Return the alerts of suites."""
    return [
        _forward_pass_regression(),
        _forward_latency_regression(),
        _cache_hit_rate_drop(),
        _run_start_failed(),
        _run_failed(),
        _run_stalled(),
        _run_missing(),
        *_push_failed(),
        _forward_errors(),
        _spans_dropped(),
        _trace_write_errors(),
        _rules_failed(),
    ]


# -- recording rules ---------------------------------------------------------------------------


# Names of recorded metrics.


def _complete_runs(name: str) -> str:
    return f"run:{name}:finished"


def _latest(name: str, level: str = "suite") -> str:
    return f"{level}:{name}:latest"


def _labels(name: str) -> str:
    """Return the labels within which runs are compared: durations only on the same device."""
    return f"{_SUITE}, device" if name == _SECONDS_PER_PASS else _SUITE


def _median(name: str) -> str:
    return f"suite:{name}:median{_WEEK}"


def _other_runs_count(name: str) -> str:
    return f"suite:{name}:count{_WEEK}"


# Queries.


def _in_week(name: str) -> str:
    """Return the value of each complete run of the past 7 days."""
    return f"last_over_time({_complete_runs(name)}[{_WEEK}])"


def _under_run_id(query: str) -> str:
    """Return a gauge of complete runs with the label run_id.

    A run that an endpoint and a Pushgateway both export counts once.
    """
    return (
        f"max by ({_RUN}, device) (\n"
        f"  {query} * on ({_TARGET}) group_left (run_id, device) {newest_info()}\n"
        f"  and on ({_TARGET}) {names.RUN_COMPLETE.name} == 1\n"
        ")"
    )


def _last_run() -> str:
    """Return the complete run of each suite that ended last, if the suite is still exported."""
    return (
        f"({_in_week(_END)}\n"
        f"  == on ({_SUITE}) group_left () max by ({_SUITE}) ({_in_week(_END)}))\n"
        f"and on ({_SUITE}) {names.RUN_START.name}"
    )


def _of_last_run(name: str) -> str:
    return (
        f"max by ({_labels(name)}) (\n"
        f"  {_in_week(name)}\n"
        f"  and on ({_RUN}) {_latest(_END, level='run')}\n"
        ")"
    )


def _of_other_runs(name: str) -> str:
    return f"  {_in_week(name)}\n  unless on ({_RUN}) {_latest(_END, level='run')}"


# -- cost --------------------------------------------------------------------------------------


def _forward_pass_regression() -> Alert:
    return Alert(
        "ForwardPassRegression",
        f"{_latest(_PASSES)}\n- ({_latest(_EXPECTED)} or {_MORE_PASSES} * {_median(_PASSES)})\n> 0",
        "1m",
        "warning",
        f"{_NAME} computes too many forward passes",
        'The last complete run computed {{ printf "%.0f" $value }} forward passes more than its '
        f"plan or, without a plan, than {_MORE_PASSES} times {_OTHER_RUNS}. Its cache may be too "
        "small: its report and the dashboard Overview have the evictions.",
    )


def _forward_latency_regression() -> Alert:
    return Alert(
        "ForwardLatencyRegression",
        f"{_latest(_SECONDS_PER_PASS)} / {_median(_SECONDS_PER_PASS)} > {_SLOWER}\n"
        f"and {_other_runs_count(_SECONDS_PER_PASS)} >= {_MIN_RUNS}",
        "1m",
        "warning",
        f"{_NAME} has slow forward passes",
        'A forward pass of the last complete run took on average {{ printf "%.2f" $value }} times '
        f"as long as {_OTHER_RUNS} on the same device.",
    )


def _cache_hit_rate_drop() -> Alert:
    return Alert(
        "CacheHitRateDrop",
        f"100 * ({_median(_HIT_RATE)} - {_latest(_HIT_RATE)}) > {_HIT_RATE_DROP}\n"
        f"and {_other_runs_count(_HIT_RATE)} >= {_MIN_RUNS}",
        "1m",
        "warning",
        f"{_NAME} has a lower hit rate",
        'The hit rate of the last complete run is {{ printf "%.1f" $value }} percentage points '
        f"below {_OTHER_RUNS}.",
    )


# -- missing results ---------------------------------------------------------------------------


def _max_by_suite(metric: Metric) -> str:
    """Return the largest value of a gauge by suite and model, of all targets that export it."""
    return f"max by ({_SUITE}) ({metric.name})"


def _min_by_suite(metric: Metric) -> str:
    """Return the smallest value of a gauge: 0 if one of several runs at once has 0."""
    return f"min by ({_SUITE}) ({metric.name})"


def _asked(metric: Metric, more: str, before: str, each: str) -> str:
    """Return a template with the series of the alert's suite and model that are 1, if any."""
    query = f"{metric.name}{{suite=%q, model=%q{more}}} == 1"
    asked = f"query (printf `{query}` $labels.suite $labels.model)"
    return f"{{{{ with {asked} }}}} {before}:{{{{ range . }}}} {each}{{{{ end }}}}.{{{{ end }}}}"


_NEWEST: Final = _asked(
    names.PROBE_VERDICT,
    ', verdict=~"fail|error"',
    "Probes of the newest run",
    "{{ .Labels.probe }} ({{ .Labels.verdict }})",
) + _asked(
    names.RUN_INFO,
    "",
    "Newest run",
    "{{ .Labels.run_id }}{{ with .Labels.trace_id }}, trace {{ . }}{{ end }}",
)


def _run_start_failed() -> Alert:
    return Alert(
        "RunStartFailed",
        f"max by ({_SUITE}) ({names.RUN_END.name} and {names.RUN_STARTED.name} == 0)",
        "1m",
        "critical",
        f"{_NAME} could not start",
        "The run that ended at {{ $value | humanizeTimestamp }} has no verdict: its model or "
        "adapter could not be loaded, or it was stopped before that. Its output has the reason.",
    )


def _run_failed() -> Alert:
    end, success = _max_by_suite(names.RUN_END), _max_by_suite(names.RUN_LAST_SUCCESS)
    passed = _min_by_suite(names.RUN_PASSED)
    return Alert(
        "RunFailed",
        # each run by itself: another one, at the same time, may have passed or not started
        f"max by ({_SUITE}) ({names.RUN_END.name} and {names.RUN_PASSED.name} == 0 "
        f"unless {names.RUN_STARTED.name} == 0)\n"
        f"or ({end} > {success}\nor {end} unless {success}) unless {passed}",  # older runs
        "1m",
        "critical",
        f"{_NAME} did not pass",
        "The run that ended at {{ $value | humanizeTimestamp }} was interrupted, or one of its "
        "probes failed or had an error. Its report and the dashboard Runs have the verdicts."
        + _NEWEST,
    )


def _run_stalled() -> Alert:
    progress, active = names.RUN_PROGRESS.name, names.RUN_ACTIVE.name
    idle = f"max by ({_SUITE}) (time() - ({progress} and {active} == 1))"
    return Alert(
        "RunStalled",
        f"{idle} > {_STALLED_S}\nunless {idle} <= {_STALLED_SHARE} * {_latest(_WALL)}",
        "1m",
        "critical",
        f"{_NAME} makes no progress",
        "The newest run is active and has completed no lookup for {{ $value | humanizeDuration }}. "
        "The process hangs, was killed, or computes a very long forward pass.",
    )


def _run_missing() -> Alert:
    return Alert(
        "RunMissing",
        f"time() - {_max_by_suite(names.RUN_START)} > {_LATE} * {_max_by_suite(names.RUN_PERIOD)}",
        "5m",
        "critical",
        f"{_NAME} is overdue",
        "The newest run began {{ $value | humanizeDuration }} ago, which is more than "
        f"{_LATE} periods of the suite.",
    )


def _push_failed() -> list[Alert]:
    """Return an alert for each cause of a failed push; the label `reason` has the cause."""
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
            f"The Pushgateway rejects {_NAME}",
            "The Pushgateway rejected a push at {{ $value | humanizeTimestamp }} and has accepted "
            "none since. The metrics of the suite are out of date.",
        ),
        alert(
            "lost",
            f"max by ({_SUITE}) (max_over_time(timestamp({pushed})[1d:1m])\n"
            f"  unless on ({_SUITE}) {pushed})\n"
            f"< on () group_left () max(process_start_time_seconds and on (job, instance) {build})",
            f"The Pushgateway has lost {_NAME}",
            "The Pushgateway restarted without the metrics that it had at {{ $value | "
            "humanizeTimestamp }}. No alert on the suite can fire until its next run.",
        ),
        alert(
            "gateway",
            f"count(last_over_time({build}[{_WEEK}])) unless count({build})",
            "No Pushgateway is scraped",
            "Prometheus has scraped {{ $value }} Pushgateways in the past 7 days and scrapes none "
            "now, so no alert on a suite that pushes can fire.",
        ),
    ]


# -- errors and lost telemetry -----------------------------------------------------------------


def _forward_errors() -> Alert:
    return Alert(
        "ForwardErrors",
        f"{_max_by_suite(names.RUN_ERRORS)} > 0",
        "1m",
        "warning",
        f"{_NAME} has failed forward passes",
        "{{ $value }} forward passes of the newest run failed. Its JSONL trace has the exceptions.",
    )


def _spans_dropped() -> Alert:
    return Alert(
        "SpansDropped",
        f"{_max_by_suite(names.RUN_SPANS_DROPPED)} > 0",
        "1m",
        "warning",
        f"{_NAME} has lost spans",
        "{{ $value }} spans of the newest run were not delivered. Its OpenTelemetry trace has "
        "gaps. Its results are complete.",
    )


def _trace_write_errors() -> Alert:
    return Alert(
        "TraceWriteErrors",
        f"{_max_by_suite(names.RUN_TRACE_WRITE_ERRORS)} > 0",
        "1m",
        "warning",
        f"{_NAME} has lost lines of its JSONL trace",
        "{{ $value }} lookups of the newest run are missing in its JSONL trace. Its results are "
        "complete.",
    )


def _rules_failed() -> Alert:
    failures = 'prometheus_rule_evaluation_failures_total{rule_group=~".*forwardscope-.*"}'
    return Alert(
        "RulesFailed",
        f"sum by (rule_group) (increase({failures}[15m])) > 0",
        "1m",
        "critical",
        "Prometheus cannot evaluate {{ $labels.rule_group }}",
        'In the last 15 minutes {{ printf "%.0f" $value }} evaluations of the group failed. Its '
        "alerts cannot fire. The page Rules of Prometheus has the error.",
    )
