"""PromQL over the metrics of names.py, filtered by the dashboards' variables."""

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

#: The labels that each dashboard can be narrowed by.
VARIABLES: Final = ("job", "instance", "suite", "backend", "probe")
#: The window of a line's point; Grafana makes it span some scrapes.
RATE: Final = "$__rate_interval"
#: The window of a number that is of the whole time range.
RANGE: Final = "$__range"
#: The legend of what is told a run, in the labels that `finished` leaves.
BY_RUN: Final = "{{suite}} on {{model}}"

_ADDED_BY_SCRAPE = ("job", "instance")
_RUN_KEY = "job, instance, suite, model"
_RUN_LABELS = "suite, model, run_id, trace_id"
#: Lookups that paid no forward pass.
HITS: Final = 'result!="miss"'


def series(metric: Metric, *matchers: str, part: str = "") -> str:
    """Return a selector, narrowed by those variables whose label the metric has.

    Args:
        metric: Of which.
        matchers: More of them, as PromQL has it.
        part: `_bucket`, `_count` or `_sum` of a histogram.
    """
    labels = {*_ADDED_BY_SCRAPE, *metric.labels}
    chosen = [f'{name}=~"${name}"' for name in VARIABLES if name in labels]
    return f"{metric.name}{part}{{{', '.join([*matchers, *chosen])}}}"


def rate(metric: Metric, *matchers: str, by: str = "", part: str = "", window: str = RATE) -> str:
    """Return a counter's growth a second, summed to the labels of `by`."""
    return total(f"rate({series(metric, *matchers, part=part)}[{window}])", by)


def increase(metric: Metric, *matchers: str, by: str = "", part: str = "") -> str:
    """Return a counter's growth over the whole time range, summed to the labels of `by`."""
    return total(f"increase({series(metric, *matchers, part=part)}[{RANGE}])", by)


def total(query: str, by: str = "") -> str:
    """Return a sum, by labels or over all."""
    return f"sum by ({by}) ({query})" if by else f"sum({query})"


def ratio(part: str, whole: str) -> str:
    """Return a quotient that has no value where the whole is nothing, instead of 0/0."""
    return f"{part} / ({whole} > 0)"


def hit_ratio(*, by: str = "", window: str = RATE) -> str:
    """Return the share of lookups that paid no forward pass."""
    return ratio(
        rate(names.LOOKUPS, HITS, by=by, window=window), rate(names.LOOKUPS, by=by, window=window)
    )


def run_hit_ratio() -> str:
    """Return the hit ratio of each target's run."""
    return ratio(series(names.RUN_HITS), series(names.RUN_LOOKUPS))


def named_probes(query: str) -> str:
    """Return a query by probe, in which what is outside any probe has a name too."""
    return f'label_replace({query}, "probe", "(no probe)", "probe", "")'


def seconds_a_pass(by: str = "") -> str:
    """Return the mean duration of a forward pass over the whole time range, in seconds."""
    return ratio(
        increase(names.FORWARD_DURATION, by=by, part="_sum"),
        increase(names.FORWARD_DURATION, by=by, part="_count"),
    )


def quantile(q: float, metric: Metric, window: str = RATE) -> str:
    """Return a quantile of a histogram, interpolated within its bucket; none where it is empty."""
    buckets = rate(metric, by="le", part="_bucket", window=window)
    return f"histogram_quantile({q:g}, {buckets}) >= 0"  # of nothing it would be NaN


def of_run(query: str) -> str:
    """Return the last value of each run in the time range, with its ids as labels.

    Gauges of a run are told from those of the run before by `run_info`, which
    the same target shows at the same moment.
    """
    named = f"({query}) * on ({_RUN_KEY}) group_left (run_id, trace_id) {series(names.RUN_INFO)}"
    return f"last_over_time(max by ({_RUN_LABELS}) ({named})[{RANGE}:$__interval])"


def finished(query: str) -> str:
    """Return a run's gauge while no run goes on, so that no half a run is shown."""
    over = f"({query}) and on ({_RUN_KEY}) {series(names.RUN_ACTIVE)} == 0"
    return f"max by (suite, model) ({over})"
