"""Labels and exemplars: a bounded number of values, and valid for any name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from forwardscope import BackendInstrumentation
from forwardscope.telemetry import register
from forwardscope.telemetry.collector import MAX_PROBES
from forwardscope.testing import InMemoryTelemetry
from forwardscope.text import printable

_DURATION = "forwardscope_forward_duration_seconds"
_AWKWARD = ['quo"ted', "two\nlines", "back\\slash", "\\n", "ünïcode", '{a="b"}, 1 # x', ""]


def _look_up(backend: BackendInstrumentation, probe: str | None, view: str = "base") -> None:
    backend.set_current_probe(probe)
    backend.cached("op", view, "prompt", 0, lambda: None)


def _of(families: Iterable[Metric], metric: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of some labels."""
    chosen = [sample for family in families for sample in family.samples if sample.name == metric]
    read = {tuple(one.labels[label] for label in labels): one.value for one in chosen}
    assert len(read) == len(chosen), f"{labels} do not distinguish the samples of {metric}"
    return read


def test_views_are_summed_by_family(registry: CollectorRegistry) -> None:
    """The label has no scale and no seed."""
    backend = BackendInstrumentation()
    register(backend, registry)
    for view in ("base", "ft", "scaled_0.5", "scaled_1.25", "null_1", "null_2", "null_3_init0.5"):
        _look_up(backend, None, view)
    passes = _of(registry.collect(), "forwardscope_forward_passes_total", "view")
    assert passes == {("base",): 1, ("ft",): 1, ("scaled",): 2, ("null",): 3}


def test_probes_beyond_a_hundred_are_other(registry: CollectorRegistry) -> None:
    """The first hundred keep their names; a lookup outside any probe is not one of them."""
    backend = BackendInstrumentation()
    register(backend, registry)

    def lookups() -> dict[str, float]:
        summed: dict[str, float] = {}
        labels = ("probe", "view", "op", "result")
        samples = _of(registry.collect(), "forwardscope_cache_lookups_total", *labels)
        for (probe, *_), value in samples.items():
            summed[probe] = summed.get(probe, 0) + value
        return summed

    named = {f"probe {number}" for number in range(MAX_PROBES)}
    for number in range(MAX_PROBES + 3):
        _look_up(backend, f"probe {number}")
    assert lookups() == {**dict.fromkeys(named, 1.0), "_other": 3.0}
    assert _of(registry.collect(), "forwardscope_probe_names_folded") == {(): 3}
    _look_up(backend, None)
    for number in range(MAX_PROBES + 5):
        _look_up(backend, f"probe {number}")
    assert lookups() == {**dict.fromkeys(named, 2.0), "_other": 8.0, "": 1.0}
    assert _of(registry.collect(), "forwardscope_probe_names_folded") == {(): 5}


def test_series_that_the_ledger_folded_are_other(registry: CollectorRegistry) -> None:
    """Past the ledger's bound the labels are `_other`, and no lookup is missing."""
    backend = BackendInstrumentation()
    register(backend, registry)
    for number in range(4100):
        _look_up(backend, None, f"view{number}")
    passes = _of(registry.collect(), "forwardscope_forward_passes_total", "probe", "view", "op")
    assert passes["_other", "_other", "_other"] == 4
    assert sum(passes.values()) == 4100


@pytest.mark.parametrize("awkward", _AWKWARD)
@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_any_name_can_be_parsed_back(registry: CollectorRegistry, awkward: str, form: str) -> None:
    """Names of backends, probes and ops may have quotes and backslashes; a newline is escaped."""
    backend = BackendInstrumentation(name=awkward)
    register(backend, registry)
    backend.set_current_probe(awkward)
    backend.cached(awkward, "base", "prompt", 0, lambda: None)
    families = list(_exposed(registry, form))
    labels = ("backend", "probe", "op")
    passes = _of(families, "forwardscope_forward_passes_total", *labels)
    shown = printable(awkward)
    assert passes == {(shown, shown, shown): 1}
    counted = _of(families, f"{_DURATION}_count", "backend", "op")
    assert counted == {(shown, shown): 1}


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_lone_surrogates_are_escaped(registry: CollectorRegistry, form: str) -> None:
    """A lone surrogate and the text of its escape are one series."""
    backend = BackendInstrumentation(name="a\udc80")
    register(backend, registry)
    _look_up(backend, "b\udc81", "c\udc82")
    backend.cache.clear()
    _look_up(backend, "b\\udc81", "c\udc82")
    passes = _of(
        _exposed(registry, form), "forwardscope_forward_passes_total", "backend", "probe", "view"
    )
    assert passes == {("a\\udc80", "b\\udc81", "c\\udc82"): 2}


def test_exemplar_is_the_trace_of_the_latest_pass(telemetry: InMemoryTelemetry) -> None:
    """It is in OpenMetrics only; its id is that of the caller's trace, also for a batch."""
    backend = telemetry.instrumentation()
    backend.cached("op", "base", "prompt", 0, lambda: None)
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
        backend.cached_batch("op", "base", ["a", "b"], 0, lambda indices: indices)
    families = list(_exposed(telemetry.registry, "openmetrics"))
    (sample,) = [one for family in families for one in family.samples if one.exemplar is not None]
    assert (sample.name, sample.labels["le"]) == (f"{_DURATION}_bucket", "0.001")
    exemplar = sample.exemplar
    assert exemplar is not None
    assert (exemplar.labels, exemplar.value) == ({"trace_id": trace_id}, 0.0005)
    assert float(exemplar.timestamp) == telemetry.clock.time_ns() / 1e9
    assert " # {" not in generate_latest(telemetry.registry).decode()


@pytest.mark.parametrize("sampled", ["no tracer", "declined", "failed"])
def test_no_exemplar_without_a_sampled_pass_that_succeeded(
    registry: CollectorRegistry, sampled: str
) -> None:
    """A failed pass has none, nor a trace that is not sampled."""
    declining = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    seen = InMemoryTelemetry().tracer_provider
    provider = {"no tracer": NoOpTracerProvider(), "declined": declining, "failed": seen}[sampled]
    backend = BackendInstrumentation(tracer_provider=provider)
    register(backend, registry)

    def compute(*_: object) -> Any:
        if sampled == "failed":
            raise ValueError("no")
        return ["value"]

    for look_up in (
        lambda: backend.cached("op", "base", "prompt", 0, compute),
        lambda: backend.cached_batch("op", "base", ["other"], 0, compute),
    ):
        if sampled == "failed":
            with pytest.raises(ValueError, match="no"):
                look_up()
        else:
            look_up()
    text = openmetrics.generate_latest(registry).decode()
    assert "forwardscope_cache_lookups_total" in text
    assert " # {" not in text


def _exposed(registry: CollectorRegistry, form: str) -> Iterable[Metric]:
    """Write a registry as for a scrape, and parse the text."""
    if form == "text":
        return parse_text(generate_latest(registry).decode("utf-8"))
    return parse_open(openmetrics.generate_latest(registry).decode("utf-8"))
