"""Build PromQL queries of forwardscope's metrics, filtered by the variables of the dashboards."""

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
    "hit_rate",
    "increase",
    "last_of_each_run",
    "named_probes",
    "newest_info",
    "quantile",
    "rate",
    "ratio",
    "run_hit_rate",
    "seconds_per_pass",
    "series",
    "total",
]

#: Variables of each dashboard, which have the names of the labels that they filter by.
VARIABLES: Final = ("job", "instance", "suite", "backend", "probe")
#: Window for each point of a line; it covers several scrapes.
RATE: Final = "$__rate_interval"
#: Window that is the whole time range of the dashboard.
RANGE: Final = "$__range"
#: Legend of a series for each suite and model.
BY_RUN: Final = "{{suite}} on {{model}}"

_SCRAPED = ("job", "instance")
_RUN_KEY = "job, instance, suite, model"
_RUN_LABELS = "suite, model, adapter, run_id, trace_id"
#: Step at which runs are looked for; a run that is scraped once is found.
_SCRAPED_EVERY = "5s"
#: Label matcher for hits and coalesced lookups.
HITS: Final = 'result!="miss"'


def series(metric: Metric, *matchers: str, part: str = "") -> str:
    """Return a selector of a metric, filtered by the variables for its labels.

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
    """Return a sum by labels, or over all series if `by` is empty."""
    return f"sum by ({by}) ({query})" if by else f"sum({query})"


def ratio(part: str, whole: str) -> str:
    """Return a quotient, which has no value instead of NaN if the whole is 0."""
    return f"{part} / ({whole} > 0)"


def hit_rate(*, by: str = "", window: str = RATE) -> str:
    """Return the share of lookups that needed no forward pass of their own."""
    return ratio(
        rate(names.LOOKUPS, HITS, by=by, window=window), rate(names.LOOKUPS, by=by, window=window)
    )


def run_hit_rate() -> str:
    """Return the hit rate of each target's run."""
    return ratio(series(names.RUN_HITS), series(names.RUN_LOOKUPS))


def named_probes(query: str) -> str:
    """Return a query with the probe `(no probe)` for series that have none."""
    return f'label_replace({query}, "probe", "(no probe)", "probe", "")'


def seconds_per_pass(by: str = "") -> str:
    """Return the mean duration of a forward pass over the whole time range, in seconds."""
    return ratio(
        increase(names.FORWARD_DURATION, by=by, part="_sum"),
        increase(names.FORWARD_DURATION, by=by, part="_count"),
    )


def quantile(q: float, metric: Metric, window: str = RATE) -> str:
    """Return a quantile of a histogram, which has no value if the histogram is empty."""
    buckets = rate(metric, by="le", part="_bucket", window=window)
    return f"histogram_quantile({q:g}, {buckets}) >= 0"  # drops the NaN of an empty histogram


def last_of_each_run(query: str) -> str:
    """Return the last value of each run in the time range, with the labels run_id and trace_id.

    The gauges of a run lack these labels; `forwardscope_run_info` of the same target has them.
    """
    info = newest_info(series(names.RUN_INFO))
    with_ids = f"({query}) * on ({_RUN_KEY}) group_left (adapter, run_id, trace_id) {info}"
    return f"last_over_time(max by ({_RUN_LABELS}) ({with_ids})[{RANGE}:{_SCRAPED_EVERY}])"


def newest_info(selector: str = names.RUN_INFO.name) -> str:
    """Return `forwardscope_run_info` with one run for each target: the one exported last.

    Prometheus has two for five minutes after it was away while the next run began.
    """
    return f"(topk by ({_RUN_KEY}) (1, timestamp({selector})) > bool 0)"


def finished(query: str) -> str:
    """Return a gauge of each suite's last run, without values of an active run."""
    ended = f"({query}) and on ({_RUN_KEY}) {series(names.RUN_ACTIVE)} == 0"
    return f"max by (suite, model) ({ended})"
