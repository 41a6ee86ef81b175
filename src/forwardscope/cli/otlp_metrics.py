"""Conversion of families of prometheus_client to the metrics of OpenTelemetry's SDK.

Scrape, push, file and OTLP take the same families, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

if TYPE_CHECKING:
    from prometheus_client import Metric as Family
    from prometheus_client.samples import Exemplar as PrometheusExemplar
    from prometheus_client.samples import Sample

__all__ = ["metrics_data"]

#: Units whose words Prometheus appends to a name without them. A metric of another unit has
#: none, because a unit of OpenTelemetry becomes part of the name.
_UNITS: Final = {"seconds": "s", "bytes": "By"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
#: Least and greatest value of a histogram, which the ledger does not have.
_NOT_KNOWN: Final[Any] = None


def metrics_data(
    families: Iterable[Family],
    resource: Resource,
    scope: InstrumentationScope,
    start_ns: int,
    now_ns: int,
) -> MetricsData:
    """Return the values of families as one request.

    Each metric has the name and labels of a scrape, which Prometheus does not change
    when it receives them. Sums and histograms are cumulative.

    Args:
        families: Counters, gauges and histograms.
        resource: What the metrics are about.
        scope: What measures them.
        start_ns: When counting began, in nanoseconds since the epoch.
        now_ns: When the values were read, likewise.
    """
    metrics = [_metric(family, start_ns, now_ns) for family in families if family.samples]
    scopes = [ScopeMetrics(scope, metrics, schema_url="")]
    return MetricsData([ResourceMetrics(resource, scopes, schema_url="")])


def _metric(family: Family, start_ns: int, now_ns: int) -> Metric:
    unit = _UNITS.get(family.unit, "")
    if family.type == "histogram":
        histogram = Histogram(_histogram_points(family, start_ns, now_ns), _CUMULATIVE)
        return Metric(family.name, family.documentation, unit, histogram)
    points = [
        NumberDataPoint(_attributes(sample), start_ns, now_ns, sample.value)
        for sample in family.samples
    ]
    if family.type == "counter":
        total = Sum(points, _CUMULATIVE, is_monotonic=True)
        return Metric(f"{family.name}_total", family.documentation, unit, total)
    return Metric(family.name, family.documentation, unit, Gauge(points))


def _histogram_points(family: Family, start_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Return a point for each set of labels, with counts that are not cumulated over buckets."""
    return [
        _histogram_point(family.name, list(samples), start_ns, now_ns)
        for _, samples in groupby(family.samples, _attributes)
    ]


def _histogram_point(
    name: str, samples: list[Sample], start_ns: int, now_ns: int
) -> HistogramDataPoint:
    values = {one.name: one.value for one in samples}
    buckets = [one for one in samples if one.name == f"{name}_bucket"]
    cumulated = [int(one.value) for one in buckets]
    return HistogramDataPoint(
        attributes=_attributes(samples[0]),
        start_time_unix_nano=start_ns,
        time_unix_nano=now_ns,
        count=int(values[f"{name}_count"]),
        sum=values[f"{name}_sum"],
        bucket_counts=[after - before for before, after in pairwise([0, *cumulated])],
        explicit_bounds=[float(one.labels["le"]) for one in buckets[:-1]],
        min=_NOT_KNOWN,
        max=_NOT_KNOWN,
        exemplars=[_exemplar(one.exemplar) for one in buckets if one.exemplar is not None],
    )


def _exemplar(exemplar: PrometheusExemplar) -> Exemplar:
    return Exemplar(
        filtered_attributes={},
        value=exemplar.value,
        time_unix_nano=round(float(exemplar.timestamp or 0) * 1e9),
        span_id=0,  # the encoder sends no trace id without a span id; 0 stands for none
        trace_id=int(exemplar.labels["trace_id"], 16),
    )


def _attributes(sample: Sample) -> dict[str, str]:
    """Return the labels of a series; Prometheus has no label without a value."""
    return {name: value for name, value in sample.labels.items() if value and name != "le"}
