"""Telemetry in memory: plain data that is equal in every run."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
from opentelemetry import trace

from forwardscope.errors import MissingExtraError
from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, PromptCollapse
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import InMemoryTelemetry, ScriptedBackend, SeenSpan, StepClock

pytestmark = pytest.mark.timeout(900)


def _run_of_all_probes() -> InMemoryTelemetry:
    prompts = ("a", "b")
    spec = SuiteSpec(
        version=1,
        name="tested",
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        probes=(
            NullAdapter(name="baseline", runs=2, sentinel_prompts=["s"]),
            DeltaKL(name="change", prompts=prompts),
            AdapterAblation(name="response", prompts=prompts),
            PromptCollapse(name="long-context", prompts=prompts, context_lengths=(0, 4, 8)),
        ),
    )
    telemetry = InMemoryTelemetry()
    run_suite(spec, ScriptedBackend(instrumentation=telemetry.instrumentation()))
    return telemetry


def _without_run_id(spans: list[SeenSpan]) -> list[SeenSpan]:
    for span in spans:
        span.attributes.pop("forwardscope.run.id", None)
    return spans


def test_two_runs_are_equal() -> None:
    """Spans, except for run ids, and metrics are equal."""
    one, two = _run_of_all_probes(), _run_of_all_probes()
    spans = one.spans()
    assert len({span.attributes.get("forwardscope.run.id") for span in spans}) == 2
    assert (
        spans[0].attributes["forwardscope.run.id"]
        != two.spans()[0].attributes["forwardscope.run.id"]
    )
    assert _without_run_id(spans) == _without_run_id(two.spans())
    assert len(spans) > 20
    assert one.metrics() == two.metrics()


def test_span_ids_count_from_one() -> None:
    """Spans are in the order of their ids, parents first, and times begin at 0."""
    spans = _run_of_all_probes().spans()
    assert [span.id for span in spans] == list(range(1, len(spans) + 1))
    assert (spans[0].name, spans[0].parent, spans[0].start_ms) == ("suite tested", None, 0.0)
    assert all(span.parent is not None and span.parent < span.id for span in spans[1:])
    assert {span.trace for span in spans} == {1}
    starts = [span.start_ms for span in spans]
    assert starts == sorted(starts)


def test_a_lookup_as_plain_data() -> None:
    """All fields of the spans of a miss can be compared."""
    telemetry = InMemoryTelemetry()
    backend = telemetry.instrumentation()
    backend.cached("op", "base", "prompt", 4, lambda: None)
    common = {"forwardscope.op": "op", "forwardscope.view": "base"}
    assert telemetry.spans() == [
        SeenSpan(
            id=1,
            parent=None,
            trace=1,
            name="lookup miss",
            start_ms=0.0,
            end_ms=4.0,
            attributes={
                **common,
                "forwardscope.prompt_hash": "9c7e05e5868a",
                "forwardscope.top_k": 4,
                "forwardscope.cache.result": "miss",
            },
        ),
        SeenSpan(
            id=2,
            parent=1,
            trace=1,
            name="forward base",
            start_ms=1.0,
            end_ms=3.0,
            attributes={
                **common,
                "gen_ai.operation.name": "text_completion",
                "forwardscope.batch.size": 1,
            },
        ),
    ]


def test_only_ended_spans_are_returned() -> None:
    """A span that has not ended is missing, and its children have no parent so far."""
    telemetry = InMemoryTelemetry()
    backend = telemetry.instrumentation()
    assert telemetry.spans() == []
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine"):
        backend.cached("op", "base", "prompt", 0, lambda: None)
        assert [(one.name, one.parent) for one in telemetry.spans()] == [
            ("lookup miss", None),
            ("forward base", 1),
        ]
    (mine,) = [one for one in telemetry.spans() if one.name == "mine"]
    (lookup,) = [one for one in telemetry.spans() if one.name == "lookup miss"]
    assert lookup.parent == mine.id


def test_link_to_an_unknown_span_is_omitted() -> None:
    """A span may link to the span of another process."""
    telemetry = InMemoryTelemetry()
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1))
    tracer = telemetry.tracer_provider.get_tracer("test")
    tracer.start_span("mine", links=[trace.Link(remote)]).end()
    assert [(span.name, span.links) for span in telemetry.spans()] == [("mine", ())]


def test_metrics_are_read_by_name_and_label_values() -> None:
    """Values come in the order of the labels' names; each backend has its own."""
    telemetry = InMemoryTelemetry()
    one, two = (telemetry.instrumentation(name=name) for name in ("one", "two"))
    for _ in range(3):
        one.cached("op", "ft", "prompt", 0, lambda: None)
    one.set_current_probe("probe")
    two.set_current_probe("probe")
    two.cached("op", "null_7", "prompt", 0, lambda: None)
    seen = telemetry.metrics()
    # backend, op, probe, result, view
    assert seen["forwardscope_cache_lookups_total", "one", "op", "", "hit", "memory", "ft"] == 2
    assert seen["forwardscope_cache_lookups_total", "one", "op", "", "miss", "", "ft"] == 1
    assert seen["forwardscope_cache_lookups_total", "two", "op", "probe", "miss", "", "null"] == 1
    assert seen["forwardscope_cache_entries", "one"] == 1
    with pytest.raises(ValueError, match="'one' is registered already"):
        telemetry.instrumentation(name="one")


def test_settings_of_the_backend() -> None:
    """Other arguments than provider and clock are those of the backend."""
    telemetry = InMemoryTelemetry()
    backend = telemetry.instrumentation(cache_maxsize=2, span_budget=0)
    for prompt in ("a", "b", "c", "c"):
        backend.cached("op", "base", prompt, 0, lambda: None)
    assert len(backend.cache) == 2
    spans = Counter(span.name for span in telemetry.spans())
    assert spans == {"lookup miss": 3, "forward base": 3}


def test_clock_advances_at_each_reading(together: Any) -> None:
    """Each reading is one millisecond later, also under threads; the date is constant."""
    clock = StepClock()
    readings = together(4, lambda _: [clock.perf_counter_ns() for _ in range(250)])
    assert all(own == sorted(own) for own in readings)
    every = sorted(one for own in readings for one in own)
    assert every == [n * 1_000_000 for n in range(1, 1001)]
    assert clock.time_ns() == clock.time_ns() == StepClock.EPOCH_NS


def test_error_without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the package and the extra that installs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtraError, match=r"opentelemetry-sdk.*otel"):
        InMemoryTelemetry()
