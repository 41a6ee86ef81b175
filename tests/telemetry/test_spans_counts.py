"""Lookups, records and spans agree after any steps; values are the same without telemetry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from forwardscope import BackendInstrumentation
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import SpanOutcome
from forwardscope.testing import InMemoryTelemetry, ScriptedBackend

pytestmark = pytest.mark.timeout(900)

_PROMPTS = ("a", "b", "c", "d")
prompts = st.sampled_from(_PROMPTS)
steps = st.one_of(
    st.tuples(st.just("look up"), prompts),
    st.tuples(st.just("fail"), prompts),
    st.tuples(st.just("nested"), prompts),
    st.tuples(st.just("batch"), st.lists(prompts, max_size=6)),
    st.tuples(st.just("fail batch"), st.lists(prompts, max_size=6)),
    st.tuples(st.just("probe"), st.sampled_from(["one", "two", None])),
)
Step = tuple[str, Any]


class _Runner:
    """Runs steps with a backend, and records the result of each."""

    def __init__(self, backend: BackendInstrumentation) -> None:
        self.backend = backend
        self.results: list[object] = []

    def run(self, steps: Sequence[Step]) -> None:
        for kind, argument in steps:
            try:
                self.results.append(self._step(kind, argument))
            except ValueError as error:
                self.results.append(str(error))

    def _step(self, kind: str, argument: Any) -> object:
        if kind == "probe":
            return self.backend.set_current_probe(argument)
        if kind == "look up":
            return self._look_up(argument, lambda: np.float64(len(self.results)))
        if kind == "fail":
            return self._look_up(argument, _fail)
        if kind == "nested":
            return self._look_up(
                argument, lambda: self._look_up("inner", lambda: len(self.results))
            )
        compute = (
            _fail if kind == "fail batch" else (lambda indices: [len(self.results)] * len(indices))
        )
        return self.backend.cached_batch("op", "base", argument, 0, compute)

    def _look_up(self, prompt: str, compute: Callable[[], Any]) -> object:
        return self.backend.cached("op", "base", prompt, 0, compute)


def _fail(*_: object) -> Any:
    raise ValueError("no")


@settings(max_examples=60)
@given(
    program=st.lists(steps, max_size=25),
    budget=st.none() | st.integers(0, 6),
    cache_enabled=st.booleans(),
)
def test_counts_agree(program: list[Step], budget: int | None, cache_enabled: bool) -> None:
    """Each lookup is a record, and a span that ended or was elided."""
    telemetry = InMemoryTelemetry()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        backend = telemetry.instrumentation(
            trace_path=path, span_budget=budget, cache_enabled=cache_enabled
        )
        _Runner(backend).run(program)
        spans = telemetry.spans()
        records = [json.loads(line) for line in path.read_text("ascii").splitlines()]
        backend.close()
    lookups = [one for one in spans if names.kind_of(one.name) == "lookup"]
    outcomes = backend.spans.outcomes()
    own = {outcome: n for (kind, outcome), n in outcomes.items() if kind == "lookup"}
    assert sum(own.values()) == backend.stats.total_lookups == len(records)
    assert own.get("ended", 0) == len(lookups)
    assert set(own) <= {"ended", "elided"}
    for kind in ("forward", "batch"):
        assert outcomes[kind, "ended"] == sum(names.kind_of(one.name) == kind for one in spans)
    results = [one.attributes["forwardscope.cache.result"] for one in lookups]
    assert results.count("miss") == backend.stats.cache_misses
    errors = [one for one in lookups if one.status == "error"]
    assert len(errors) == backend.stats.cache_misses - backend.stats.forward_passes


@settings(max_examples=30)
@given(program=st.lists(steps, max_size=25), budget=st.none() | st.integers(0, 3))
def test_telemetry_changes_no_value(program: list[Step], budget: int | None) -> None:
    """Values and counts are the same with and without spans and trace."""
    plain = _Runner(BackendInstrumentation())
    with tempfile.TemporaryDirectory() as folder:
        traced = _Runner(
            InMemoryTelemetry().instrumentation(
                trace_path=Path(folder) / "trace.jsonl", span_budget=budget
            )
        )
        for runner in (plain, traced):
            runner.run(program)
            runner.backend.close()
    assert plain.results == traced.results
    of_both = [runner.backend.stats.to_dict() for runner in (plain, traced)]
    for stats in of_both:
        del stats["scoring_wall_s"]
    assert of_both[0] == of_both[1]


def test_records_have_the_ids_of_the_spans(tmp_path: Path, telemetry: InMemoryTelemetry) -> None:
    """A record has trace and parent of its lookup's span, and the ids of its forward call."""
    memory = InMemorySpanExporter()
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(memory))
    backend = telemetry.instrumentation(trace_path=tmp_path / "t.jsonl")
    with backend.spans.around(names.PROBE, "one", {}):
        for _ in range(2):
            backend.cached("op", "base", "single", 0, lambda: None)
        backend.cached_batch("op", "base", ["single", "x", "y", "x"], 0, lambda indices: indices)
    backend.cached("op", "base", "root", 0, lambda: None)
    backend.close()
    spans = [span for span in memory.get_finished_spans() if names.kind_of(span.name) == "lookup"]
    expected = sorted(
        (
            span.attributes["forwardscope.prompt_hash"],
            span.attributes["forwardscope.cache.result"] == "miss",
            format_trace_id(span.context.trace_id),
            "" if span.parent is None else format_span_id(span.parent.span_id),
        )
        for span in spans
        if span.attributes is not None and span.context is not None
    )
    records = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    found = [
        (r["prompt_hash"], not r["hit"], r["trace_id"], r.get("parent_id", "")) for r in records
    ]
    assert sorted(found) == expected
    assert len({parent for _, _, _, parent in found}) == 3
    passes = {
        (format_trace_id(span.context.trace_id), format_span_id(span.context.span_id))
        for span in memory.get_finished_spans()
        if names.kind_of(span.name) == "forward" and span.context is not None
    }
    assert {(r["pass_trace_id"], r["pass_span_id"]) for r in records} == passes
    assert len(passes) == 3


def test_records_without_spans_have_no_ids(tmp_path: Path) -> None:
    """A hit without a parent, and any lookup without a tracer, have none."""
    seen = InMemoryTelemetry().instrumentation(trace_path=tmp_path / "seen.jsonl")
    plain = BackendInstrumentation(trace_path=tmp_path / "plain.jsonl")
    for backend in (seen, plain):
        for _ in range(2):
            backend.cached("op", "base", "prompt", 0, lambda: None)
        backend.close()
    for name, traced in (("seen", [True, False]), ("plain", [False, False])):
        lines = (tmp_path / f"{name}.jsonl").read_text("ascii").splitlines()
        records = [json.loads(line) for line in lines]
        assert ["trace_id" in record for record in records] == traced
        assert not any("parent_id" in record for record in records)
        assert ["pass_span_id" in record for record in records] == [name == "seen"] * 2


def test_run_does_not_count_earlier_spans(telemetry: InMemoryTelemetry) -> None:
    """Spans that are pending when a run begins do not count for it."""
    instrumentation = telemetry.instrumentation()
    for _ in range(6):
        instrumentation.cached("op", "base", "before", 0, lambda: None)
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        probes=(DeltaKL(name="change", prompts=["a"]),),
    )
    result = run_suite(spec, ScriptedBackend(instrumentation=instrumentation))
    assert result.reconciliation.lookups == 4
    assert result.reconciliation.spans == {"ended": 4}
    assert result.reconciliation.holds


class _Delivery:
    """Counts spans as the exporter of a program does.

    Args:
        counts: Returns the number of spans by kind and outcome.
    """

    def __init__(self, counts: Callable[[], Mapping[tuple[str, SpanOutcome], int]]) -> None:
        self.outcomes = counts


def test_delivery_counts_ended_spans(telemetry: InMemoryTelemetry) -> None:
    """Its outcomes replace the ended spans; elided spans are added."""
    backend = telemetry.instrumentation(span_budget=1)
    for _ in range(4):
        backend.cached("op", "base", "prompt", 0, lambda: None)
    assert backend.spans.flush(60.0)
    backend.spans.delivery = _Delivery(
        lambda: {("lookup", "exported"): 1, ("lookup", "dropped"): 1}
    )
    assert backend.spans.outcomes() == {
        ("lookup", "exported"): 1,
        ("lookup", "dropped"): 1,
        ("lookup", "elided"): 2,
    }


def test_span_that_is_made_during_a_read_is_counted_once(
    telemetry: InMemoryTelemetry,
) -> None:
    """It is not both pending and exported."""
    backend = telemetry.instrumentation()
    backend.cached("op", "base", "prompt", 0, lambda: None)

    def counts() -> dict[tuple[str, SpanOutcome], int]:
        assert backend.spans.flush(60.0)
        spans = telemetry.spans()
        return {("lookup", "exported"): sum(names.kind_of(one.name) == "lookup" for one in spans)}

    backend.spans.delivery = _Delivery(counts)
    backend.cached("op", "base", "prompt", 0, lambda: None)
    assert backend.spans.outcomes() == {("lookup", "exported"): 2}
