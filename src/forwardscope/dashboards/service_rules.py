"""Recording rules and alerts for services: long-running programs, from their counters.

Processes of suites export the same counters for a few minutes. They are excluded, because
the alerts on suites cover them.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.queries import HITS
from forwardscope.dashboards.rules import Alert, Recording
from forwardscope.dashboards.suite_alert import dashboard
from forwardscope.telemetry import names, run_names

__all__ = ["alerts", "recordings"]

_WINDOW, _WEEK = "30m", "7d"
#: Minimum lookups and forward passes in a window for a hit rate and a mean duration.
_MIN_LOOKUPS, _MIN_PASSES = 50, 20
#: Minimum recorded values in the week, one per minute, for a comparison with their median.
_MIN_VALUES: Final = 60
#: Allowed mean duration of a forward pass, as a multiple of the median.
_SLOWER: Final = 1.5
#: Allowed drop of the hit rate below the median, in percentage points.
_HIT_RATE_DROP: Final = 10
#: Allowed share of failed forward passes.
_ERROR_SHARE: Final = 0.01

_LABELS: Final = "job, backend"
#: Name of a service in the text of an alert.
_NAME: Final = "{{ $labels.backend }} of {{ $labels.job }}"
_VARIABLES: Final = {"job": "job", "backend": "backend"}
_OVERVIEW: Final = dashboard("overview", _VARIABLES)
_PASSES_BOARD: Final = dashboard("forward-passes", _VARIABLES)
_HIT_RATE: Final = f"job_backend:{names.LOOKUPS.name.removesuffix('_total')}:hit_ratio{_WINDOW}"
_MEAN_DURATION: Final = f"job_backend:{names.FORWARD_DURATION.name}:mean{_WINDOW}"


def recordings() -> list[Recording]:
    """Return the recording rules of services."""
    seconds, passes = (_increase(names.FORWARD_DURATION.name + part) for part in ("_sum", "_count"))
    hits, lookups = _increase(f"{names.LOOKUPS.name}{{{HITS}}}"), _increase(names.LOOKUPS.name)
    return [
        Recording(_HIT_RATE, f"{hits}\n/ ({lookups} >= {_MIN_LOOKUPS})"),
        Recording(_MEAN_DURATION, f"{seconds}\n/ ({passes} >= {_MIN_PASSES})"),
    ]


def alerts() -> list[Alert]:
    """Return the alerts of services."""
    return [
        _forward_latency_regression(),
        _cache_hit_rate_drop(),
        _forward_errors(),
        _spans_dropped(),
        _trace_write_errors(),
        _stored_value_mismatch(),
        _store_errors(),
    ]


def _increase(counter: str) -> str:
    """Return the increase of a counter in the window, summed over the processes of a service."""
    return _of_services(f"increase({counter}[{_WINDOW}])")


def _increase_from_zero(*counters: str) -> str:
    """Return the increase in the window of counters that are absent before their first count.

    The first value is part of the increase, but the function `increase` does not include it,
    and has no result for a process that is scraped once.

    Args:
        *counters: They have different labels, and are added.
    """
    each = []
    for counter in counters:
        first = f"(min_over_time({counter}[{_WINDOW}]) unless {counter} offset {_WINDOW})"
        grown = f"increase({counter}[{_WINDOW}])"
        each.append(f"{grown} + {first}\n  or {grown} or {first}")
    added = "\n  or ".join(each)
    return _of_services(f"({added})")


def _of_services(query: str) -> str:
    return (
        f"sum by ({_LABELS}) (\n"
        f"  {query}\n"
        f"  unless on (job, instance) last_over_time({run_names.RUN_INFO.name}[1h])\n"
        ")"
    )


def _median(record: str) -> str:
    return f"quantile_over_time(0.5, {record}[{_WEEK}])"


def _enough_values(record: str) -> str:
    return f"count_over_time({record}[{_WEEK}]) >= {_MIN_VALUES}"


def _forward_latency_regression() -> Alert:
    return Alert(
        "ServiceForwardLatencyRegression",
        f"{_MEAN_DURATION} / {_median(_MEAN_DURATION)} > {_SLOWER}\n"
        f"and {_enough_values(_MEAN_DURATION)}",
        "15m",
        "warning",
        f"{_NAME} has slow forward passes",
        f'A forward pass of the last {_WINDOW} took on average {{{{ printf "%.2f" $value }}}} '
        "times as long as the median of the past 7 days.",
        links=_PASSES_BOARD,
    )


def _cache_hit_rate_drop() -> Alert:
    return Alert(
        "ServiceCacheHitRateDrop",
        f"100 * ({_median(_HIT_RATE)} - {_HIT_RATE}) > {_HIT_RATE_DROP}\n"
        f"and {_enough_values(_HIT_RATE)}",
        "15m",
        "warning",
        f"{_NAME} has a lower hit rate",
        f'The hit rate of the last {_WINDOW} is {{{{ printf "%.1f" $value }}}} percentage points '
        "below the median of the past 7 days.",
        links=_OVERVIEW,
    )


def _forward_errors() -> Alert:
    errors = _increase_from_zero(names.FORWARD_ERRORS.name)
    misses = _increase_from_zero(f'{names.LOOKUPS.name}{{result="miss"}}')
    return Alert(
        "ServiceForwardErrors",
        f"{errors}\n/ ({misses} > 0)\n> {_ERROR_SHARE}",
        "10m",
        "warning",
        f"{_NAME} has failed forward passes",
        "{{ $value | humanizePercentage }} of the forward passes failed in the last "
        f"{_WINDOW}.",
        links=_PASSES_BOARD,
    )


def _spans_dropped() -> Alert:
    dropped = _increase_from_zero(f'{names.SPANS_TOTAL.name}{{outcome="dropped"}}')
    return Alert(
        "ServiceSpansDropped",
        f"{dropped} > 0",
        "1m",
        "warning",
        f"{_NAME} has lost spans",
        f'{{{{ printf "%.0f" $value }}}} spans were not delivered in the last {_WINDOW}. '
        "The OpenTelemetry traces have gaps. The results are complete.",
        links=_OVERVIEW,
    )


def _trace_write_errors() -> Alert:
    return Alert(
        "ServiceTraceWriteErrors",
        f"{_increase_from_zero(names.TRACE_WRITE_ERRORS.name)} > 0",
        "1m",
        "warning",
        f"{_NAME} has lost lines of its JSONL trace",
        f'{{{{ printf "%.0f" $value }}}} lookups of the last {_WINDOW} are missing in the JSONL '
        "trace. The results are complete.",
        links=_OVERVIEW,
    )


def _stored_value_mismatch() -> Alert:
    wrong = _increase_from_zero(f'{names.VERIFICATIONS.name}{{outcome="mismatch"}}')
    return Alert(
        "ServiceStoredValueMismatch",
        f"{wrong} > 0",
        "1m",
        "critical",
        f"{_NAME} has found wrong values in its store",
        f'{{{{ printf "%.0f" $value }}}} stored values of the last {_WINDOW} did not agree when '
        "they were computed again, so the program used the computed ones. It verifies a share "
        "alone: others that it used may be wrong.",
        links=_OVERVIEW,
    )


def _store_errors() -> Alert:
    return Alert(
        "ServiceStoreErrors",
        f"{_increase_from_zero(names.STORE_ERRORS.name, names.STORE_CORRUPT.name)} > 0",
        "1m",
        "warning",
        f"{_NAME} has a store that fails",
        f'{{{{ printf "%.0f" $value }}}} operations on the store failed or found a damaged entry '
        f"in the last {_WINDOW}. What the store could not answer was computed, so the results "
        "are complete.",
        links=_OVERVIEW,
    )
