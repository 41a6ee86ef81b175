"""Build PromQL queries of forwardscope's metrics, filtered by the variables of the dashboards."""

from __future__ import annotations

from typing import Final

from forwardscope.telemetry import names, run_names
from forwardscope.telemetry.names import Metric

__all__ = [
    "ESTIMATED",
    "HITS",
    "RANGE",
    "RATE",
    "RUN_KEY",
    "VARIABLES",
    "hit_rate",
    "increase",
    "named_probes",
    "newest_info",
    "of_chosen_runs",
    "quantile",
    "rate",
    "ratio",
    "seconds_per_pass",
    "series",
    "share",
    "total",
]

#: Variables of each dashboard, which have the names of the labels that they filter by.
VARIABLES: Final = ("job", "instance", "suite", "model", "backend", "probe")
#: Window for each point of a line; it covers several scrapes.
RATE: Final = "$__rate_interval"
#: Window that is the whole time range of the dashboard.
RANGE: Final = "$__range"
#: Sentence for a panel with `increase` over the time range.
ESTIMATED: Final = (
    "Estimated by Prometheus from its scrapes: of a run with few scrapes typically from 6 % less "
    "to 12 % more than the true number, and without what was counted before the first scrape. A "
    "target that ran other suites too in the time range counts with all of them."
)

_SCRAPED = ("job", "instance")
#: Labels that the gauges of a run share.
RUN_KEY: Final = "job, instance, suite, model"
#: Selector of what identifies each target: of its runs if suites or models are chosen, otherwise
#: also of programs that run no suite, because `.*` matches series without the label.
_INFO: Final = (
    f'{{__name__=~"{names.BUILD_INFO.name}|{run_names.RUN_INFO.name}", '
    + ", ".join(f'{name}=~"${name}"' for name in VARIABLES[:4])
    + "}"
)
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


def of_chosen_runs(query: str, window: str = RATE) -> str:
    """Return those series of a query whose target exported a chosen suite and model.

    The metrics of a backend or process have no label `suite` or `model`. Their target, which
    is the same job and instance, has: in `forwardscope_run_info`, while the run is exported.

    Args:
        query: The query; its result has the labels job and instance.
        window: Time before each value in which the suite was exported.
    """
    return f"{query} and on (job, instance) last_over_time({_INFO}[{window}])"


def rate(metric: Metric, *matchers: str, by: str = "", part: str = "", window: str = RATE) -> str:
    """Return a counter's growth per second, summed by the labels in `by`."""
    grown = f"rate({series(metric, *matchers, part=part)}[{window}])"
    return total(of_chosen_runs(grown, window), by)


def increase(metric: Metric, *matchers: str, by: str = "", part: str = "") -> str:
    """Return a counter's growth over the whole time range, summed by the labels in `by`.

    A target that exported chosen suites and others in the time range counts as a whole.
    """
    grown = f"increase({series(metric, *matchers, part=part)}[{RANGE}])"
    return total(of_chosen_runs(grown, RANGE), by)


def total(query: str, by: str = "") -> str:
    """Return a sum by labels, or over all series if `by` is empty."""
    return f"sum by ({by}) ({query})" if by else f"sum({query})"


def ratio(part: str, whole: str) -> str:
    """Return a quotient, which has no value instead of NaN if the whole is 0."""
    return f"{part} / ({whole} > 0)"


def share(part: str, whole: str) -> str:
    """Return the quotient of each series and one whole, which has no value if the whole is 0."""
    return f"{part} / on () group_left () ({whole} > 0)"


def hit_rate(*, by: str = "", window: str = RATE) -> str:
    """Return the share of lookups that needed no forward pass of their own."""
    return ratio(
        rate(names.LOOKUPS, HITS, by=by, window=window), rate(names.LOOKUPS, by=by, window=window)
    )


def named_probes(query: str) -> str:
    """Return a query with the probe `(no probe)` for series that have none."""
    return f'label_replace({query}, "probe", "(no probe)", "probe", "")'


def seconds_per_pass(by: str = "") -> str:
    """Return the mean duration of a forward pass over the whole time range, in seconds."""
    return ratio(
        increase(names.FORWARD_DURATION, by=by, part="_sum"),
        increase(names.FORWARD_DURATION, by=by, part="_count"),
    )


def quantile(q: float, metric: Metric, window: str = RATE, *, by: str = "") -> str:
    """Return a quantile of a histogram, which has no value if the histogram is empty."""
    buckets = rate(metric, by=f"le, {by}" if by else "le", part="_bucket", window=window)
    return f"histogram_quantile({q:g}, {buckets}) >= 0"  # drops the NaN of an empty histogram


def newest_info(selector: str = run_names.RUN_INFO.name) -> str:
    """Return `forwardscope_run_info` with one run for each target: the one exported last.

    Prometheus has two for five minutes after it was away while the next run began.
    """
    return f"(topk by ({RUN_KEY}) (1, timestamp({selector})) > bool 0)"
