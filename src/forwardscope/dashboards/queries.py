"""PromQL over the metrics of `telemetry/names.py`, filtered by the dashboards' variables."""

from __future__ import annotations

from typing import Final

from forwardscope.telemetry import names
from forwardscope.telemetry.names import Metric

__all__ = [
    "BY_RUN",
    "HITS",
    "RANGE",
    "RATE",
    "VARIABLES",
    "finished",
    "hit_ratio",
    "increase",
    "named_probes",
    "of_run",
    "quantile",
    "rate",
    "ratio",
    "run_hit_ratio",
    "seconds_a_pass",
    "series",
    "total",
]

#: The labels that the variables of each dashboard filter by.
VARIABLES: Final = ("job", "instance", "suite", "backend", "probe")
#: The window of each point of a line; it covers several scrapes.
RATE: Final = "$__rate_interval"
#: The window of a number over the whole time range.
RANGE: Final = "$__range"
#: The legend of a series for each run, from the labels that `finished` keeps.
BY_RUN: Final = "{{suite}} on {{model}}"

_SCRAPED = ("job", "instance")
_RUN_KEY = "job, instance, suite, model"
_RUN_LABELS = "suite, model, run_id, trace_id"
#: Selects the lookups that needed no forward pass.
HITS: Final = 'result!="miss"'


def series(metric: Metric, *matchers: str, part: str = "") -> str:
    """Return a selector, filtered by the variables whose label the metric has.

    Args:
        metric: The metric.
        matchers: Additional label matchers, in PromQL.
        part: `_bucket`, `_count` or `_sum` for a histogram.
    """
    labels = {*_SCRAPED, *metric.labels}
    chosen = [f'{name}=~"${name}"' for name in VARIABLES if name in labels]
    return f"{metric.name}{part}{{{', '.join([*matchers, *chosen])}}}"


def rate(metric: Metric, *matchers: str, by: str = "", part: str = "", window: str = RATE) -> str:
    """Return a counter's growth per second, summed by the labels in `by`."""
    return total(f"rate({series(metric, *matchers, part=part)}[{window}])", by)


def increase(metric: Metric, *matchers: str, by: str = "", part: str = "") -> str:
    """Return a counter's growth over the whole time range, summed by the labels in `by`."""
    return total(f"increase({series(metric, *matchers, part=part)}[{RANGE}])", by)


def total(query: str, by: str = "") -> str:
    """Return a sum, by labels or over all series."""
    return f"sum by ({by}) ({query})" if by else f"sum({query})"


def ratio(part: str, whole: str) -> str:
    """Return a quotient that has no value, instead of NaN, if the whole is 0."""
    return f"{part} / ({whole} > 0)"


def hit_ratio(*, by: str = "", window: str = RATE) -> str:
    """Return the share of lookups that needed no forward pass."""
    return ratio(
        rate(names.LOOKUPS, HITS, by=by, window=window), rate(names.LOOKUPS, by=by, window=window)
    )


def run_hit_ratio() -> str:
    """Return the hit ratio of each target's run."""
    return ratio(series(names.RUN_HITS), series(names.RUN_LOOKUPS))


def named_probes(query: str) -> str:
    """Return a query by probe, with `(no probe)` for series without one."""
    return f'label_replace({query}, "probe", "(no probe)", "probe", "")'


def seconds_a_pass(by: str = "") -> str:
    """Return the mean duration of a forward pass over the whole time range, in seconds."""
    return ratio(
        increase(names.FORWARD_DURATION, by=by, part="_sum"),
        increase(names.FORWARD_DURATION, by=by, part="_count"),
    )


def quantile(q: float, metric: Metric, window: str = RATE) -> str:
    """Return a histogram's quantile, interpolated in its bucket; no value if it is empty."""
    buckets = rate(metric, by="le", part="_bucket", window=window)
    return f"histogram_quantile({q:g}, {buckets}) >= 0"  # drops the NaN of an empty histogram


def of_run(query: str) -> str:
    """Return the last value of each run in the time range, with the run's ids as labels.

    The gauges of a run do not have the ids. They come from the `run_info` of the same target
    at the same time.
    """
    with_ids = f"({query}) * on ({_RUN_KEY}) group_left (run_id, trace_id) {series(names.RUN_INFO)}"
    return f"last_over_time(max by ({_RUN_LABELS}) ({with_ids})[{RANGE}:$__interval])"


def finished(query: str) -> str:
    """Return a run's gauge while no run is active, to exclude partial runs."""
    ended = f"({query}) and on ({_RUN_KEY}) {series(names.RUN_ACTIVE)} == 0"
    return f"max by (suite, model) ({ended})"
