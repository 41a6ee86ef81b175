"""Recording rules and alerts for programs that run for days, read from their counters.

Processes of suites export the same counters for a few minutes. They are excluded,
because the alerts on the gauges that they push cover them.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.queries import HITS
from forwardscope.dashboards.rules import Alert, Recording
from forwardscope.telemetry import names

__all__ = ["alerts", "recordings"]

_WINDOW, _WEEK = "30m", "7d"
#: Minimum lookups and forward passes in a window for its ratio and its mean.
_MIN_LOOKUPS, _MIN_PASSES = 50, 20
#: Minimum values in the week, one per minute, for a comparison with the week.
_MIN_VALUES: Final = 60
_SLOWER: Final = 1.5
_HIT_RATIO_DROP: Final = 0.1
_ERRORS: Final = 0.01

_SERVICE = "job, backend"
_WHO = "{{ $labels.backend }} of {{ $labels.job }}"
_RATIO: Final = f"job_backend:{names.LOOKUPS.name.removesuffix('_total')}:hit_ratio{_WINDOW}"
_MEAN: Final = f"job_backend:{names.FORWARD_DURATION.name}:mean{_WINDOW}"


def recordings() -> list[Recording]:
    """Return the recording rules of services."""
    seconds, passes = (_grown(names.FORWARD_DURATION.name + part) for part in ("_sum", "_count"))
    hits, lookups = _grown(f"{names.LOOKUPS.name}{{{HITS}}}"), _grown(names.LOOKUPS.name)
    return [
        Recording(_RATIO, f"{hits}\n/ ({lookups} >= {_MIN_LOOKUPS})"),
        Recording(_MEAN, f"{seconds}\n/ ({passes} >= {_MIN_PASSES})"),
    ]


def alerts() -> list[Alert]:
    """Return the alerts of services."""
    return [_slow(), _fewer_hits(), _errors(), _spans_dropped(), _trace_write_errors()]


def _grown(counter: str) -> str:
    """Return a counter's growth in the window, over all processes that run no suite."""
    return _of_services(f"increase({counter}[{_WINDOW}])")


def _grown_from_nothing(counter: str) -> str:
    """Return the growth in the window of a counter that is absent before its first count.

    Its first value is growth too, but `increase` leaves that value out.
    """
    first = f"min_over_time({counter}[{_WINDOW}]) unless {counter} offset {_WINDOW}"
    grown = f"increase({counter}[{_WINDOW}])"
    return _of_services(f"({grown} + ({first})\n  or {grown})")


def _of_services(query: str) -> str:
    return (
        f"sum by ({_SERVICE}) (\n"
        f"  {query}\n"
        f"  unless on (job, instance) last_over_time({names.RUN_INFO.name}[1h])\n"
        ")"
    )


def _usual(record: str) -> str:
    return f"quantile_over_time(0.5, {record}[{_WEEK}])"


def _known(record: str) -> str:
    return f"count_over_time({record}[{_WEEK}]) >= {_MIN_VALUES}"


def _slow() -> Alert:
    return Alert(
        "ServiceForwardLatencyRegression",
        f"{_MEAN} / {_usual(_MEAN)} > {_SLOWER}\nand {_known(_MEAN)}",
        "15m",
        "warning",
        f"{_WHO} has slow forward passes",
        f'A forward pass of the last {_WINDOW} took on average {{{{ printf "%.2f" $value }}}} '
        "times as long as the median of its week.",
    )


def _fewer_hits() -> Alert:
    return Alert(
        "ServiceCacheHitRateDrop",
        f"{_usual(_RATIO)} - {_RATIO} > {_HIT_RATIO_DROP}\nand {_known(_RATIO)}",
        "15m",
        "warning",
        f"{_WHO} has a lower hit ratio",
        f"The hit ratio of the last {_WINDOW} is {{{{ $value | humanizePercentage }}}} of all "
        "lookups below the median of its week.",
    )


def _errors() -> Alert:
    errors = _grown_from_nothing(names.FORWARD_ERRORS.name)
    misses = _grown_from_nothing(f'{names.LOOKUPS.name}{{result="miss"}}')
    return Alert(
        "ServiceForwardErrors",
        f"{errors}\n/ ({misses} > 0)\n> {_ERRORS}",
        "5m",
        "warning",
        f"{_WHO} has failed forward passes",
        "{{ $value | humanizePercentage }} of its forward passes failed in the last "
        f"{_WINDOW}.",
    )


def _spans_dropped() -> Alert:
    dropped = _grown_from_nothing(f'{names.SPANS_TOTAL.name}{{outcome="dropped"}}')
    return Alert(
        "ServiceSpansDropped",
        f"{dropped} > 0",
        "5m",
        "warning",
        f"{_WHO} has lost spans",
        f'{{{{ printf "%.0f" $value }}}} spans were not delivered in the last {_WINDOW}. Its '
        "traces have gaps; its results are complete.",
    )


def _trace_write_errors() -> Alert:
    return Alert(
        "ServiceTraceWriteErrors",
        f"{_grown(names.TRACE_WRITE_ERRORS.name)} > 0",
        "5m",
        "warning",
        f"{_WHO} has lost lines of its JSONL trace",
        f'{{{{ printf "%.0f" $value }}}} lookups of the last {_WINDOW} are missing in the JSONL '
        "trace. Its results are complete.",
    )
