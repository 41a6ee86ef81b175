"""Alerts on what the last complete run of a suite cost, and how many lookups were hits.

They compare it with its plan or with the suite's other runs, and last until a better run
has ended. A run that was interrupted, or that has a probe with an error, makes fewer
lookups and is not compared.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.rules import Alert
from forwardscope.dashboards.run_recordings import (
    DEMAND,
    END,
    EXPECTED,
    HIT_RATE,
    SECONDS_PER_PASS,
    latest,
    median,
    other_runs_count,
)
from forwardscope.dashboards.suite_alert import NAME, links

__all__ = ["alerts"]

#: Allowed forward passes of a run without a plan, as a multiple of the median.
_MORE_PASSES: Final = 1.1
#: Allowed mean duration of a forward pass, as a multiple of the median.
_SLOWER: Final = 1.5
#: Allowed drop of the hit rate below the median in percentage points.
_HIT_RATE_DROP: Final = 10
#: Minimum number of other runs to compare durations and hit rates.
_MIN_RUNS: Final = 3

_OTHER_RUNS: Final = "the median of the suite's other complete runs of the past 7 days"
_LAST_RUN: Final = latest(END, level="run") + "{suite=%q, model=%q}"


def alerts() -> list[Alert]:
    """Return the alerts on the cost of runs."""
    return [_forward_pass_regression(), _forward_latency_regression(), _cache_hit_rate_drop()]


def _forward_pass_regression() -> Alert:
    return Alert(
        "ForwardPassRegression",
        f"{latest(DEMAND)}\n- ({latest(EXPECTED)} or {_MORE_PASSES} * {median(DEMAND)})\n> 0",
        "1m",
        "warning",
        f"{NAME} computes too many forward passes",
        'The last complete run needed {{ printf "%.0f" $value }} forward passes more than its '
        f"plan or, without a plan, than {_MORE_PASSES} times {_OTHER_RUNS}. Its cache may be too "
        "small: its report and the dashboard Overview have the evictions.",
        links=links(_LAST_RUN),
    )


def _forward_latency_regression() -> Alert:
    return Alert(
        "ForwardLatencyRegression",
        f"{latest(SECONDS_PER_PASS)} / {median(SECONDS_PER_PASS)} > {_SLOWER}\n"
        f"and {other_runs_count(SECONDS_PER_PASS)} >= {_MIN_RUNS}",
        "1m",
        "warning",
        f"{NAME} has slow forward passes",
        'A forward pass of the last complete run took on average {{ printf "%.2f" $value }} times '
        f"as long as {_OTHER_RUNS} on the same device.",
        links=links(_LAST_RUN, "forward-passes"),
    )


def _cache_hit_rate_drop() -> Alert:
    return Alert(
        "CacheHitRateDrop",
        f"100 * ({median(HIT_RATE)} - {latest(HIT_RATE)}) > {_HIT_RATE_DROP}\n"
        f"and {other_runs_count(HIT_RATE)} >= {_MIN_RUNS}",
        "1m",
        "warning",
        f"{NAME} has a lower hit rate",
        'The hit rate of the last complete run is {{ printf "%.1f" $value }} percentage points '
        f"below {_OTHER_RUNS}.",
        links=links(_LAST_RUN),
    )
