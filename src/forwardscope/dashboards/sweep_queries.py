"""Build PromQL queries of the gauges of sweeps.

The gauges of a sweep lack the label `started_at`. `forwardscope_sweep_info` of the same target
has it.
"""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.queries import RANGE, RUN_KEY, series
from forwardscope.telemetry import sweep_names

__all__ = ["ADAPTER", "of_sweep", "per_line"]

#: Labels of an adapter.
ADAPTER: Final = ("adapter", "position")

_SCRAPED_EVERY: Final = "5s"


def of_sweep(query: str, *labels: str) -> str:
    """Return the last value of the newest sweep of each suite in the time range.

    Args:
        query: A query of gauges of sweeps.
        *labels: Labels of its result in addition to suite and model.
    """
    newest = f"topk by (suite, model) (1, {_last(series(sweep_names.SWEEP_START))})"
    found = f"{_last(query, *labels)} and on (suite, model, started_at) {newest}"
    return f"max by ({', '.join(('suite, model', *labels))}) ({found})"


def per_line(query: str, label: str = "probe") -> str:
    """Return a query whose label `line` names suite, model and one label more."""
    of = f'label_join({query}, "of", " on ", "suite", "model")'
    return f'label_join({of}, "line", ": ", "of", "{label}")'


def _last(query: str, *labels: str) -> str:
    info = series(sweep_names.SWEEP_INFO)
    by = ", ".join(("suite, model, started_at", *labels))
    known = f"({query}) * on ({RUN_KEY}) group_left (started_at) {info}"
    return f"last_over_time(max by ({by}) ({known})[{RANGE}:{_SCRAPED_EVERY}])"
