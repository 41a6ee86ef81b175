"""Labels and exemplars: few values for good, whatever the names, and readable by any parser."""

from __future__ import annotations

from collections import Counter
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

_AWKWARD = ['quo"ted', "two\nlines", "back\\slash", "\\n", "ünïcode", '{a="b"}, 1 # x', ""]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry with nothing else on it."""
    return CollectorRegistry()


def _ask(backend: BackendInstrumentation, probe: str | None, view: str = "base") -> None:
    backend.set_current_probe(probe)
    backend.cached("op", view, "prompt", 0, lambda: None)


def _of(families: Iterable[Metric], metric: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of some labels."""
    chosen = [sample for family in families for sample in family.samples if sample.name == metric]
    read = {tuple(one.labels[label] for label in labels): one.value for one in chosen}
    assert len(read) == len(chosen), f"{labels} do not tell the samples of {metric} apart"
    return read


def _counters(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    every = [sample for family in registry.collect() for sample in family.samples]
    chosen = [sample for sample in every if sample.name.endswith("_total")]
    return {(one.name, *one.labels.values()): one.value for one in chosen}


def _lookups(registry: CollectorRegistry) -> Counter[tuple[str, ...]]:
    """Return the lookups by probe."""
    summed: Counter[tuple[str, ...]] = Counter()
    labels = ("probe", "view", "op", "result")
    read = _of(registry.collect(), "forwardscope_cache_lookups_total", *labels)
    for (probe, *_), value in read.items():
        summed[(probe,)] += int(value)
    return summed


def test_views_are_shown_by_family(registry: CollectorRegistry) -> None:
    """Scales and seeds are summed; the label has as many values as there are kinds of views."""
    backend = BackendInstrumentation()
    register(backend, registry)
    for view in ("base", "ft", "scaled_0.5", "scaled_1.25", "null_1", "null_2", "null_3_init0.5"):
        _ask(backend, None, view)
    passes = _of(registry.collect(), "forwardscope_forward_passes_total", "view")
    assert passes == {("base",): 1, ("ft",): 1, ("scaled",): 2, ("null",): 3}


@pytest.mark.parametrize("outside", [False, True])
def test_probes_beyond_a_hundred_are_shown_together(
    registry: CollectorRegistry, outside: bool
) -> None:
    """The first hundred keep their names for good; a lookup outside any probe is none of them."""
    backend = BackendInstrumentation()
    register(backend, registry)
    if outside:
        _ask(backend, None)
    for number in range(MAX_PROBES + 3):
        _ask(backend, f"probe {number}")
    named = {(f"probe {number}",) for number in range(MAX_PROBES)} | ({("",)} if outside else set())
    before = _counters(registry)
    assert _lookups(registry) == {**dict.fromkeys(named, 1.0), ("_other",): 3.0}
    assert _of(registry.collect(), "forwardscope_probe_names_folded") == {(): 3}
    if outside:
        _ask(backend, None)
    for number in range(MAX_PROBES + 5):
        _ask(backend, f"probe {number}")
    assert _lookups(registry) == {**dict.fromkeys(named, 2.0), ("_other",): 8.0}
    assert _of(registry.collect(), "forwardscope_probe_names_folded") == {(): 5}
    after = _counters(registry)
    assert all(after[key] >= value for key, value in before.items())


def test_a_late_lookup_outside_any_probe_changes_no_label(registry: CollectorRegistry) -> None:
    """It is shown as outside, and what was `_other` before stays `_other`."""
    backend = BackendInstrumentation()
    register(backend, registry)
    for number in range(MAX_PROBES + 3):
        _ask(backend, f"probe {number}")
    before = _lookups(registry)
    _ask(backend, None)
    assert _lookups(registry) == {**before, ("",): 1.0}


def test_series_that_the_ledger_folded_are_other(registry: CollectorRegistry) -> None:
    """Past the ledger's own bound the labels are `_other`, and nothing is left out."""
    backend = BackendInstrumentation()
    register(backend, registry)
    for number in range(4100):
        _ask(backend, None, f"view{number}")
    passes = _of(registry.collect(), "forwardscope_forward_passes_total", "probe", "view", "op")
    assert passes["_other", "_other", "_other"] == 4
    assert sum(passes.values()) == 4100


@pytest.mark.parametrize("awkward", _AWKWARD)
@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_any_name_can_be_parsed_back(registry: CollectorRegistry, awkward: str, form: str) -> None:
    """Quotes, newlines and backslashes in names of backends, probes and ops come back as put in."""
    backend = BackendInstrumentation(name=awkward)
    register(backend, registry)
    backend.set_current_probe(awkward)
    backend.cached(awkward, "base", "prompt", 0, lambda: None)
    families = list(_exposed(registry, form))
    labels = ("backend", "probe", "op")
    passes = _of(families, "forwardscope_forward_passes_total", *labels)
    assert passes == {(awkward, awkward, awkward): 1}
    counted = _of(families, "forwardscope_forward_duration_seconds_count", "backend", "op")
    assert counted == {(awkward, awkward): 1}


@pytest.mark.parametrize("form", ["text", "openmetrics"])
def test_lone_surrogates_are_escaped(registry: CollectorRegistry, form: str) -> None:
    """What UTF-8 cannot hold is shown as its escape, and the scrape does not fail."""
    backend = BackendInstrumentation(name="a\udc80")
    register(backend, registry)
    _ask(backend, "b\udc81", "c\udc82")
    passes = _of(
        _exposed(registry, form), "forwardscope_forward_passes_total", "backend", "probe", "view"
    )
    assert passes == {("a\\udc80", "b\\udc81", "c\\udc82"): 1}


def test_names_that_look_alike_when_escaped_are_one_series(registry: CollectorRegistry) -> None:
    """A lone surrogate and the text of its escape never give one sample twice."""
    backend = BackendInstrumentation()
    register(backend, registry)
    _ask(backend, "a\udc80")
    _ask(backend, "a\\udc80")
    assert (
        sum(_of(registry.collect(), "forwardscope_cache_lookups_total", "probe", "result").values())
        == 2
    )


def test_exemplars_are_the_traces_of_the_latest_passes() -> None:
    """Each bucket has one in OpenMetrics and none in the plain text; sums stay as they are."""
    telemetry = InMemoryTelemetry()
    backend = telemetry.instrumentation()
    for number in range(3):
        backend.cached("op", "base", f"prompt {number}", 0, lambda: None)
    families = list(_exposed(telemetry.registry, "openmetrics"))
    samples = [one for family in families for one in family.samples if one.exemplar is not None]
    assert [(one.name, one.labels["le"]) for one in samples] == [
        ("forwardscope_forward_duration_seconds_bucket", "0.001")
    ]
    exemplar = samples[0].exemplar
    assert exemplar is not None
    (seen,) = [
        one for one in backend.ledger.snapshot().durations["op"].exemplars if one is not None
    ]
    assert exemplar.labels == {"trace_id": seen.trace_id}
    assert len(seen.trace_id) == 32
    assert (exemplar.value, float(exemplar.timestamp)) == (0.001, telemetry.clock.time_ns() / 1e9)
    assert seen.trace_id not in generate_latest(telemetry.registry).decode()
    assert " # {" not in generate_latest(telemetry.registry).decode()


def test_exemplars_name_the_trace_that_the_pass_is_in() -> None:
    """The id is that of the caller's own trace, also for a batch, and the latest one's."""
    telemetry = InMemoryTelemetry()
    backend = telemetry.instrumentation()
    tracer = telemetry.tracer_provider.get_tracer("test")
    ids = []
    for number in range(2):
        with tracer.start_as_current_span("mine") as span:
            ids.append(f"{span.get_span_context().trace_id:032x}")
            prompts = [f"{number} a", f"{number} b"]
            backend.cached_batch("op", "base", prompts, 0, lambda indices: indices)
    found = [one for one in backend.ledger.snapshot().durations["op"].exemplars if one is not None]
    assert [one.trace_id for one in found] == [ids[1]]
    assert found[0].value == 0.0005


@pytest.mark.parametrize("sampled", ["no tracer", "declined", "failed"])
def test_no_exemplar_without_a_sampled_pass_that_succeeded(
    registry: CollectorRegistry, sampled: str
) -> None:
    """A trace that nobody can look up is never named, nor one of a pass that is not counted."""
    declining = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    seen = InMemoryTelemetry().tracer_provider
    provider = {"no tracer": NoOpTracerProvider(), "declined": declining, "failed": seen}[sampled]
    backend = BackendInstrumentation(tracer_provider=provider)
    register(backend, registry)

    def compute(*_: object) -> Any:
        if sampled == "failed":
            raise ValueError("no")
        return ["value"]

    for ask in (
        lambda: backend.cached("op", "base", "prompt", 0, compute),
        lambda: backend.cached_batch("op", "base", ["other"], 0, compute),
    ):
        if sampled == "failed":
            with pytest.raises(ValueError, match="no"):
                ask()
        else:
            ask()
    text = openmetrics.generate_latest(registry).decode()
    assert "forwardscope_cache_lookups_total" in text
    assert " # {" not in text


def _exposed(registry: CollectorRegistry, form: str) -> Iterable[Metric]:
    """Write a registry as a scrape gets it, and read it back."""
    if form == "text":
        return parse_text(generate_latest(registry).decode("utf-8"))
    return parse_open(openmetrics.generate_latest(registry).decode("utf-8"))
