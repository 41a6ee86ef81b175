"""Families as OTLP metrics: Prometheus makes the names and labels of a scrape of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import inf, isnan, nan

import pytest
from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family
from prometheus_client.samples import Sample

from forwardscope import BackendInstrumentation
from forwardscope.cli.otlp_metrics import metrics_data
from forwardscope.core.ledger import Exemplar, Histogram
from forwardscope.telemetry import names, register, run_names
from forwardscope.telemetry.families import add_histogram, add_sample, new_family
from forwardscope.telemetry.names import Metric

_TRACE_ID = "0123456789abcdef0123456789abcdef"
#: The words of OpenTelemetry's units, as far as Prometheus knows and forwardscope uses them.
_WORDS = {"s": "seconds", "By": "bytes"}

Series = tuple[str, frozenset[tuple[str, str]]]


def encoded(families: Iterable[Family]) -> list[Message]:
    """Return the metrics of a request, as they are on the wire."""
    data = metrics_data(families, Resource({}), InstrumentationScope("s"), 1_000, 2_000)
    (resource,) = encode_metrics(data).resource_metrics
    (scope,) = resource.scope_metrics
    return list(scope.metrics)


def filled(metric: Metric) -> Family:
    """Return a family with one series, of which every label has a value."""
    family = new_family(metric)
    labels = [f"a {name}" for name in metric.labels]
    if metric.kind == "histogram":
        add_histogram(family, metric, labels, Histogram((0.5, 1.0)))
    else:
        add_sample(family, metric, labels, 3)
    return family


def prometheus_name(metric: Message) -> str:
    """Return the name that Prometheus gives to a metric that it receives.

    The rules are those of its UnderscoreEscapingWithSuffixes: words, then the unit's if
    it is missing, then `total` for a monotonic sum and `ratio` for a gauge of unit 1.
    """
    words = re.findall(r"[a-zA-Z0-9:]+", metric.name)
    unit = "" if metric.unit.startswith("{") else _WORDS.get(metric.unit, metric.unit)
    if unit not in ("", "1", *words):
        words.append(unit)
    if metric.HasField("sum") and metric.sum.is_monotonic:
        words = [word for word in words if word != "total"] + ["total"]
    if metric.HasField("gauge") and metric.unit == "1":
        words = [word for word in words if word != "ratio"] + ["ratio"]
    return "_".join(words)


def prometheus_series(metric: Message) -> dict[Series, float]:
    """Return the series that Prometheus makes of a metric that it receives."""
    name, series = prometheus_name(metric), dict[Series, float]()

    def add(suffix: str, point: Message, value: float, **more: str) -> None:
        labels = {one.key: one.value.string_value for one in point.attributes} | more
        series[name + suffix, frozenset(labels.items())] = value

    for point in metric.histogram.data_points:
        total = 0
        bounds = [*point.explicit_bounds, inf]
        for bound, number in zip(bounds, point.bucket_counts, strict=True):
            total += number
            add("_bucket", point, total, le="+Inf" if bound == inf else f"{bound:g}")
        add("_count", point, point.count)
        add("_sum", point, point.sum)
    for point in [*metric.gauge.data_points, *metric.sum.data_points]:
        add("", point, getattr(point, point.WhichOneof("value")))
    return series


def scraped_series(samples: Iterable[Sample]) -> dict[Series, float]:
    """Return the series of a scrape, with the bounds of buckets as OTLP has them."""
    found = dict[Series, float]()
    for sample in samples:
        labels = {name: value for name, value in sample.labels.items() if value}
        if "le" in labels:
            labels["le"] = labels["le"].removesuffix(".0")
        found[sample.name, frozenset(labels.items())] = sample.value
    return found


@pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)
def test_prometheus_gives_a_metric_the_name_of_a_scrape(metric: Metric) -> None:
    """Name, type and labels survive the way over OTLP."""
    family = filled(metric)
    (sent,) = encoded([family])
    assert sent.name == prometheus_name(sent) == metric.name
    assert sent.unit == {"seconds": "s", "bytes": "By"}.get(family.unit, "")
    assert sent.description == metric.help
    assert sent.WhichOneof("data") == {"counter": "sum"}.get(metric.kind, metric.kind)
    assert prometheus_series(sent) == scraped_series(family.samples)


def test_units_of_base_units() -> None:
    """Metrics in seconds and bytes have the units of OpenTelemetry."""
    sent = {one.name: one.unit for one in encoded(map(filled, names.METRICS))}
    assert sent[names.SCORING_SECONDS.name] == sent[names.FORWARD_DURATION.name] == "s"
    assert sent[names.CACHE_BYTES.name] == "By"


def test_a_backend_as_a_scrape_shows_it() -> None:
    """The series of a backend are those of its scrape, a lookup outside any probe included."""
    registry, instrumentation = CollectorRegistry(), BackendInstrumentation()
    register(instrumentation, registry)
    for prompt in ("a", "b", "a"):
        instrumentation.cached("op", "base", prompt, 1, lambda: 1.0)
    sent = dict[Series, float]()
    for metric in encoded(registry.collect()):
        sent |= prometheus_series(metric)
    assert sent == scraped_series(one for family in registry.collect() for one in family.samples)
    hits = {"backend": "default", "view": "base", "op": "op", "result": "hit", "tier": "memory"}
    assert sent[names.LOOKUPS.name, frozenset(hits.items())] == 1


def test_sums_and_histograms_are_cumulative_since_the_start() -> None:
    """Their points have both times; the points of gauges have the time of their values."""
    metrics = {one.name: one for one in encoded(map(filled, names.METRICS))}
    total, sizes = metrics[names.LOOKUPS.name].sum, metrics[names.BATCH_PROMPTS.name].histogram
    assert total.aggregation_temporality == sizes.aggregation_temporality == 2
    assert total.is_monotonic
    for point in (total.data_points[0], sizes.data_points[0]):
        assert (point.start_time_unix_nano, point.time_unix_nano) == (1_000, 2_000)
    assert metrics[names.CACHE_BYTES.name].gauge.data_points[0].time_unix_nano == 2_000


def test_histograms_of_several_series() -> None:
    """Each has its own counts, its exemplars with trace ids, and neither minimum nor maximum."""
    family = new_family(names.FORWARD_DURATION)
    for op, values in (("a", [0.1, 0.7, 9.0]), ("b", [0.7])):
        seen = Histogram((0.5, 1.0))
        for value in values:
            seen.observe(value, Exemplar(_TRACE_ID, value, 1.5))
        add_histogram(family, names.FORWARD_DURATION, ("default", op), seen)
    (sent,) = encoded([family])
    first, second = sent.histogram.data_points
    assert (list(first.bucket_counts), first.count) == ([1, 1, 1], 3)
    assert (list(second.bucket_counts), second.count) == ([0, 1, 0], 1)
    assert first.sum == pytest.approx(9.8)
    assert not first.HasField("min")
    assert not first.HasField("max")
    assert [one.as_double for one in first.exemplars] == [0.1, 0.7, 9.0]
    (exemplar,) = second.exemplars
    assert exemplar.trace_id.hex() == _TRACE_ID
    assert exemplar.span_id == bytes(8)  # of no span
    assert exemplar.time_unix_nano == 1_500_000_000


def test_values_that_are_not_known() -> None:
    """A gauge of NaN is sent as NaN, and a family without samples is not sent."""
    family = new_family(run_names.RUN_PERIOD)
    add_sample(family, run_names.RUN_PERIOD, ("suite", "model"), nan)
    (sent,) = encoded([family, new_family(run_names.RUN_END)])
    assert isnan(sent.gauge.data_points[0].as_double)
