"""Conversion of metrics from names.py to families of prometheus_client."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from forwardscope.core.ledger import Histogram
from forwardscope.telemetry.names import Metric
from forwardscope.text import printable

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["add_histogram", "add_sample", "new_family"]

_BASE_UNITS = ("seconds", "bytes")


def new_family(metric: Metric) -> Family:
    """Return an empty family for a metric."""
    from prometheus_client import Metric as Family  # noqa: PLC0415 - import registers collectors

    name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
    unit = metric.unit if metric.unit in _BASE_UNITS and name.endswith(metric.unit) else ""
    return Family(name, metric.help, metric.kind, unit)


def add_sample(family: Family, metric: Metric, labels: Sequence[str], value: float) -> None:
    """Add the value of a counter or gauge; `labels` has one value for each metric label."""
    family.add_sample(metric.name, _labelled(metric, labels), value)


def add_histogram(family: Family, metric: Metric, labels: Sequence[str], seen: Histogram) -> None:
    """Add cumulative buckets, each with its latest exemplar, then count and sum."""
    from prometheus_client.samples import Exemplar  # noqa: PLC0415 - import registers collectors

    own = _labelled(metric, labels)
    bounds = [*map(str, seen.bounds), "+Inf"]
    cumulated = accumulate(seen.buckets)
    for bound, value, found in zip(bounds, cumulated, seen.exemplars, strict=True):
        exemplar: Any = None
        if found is not None:
            exemplar = Exemplar({"trace_id": found.trace_id}, found.value, found.ts)
        family.add_sample(f"{metric.name}_bucket", {**own, "le": bound}, value, None, exemplar)
    family.add_sample(f"{metric.name}_count", own, seen.count)
    family.add_sample(f"{metric.name}_sum", own, seen.total)


def _labelled(metric: Metric, labels: Sequence[str]) -> dict[str, str]:
    return dict(zip(metric.labels, map(printable, labels), strict=True))
