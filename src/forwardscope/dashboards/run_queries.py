"""Build PromQL queries of the gauges of runs.

The gauges of a run lack the labels `run_id`, `trace_id`, `adapter` and `device`.
`forwardscope_run_info` of the same target has them.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.queries import (
    RANGE,
    RUN_KEY,
    increase,
    newest_info,
    ratio,
    series,
    total,
)
from forwardscope.telemetry import run_names
from forwardscope.telemetry.names import Metric

__all__ = [
    "BY_RUN",
    "EXPECTED",
    "RUN",
    "WHOLE_RUNS",
    "attainable_hit_rate",
    "complete",
    "counted",
    "finished",
    "in_range",
    "known",
    "needed_passes",
    "newest",
    "newest_finished",
    "of_each_run",
    "own_hits",
    "reached_hit_rate",
    "run_hit_rate",
    "runs_and_services",
    "short_id",
    "with_device",
]

#: Legend of a series for each suite and model.
BY_RUN: Final = "{{suite}} on {{model}}"
#: Legend of a series for each run; `short_id` adds the label `run`.
RUN: Final = f"{BY_RUN}, run {{{{run}}}}"
#: Sentence for a panel of `counted` or `runs_and_services`.
WHOLE_RUNS: Final = (
    "Exact for runs, from their gauges; they count as a whole, whatever backend and probe are "
    "chosen. Of services, which have none, Prometheus estimates it from its scrapes."
)
#: Expected forward passes of the runs that have a plan; the gauge of other runs is NaN.
EXPECTED: Final = f"({series(run_names.RUN_EXPECTED)} >= 0)"

_IDS: Final = "adapter, device, run_id, trace_id"
#: Step at which runs are looked for; a run that is scraped once is found.
_SCRAPED_EVERY: Final = "5s"
_INFO: Final = series(run_names.RUN_INFO)


# -- values of one run ---------------------------------------------------------------------


def run_hit_rate() -> str:
    """Return the hit rate of each target's run."""
    return ratio(series(run_names.RUN_HITS), series(run_names.RUN_LOOKUPS))


def attainable_hit_rate() -> str:
    """Return the hit rate of a run that pays for no forward pass twice, from its plan."""
    return f"(1 - {ratio(series(run_names.RUN_EXPECTED), series(run_names.RUN_EXPECTED_LOOKUPS))})"


def reached_hit_rate() -> str:
    """Return the hit rate of each target's run as a share of the attainable one.

    Hits of a store do not count: the plan begins with an empty cache and has no store.
    """
    return ratio(ratio(own_hits(), series(run_names.RUN_LOOKUPS)), attainable_hit_rate())


def own_hits() -> str:
    """Return the hits of each target's run without those of its store."""
    hits = series(run_names.RUN_HITS)
    return f"({hits} - ({series(run_names.RUN_STORE_HITS)} or {hits} * 0))"


def needed_passes() -> str:
    """Return the forward passes that each target's run would have had with an empty store."""
    passes = series(run_names.RUN_FORWARD_PASSES)
    return f"({passes} + ({series(run_names.RUN_STORE_HITS)} or {passes} * 0))"


def known(metric: Metric) -> str:
    """Return a gauge without NaN, which it is before it has a value."""
    return f"({series(metric)} > -Inf)"


def complete(query: str) -> str:
    """Return a gauge without values of a run that is incomplete or active."""
    return f"{query} and on ({RUN_KEY}) {series(run_names.RUN_COMPLETE)} == 1"


def in_range(query: str) -> str:
    """Return a gauge without values of a run that ended before the time range.

    A Pushgateway exports the last run of a suite until the next one.
    """
    return f"({query}) and on ({RUN_KEY}) {series(run_names.RUN_PROGRESS)} * 1000 >= $__from"


def _ended(query: str) -> str:
    return f"({query}) and on ({RUN_KEY}) {series(run_names.RUN_ACTIVE)} == 0"


# -- values over time ----------------------------------------------------------------------


def finished(query: str) -> str:
    """Return a gauge of each suite's last run, without values of an active run."""
    return f"max by (suite, model) ({_ended(query)})"


def with_device(query: str) -> str:
    """Return a gauge like `finished`, with the device of the run."""
    info = newest_info(_INFO)
    joined = f"({_ended(query)}) * on ({RUN_KEY}) group_left (device) {info}"
    return f"max by (suite, model, device) ({joined})"


# -- values at the end of the time range ---------------------------------------------------


def of_each_run(query: str, *labels: str, only: str = "") -> str:
    """Return the last value of each run in the time range, with all labels of the run.

    Args:
        query: A query of gauges of runs.
        *labels: Labels of its result in addition to those of a run, such as `probe`.
        only: A label matcher for `forwardscope_run_info`.
    """
    info = newest_info(series(run_names.RUN_INFO, only) if only else _INFO)
    by = ", ".join(("suite, model", _IDS, *labels))
    with_ids = f"({query}) * on ({RUN_KEY}) group_left ({_IDS}) {info}"
    return f"last_over_time(max by ({by}) ({with_ids})[{RANGE}:{_SCRAPED_EVERY}])"


def newest(query: str, *per: str, labels: tuple[str, ...] = ()) -> str:
    """Return the value of the newest run of each suite that has one, with the label `run`.

    While a run has no value yet, the value of the run before is returned.

    Args:
        query: A query of gauges of runs.
        *per: Labels by which values are chosen in addition to suite and model.
        labels: Further labels of the result.
    """
    value = of_each_run(query, *per, *labels)
    start = f"0 * ({query}) + on ({RUN_KEY}) group_left () {series(run_names.RUN_START)}"
    by = ", ".join(("suite, model", *per))
    return short_id(f"{value} and topk by ({by}) (1, {of_each_run(start, *per, *labels)})")


def newest_finished(query: str) -> str:
    """Return the value of the last run of each suite that has ended, with the label `run`."""
    return newest(_ended(query))


def short_id(query: str) -> str:
    """Return a query with the start of the run's id as the label `run`."""
    return f'label_replace({query}, "run", "$1", "run_id", "(.{{8}}).*")'


def runs_and_services(of_run: str, of_service: str) -> str:
    """Return the sum of a value over the runs and the services in the time range.

    Args:
        of_run: A query of gauges of runs, which are exact.
        of_service: A query of counters, which has the labels job and instance. It counts for
            targets that run no suite.
    """
    services = f"{of_service} unless on (job, instance) last_over_time({_INFO}[{RANGE}])"
    return total(f"{of_each_run(in_range(of_run))} or ({services})")


def counted(gauge: Metric, counter: Metric, *matchers: str, part: str = "") -> str:
    """Return a number of the runs and services in the time range, as a whole number."""
    grown = increase(counter, *matchers, by="job, instance", part=part)
    return runs_and_services(series(gauge), f"round({grown})")
