"""Lookups that bypass the cache, values that are kept at once, batches of several probes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

from forwardscope import BackendInstrumentation
from forwardscope.core.series import SeriesKey
from forwardscope.recorder import BatchProbes
from forwardscope.testing import InMemoryTelemetry, MemoryStore

_OP, _VIEW = "generate_until", "base"


@pytest.fixture
def telemetry() -> InMemoryTelemetry:
    """Return a provider that collects spans."""
    return InMemoryTelemetry()


def _records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_values_that_bypass_the_cache_are_never_answered_from_it(tmp_path: Path) -> None:
    """Equal prompts are computed each time, counted as misses and marked in the trace."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")
    backend.cached(_OP, _VIEW, "a", 0, lambda: "kept")
    drawn = iter("12345")
    several = backend.uncached_batch(
        _OP, _VIEW, ["a", "a", "b"], 0, lambda: [next(drawn) for _ in range(3)]
    )
    assert several == ["1", "2", "3"]
    assert backend.uncached(_OP, _VIEW, "b", 0, lambda: next(drawn)) == "4"
    assert backend.cached(_OP, _VIEW, "a", 0, lambda: "computed") == "kept"
    counts = backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)]
    assert (counts.hits, counts.misses, counts.forward_passes, counts.bypasses) == (1, 5, 5, 4)
    assert backend.stats.batches_sent == 1
    marks = [(one["hit"], one.get("bypassed"), one.get("batch")) for one in _records_of(backend)]
    assert marks == [
        (False, None, None),
        *[(False, True, 3)] * 3,
        (False, True, None),
        (True, None, None),
    ]


def _records_of(backend: BackendInstrumentation) -> list[dict[str, object]]:
    assert backend.trace.path is not None
    return _records(Path(backend.trace.path))


def test_a_bypass_that_fails_is_an_error_of_each_prompt() -> None:
    """The exception is raised unchanged, and each prompt is a miss with an error."""
    backend = BackendInstrumentation()

    def fail() -> list[str]:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        backend.uncached_batch(_OP, _VIEW, ["a", "b"], 0, fail)
    with pytest.raises(RuntimeError, match="returned 1 values for 2 prompts"):
        backend.uncached_batch(_OP, _VIEW, ["a", "b"], 0, lambda: ["x"])
    counts = backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)]
    assert counts.errors == {"OSError": 2, "RuntimeError": 2}
    assert (counts.bypasses, counts.forward_passes) == (4, 0)


def test_a_stop_is_met_before_a_bypass() -> None:
    """Nothing is computed and nothing counted after a stop was requested."""
    backend = BackendInstrumentation()
    backend.request_stop()
    probes = BatchProbes(["p", "q"], lambda *_: Context())
    with pytest.raises(KeyboardInterrupt):
        backend.uncached_batch(_OP, _VIEW, ["a", "b"], 0, lambda: ["x", "y"], probes=probes)
    assert backend.stats.total_lookups == 0


def test_spans_of_a_bypass_say_so(telemetry: InMemoryTelemetry) -> None:
    """The lookup of a single call has its forward call as a child, and the attribute."""
    backend = telemetry.instrumentation()
    backend.uncached(_OP, _VIEW, "a", 0, lambda: "x")
    backend.uncached_batch(_OP, _VIEW, ["b"], 0, lambda: ["y"])
    backend.close()
    lookups = [one for one in telemetry.spans() if one.name == "lookup miss"]
    assert [one.attributes["forwardscope.cache.bypassed"] for one in lookups] == [True, True]
    forward = [one for one in telemetry.spans() if one.name == "forward base"]
    assert forward[0].parent == lookups[0].id
    assert len(forward) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_kept_values_survive_the_end_of_their_batch(error: type[BaseException]) -> None:
    """They are in cache and store, are counted as passes, and are not computed again."""
    store = MemoryStore()
    identify = {"store": store, "view_identity": lambda view: view, "verify": 0.0}
    backend = BackendInstrumentation(**identify)  # type: ignore[arg-type]

    def compute(indices: list[int]) -> list[float]:
        backend.keep(1, 1.5)
        raise error

    with pytest.raises(error):
        backend.cached_batch(_OP, _VIEW, ["a", "b", "c"], 0, compute)
    counts = backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)]
    assert (counts.forward_passes, counts.forward_errors) == (1, 2)
    again: list[list[int]] = []

    def compute_again(indices: list[int]) -> list[float]:
        again.append(indices)
        return [0.0 for _ in indices]

    assert backend.cached_batch(_OP, _VIEW, ["a", "b"], 0, compute_again) == [0.0, 1.5]
    assert again == [[0]]
    other = BackendInstrumentation(**identify)  # type: ignore[arg-type]
    assert other.cached(_OP, _VIEW, "b", 0, lambda: 7.0) == 1.5


def test_the_kept_value_is_the_one_that_is_returned() -> None:
    """A value that was kept is not stored twice, and all callers get the same."""
    store = MemoryStore()
    backend = BackendInstrumentation(store=store, view_identity=lambda view: view)

    def compute(indices: list[int]) -> list[float]:
        for position in range(len(indices)):
            backend.keep(position, 1.0 + position)
        return [9.0 for _ in indices]

    assert backend.cached_batch(_OP, _VIEW, ["a", "b"], 0, compute) == [1.0, 2.0]
    assert store.stats().entries == 2


def test_keeping_outside_a_compute_or_in_a_bypass_does_nothing() -> None:
    """The value is in no cache."""
    backend = BackendInstrumentation()
    backend.keep(0, "x")
    backend.uncached_batch(_OP, _VIEW, ["a"], 0, lambda: [backend.keep(0, "x") or "y"])
    assert len(backend.cache) == 0


def test_a_batch_of_several_probes_is_counted_and_traced_by_probe(
    telemetry: InMemoryTelemetry, tmp_path: Path
) -> None:
    """One forward call, the lookups below the span of their own probe, times that add up."""
    backend = telemetry.instrumentation(trace_path=tmp_path / "t.jsonl")
    tracer = telemetry.tracer_provider.get_tracer("test")
    began: list[tuple[str, int, int]] = []
    spans: dict[str, trace.Span] = {}

    def parent(probe: str, start_ns: int, end_ns: int) -> Context:
        began.append((probe, start_ns, end_ns))
        spans[probe] = tracer.start_span(probe)
        return trace.set_span_in_context(spans[probe])

    backend.cached(_OP, _VIEW, "b", 0, lambda: "B")
    calls: list[list[int]] = []

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["abcb"[index].upper() for index in indices]

    probes = BatchProbes(["one", "one", "two", "two"], parent)
    values = backend.cached_batch(_OP, _VIEW, ["a", "b", "c", "b"], 0, compute, probes=probes)
    assert values == ["A", "B", "C", "B"]
    assert calls == [[0, 2]]
    backend.close()
    series = backend.ledger.snapshot().series
    assert {key.probe: (one.hits, one.misses) for key, one in series.items()} == {
        None: (0, 1),
        "one": (1, 1),
        "two": (1, 1),
    }
    assert backend.stats.batches_sent == 1
    assert [name for name, _, _ in began] == ["one", "two"]
    assert began[0][1] <= began[0][2] <= began[1][1] <= began[1][2]
    for span in spans.values():
        span.end()
    seen = {one.id: one for one in telemetry.spans()}
    for name in ("one", "two"):
        below = [one.name for one in seen.values() if one.parent and seen[one.parent].name == name]
        assert sorted(below) == ["lookup hit", "lookup miss"]
    batch = next(one for one in seen.values() if one.name == "lookup batch")
    forward = [one for one in seen.values() if one.name == "forward base"][-1]
    assert (forward.parent, forward.start_ms) == (batch.id, batch.start_ms)
    assert batch.attributes["forwardscope.batch.hits"] == 2
    lines = _records(tmp_path / "t.jsonl")[1:]
    assert [one["probe"] for one in lines] == ["one", "one", "two", "two"]
    assert {one["parent_id"] for one in lines} == {
        trace.format_span_id(one.get_span_context().span_id) for one in spans.values()
    }
