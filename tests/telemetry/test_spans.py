"""The spans of lookups: what hangs under what, when, and what they say."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace

from forwardscope import BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.telemetry import names
from forwardscope.testing import InMemoryTelemetry, SeenSpan

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
UntilWaiting = Callable[..., None]

_PATIENCE_S = 60
_KEY = ("next_token_dist", "base", "prompt", 8)


def _tree(spans: Sequence[SeenSpan], parent: int | None = None) -> list[Any]:
    """Return the spans as (name, what is below it), by time of start."""
    return [(one.name, _tree(spans, one.id)) for one in spans if one.parent == parent]


def _named(spans: Sequence[SeenSpan], name: str) -> list[SeenSpan]:
    return [one for one in spans if one.name == name]


def _results(spans: Sequence[SeenSpan]) -> list[tuple[str, str]]:
    """Return (prompt hash, result) of each lookup."""
    told = [one.attributes for one in _named(spans, "cache.lookup")]
    return [(one["forwardscope.prompt_hash"], one["forwardscope.cache.result"]) for one in told]


def _ask_batch(backend: BackendInstrumentation, *prompts: str) -> list[int]:
    return backend.cached_batch("next_token_dist", "base", prompts, 8, lambda indices: indices)


def test_a_single_miss(telemetry: InMemoryTelemetry) -> None:
    """Its lookup has the forward pass below it, and both say what was asked."""
    backend = telemetry.instrumentation()
    backend.spans.model = "some-model"
    backend.cached(*_KEY, lambda: backend.report_tokens([5]))
    lookup, forward = spans = telemetry.spans()
    assert _tree(spans) == [("cache.lookup", [("forward", [])])]
    assert lookup.attributes == {
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.prompt_hash": prompt_hash("prompt"),
        "forwardscope.top_k": 8,
        "forwardscope.cache.result": "miss",
    }
    assert forward.attributes == {
        "gen_ai.operation.name": "score",
        "gen_ai.request.model": "some-model",
        "gen_ai.usage.input_tokens": 5,
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.batch.size": 1,
    }
    assert {span.status for span in spans} == {"unset"}


def test_a_hit_is_one_span(telemetry: InMemoryTelemetry) -> None:
    """It begins and ends when the lookup did, not when its span was made."""
    backend = telemetry.instrumentation()
    backend.cached(*_KEY, lambda: "value")
    before = telemetry.clock.perf_counter_ns()
    assert backend.cached(*_KEY, lambda: "again") == "value"
    after = telemetry.clock.perf_counter_ns()
    first, _, hit = spans = telemetry.spans()
    assert _tree(spans) == [("cache.lookup", [("forward", [])]), ("cache.lookup", [])]
    assert hit.attributes == {**first.attributes, "forwardscope.cache.result": "hit"}
    assert hit.end_ms - hit.start_ms == 1
    assert after - before == 3_000_000


def test_a_batch(telemetry: InMemoryTelemetry) -> None:
    """Each prompt is a lookup; one forward pass stands beside them, linked to those that missed."""
    backend = telemetry.instrumentation()
    _ask_batch(backend, "known")
    seen = len(telemetry.spans())
    _ask_batch(backend, "known", "a", "b", "a")
    spans = telemetry.spans()[seen:]
    batch = spans[0]
    assert (batch.name, batch.parent) == ("cache.lookup_batch", None)
    assert {span.parent for span in spans[1:]} == {batch.id}
    assert Counter(span.name for span in spans[1:]) == {"cache.lookup": 4, "forward": 1}
    known, a, b = map(prompt_hash, ("known", "a", "b"))
    assert Counter(_results(spans)) == Counter(
        [(known, "hit"), (a, "miss"), (b, "miss"), (a, "coalesced")]
    )
    (forward,) = _named(spans, "forward")
    missed = [span for span in spans if span.attributes.get(names.CACHE_RESULT.name) == "miss"]
    assert forward.links == tuple(span.id for span in missed)
    assert forward.attributes["forwardscope.batch.size"] == 2
    assert batch.attributes == {
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.top_k": 8,
        "forwardscope.batch.hits": 2,
        "forwardscope.batch.misses": 2,
    }


def test_a_batch_links_128_lookups_at_most(telemetry: InMemoryTelemetry) -> None:
    """Of 200 misses the first 128 are linked, and all 200 are spans."""
    backend = telemetry.instrumentation()
    _ask_batch(backend, *(f"prompt {n}" for n in range(200)))
    spans = telemetry.spans()
    lookups = _named(spans, "cache.lookup")
    (forward,) = _named(spans, "forward")
    assert _results(spans) == [(prompt_hash(f"prompt {n}"), "miss") for n in range(200)]
    assert forward.links == tuple(span.id for span in lookups[:128])
    assert forward.attributes["forwardscope.batch.size"] == 200


def test_the_forward_span_is_current_while_the_model_runs(telemetry: InMemoryTelemetry) -> None:
    """A caller's own span and lookups inside a compute hang under it, and later it is not."""
    backend = telemetry.instrumentation()
    tracer = telemetry.tracer_provider.get_tracer("test")

    def compute() -> None:
        with tracer.start_as_current_span("mine"):
            backend.cached("op", "base", "inner", 0, lambda: None)
        backend.cached("op", "base", "inner", 0, lambda: None)

    backend.cached(*_KEY, compute)
    assert not trace.get_current_span().get_span_context().is_valid
    (outermost,) = _tree(telemetry.spans())
    assert outermost[0] == "cache.lookup"
    ((name, below),) = outermost[1]
    assert name == "forward"
    inner = ("cache.lookup", [("forward", [])])
    assert sorted(below) == [("cache.lookup", []), ("mine", [inner])]


def test_lookups_hang_under_the_callers_span(telemetry: InMemoryTelemetry) -> None:
    """The current span is their parent, even where a probe's was set before."""
    backend = telemetry.instrumentation()
    tracer = telemetry.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("probe"):
        backend.set_current_probe("probe")
    with tracer.start_as_current_span("mine"):
        backend.cached(*_KEY, lambda: None)
        backend.cached(*_KEY, lambda: None)
        _ask_batch(backend, "a")
    spans = telemetry.spans()
    (mine,) = _named(spans, "mine")
    below = [one.name for one in spans if one.parent == mine.id]
    assert sorted(below) == ["cache.lookup", "cache.lookup", "cache.lookup_batch"]
    (probe,) = _named(spans, "probe")
    assert [one for one in spans if one.parent == probe.id] == []
    assert len({one.trace for one in spans}) == 2


def test_lookups_of_a_worker_thread_hang_under_the_probe(
    telemetry: InMemoryTelemetry, in_thread: InThread
) -> None:
    """Without a span of its own a thread falls back to the probe's; after the probe to none."""
    backend = telemetry.instrumentation()

    def ask() -> None:
        backend.cached(*_KEY, lambda: None)
        backend.cached(*_KEY, lambda: None)
        _ask_batch(backend, "a")

    with backend.spans.around(names.PROBE_RUN, {}):
        backend.set_current_probe("probe")
        in_thread(ask).result(_PATIENCE_S)
        backend.set_current_probe(None)
        in_thread(ask).result(_PATIENCE_S)
    batch = ("cache.lookup_batch", [("cache.lookup", []), ("forward", [])])
    paid = [("cache.lookup", [("forward", [])]), ("cache.lookup", []), batch]
    free = [("cache.lookup", [])] * 2 + [("cache.lookup_batch", [("cache.lookup", [])])]
    assert _tree(telemetry.spans()) == [("probe.run", paid), *free]


def test_lookups_of_a_thread_that_a_compute_starts(
    telemetry: InMemoryTelemetry, in_thread: InThread
) -> None:
    """With the compute's context they are below the forward span; without it they are roots."""
    backend = telemetry.instrumentation()

    def look_up(prompt: str) -> None:
        backend.cached("op", "base", prompt, 0, lambda: None)

    def compute() -> None:
        context = copy_context()
        in_thread(lambda: context.run(look_up, "inner")).result(_PATIENCE_S)
        in_thread(lambda: look_up("other")).result(_PATIENCE_S)

    backend.cached(*_KEY, compute)
    miss = ("cache.lookup", [("forward", [])])
    assert _tree(telemetry.spans()) == [("cache.lookup", [("forward", [miss])]), miss]


def test_no_child_sticks_out_of_its_parent(telemetry: InMemoryTelemetry) -> None:
    """With one clock for all of them, each span begins and ends within its parent."""
    backend = telemetry.instrumentation()

    def compute(indices: list[int]) -> list[int]:
        backend.cached(*_KEY, lambda: None)
        backend.cached(*_KEY, lambda: None)
        return indices

    with backend.spans.around(names.PROBE_RUN, {}):
        _ask_batch(backend, "a", "b")
        backend.cached_batch("op", "base", ["a", "b", "a"], 8, compute)
        _ask_batch(backend, "b", "c", "b", "a", "c")
    spans = telemetry.spans()
    by_id = {span.id: span for span in spans}
    children = [(span, by_id[span.parent]) for span in spans if span.parent is not None]
    assert len(children) == len(spans) - 1
    for child, parent in children:
        assert parent.start_ms <= child.start_ms <= child.end_ms <= parent.end_ms


def test_coalesced_lookups_are_spans(
    telemetry: InMemoryTelemetry, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """Of four threads that miss one key each is a lookup, and one has the forward pass."""
    backend, start = telemetry.instrumentation(), threading.Barrier(4)

    def ask() -> None:
        start.wait(_PATIENCE_S)
        backend.cached(*_KEY, lambda: until_waiting(backend, _KEY, 3))

    futures = [in_thread(ask) for _ in range(4)]
    assert [future.result(_PATIENCE_S) for future in futures] == [None] * 4
    spans = telemetry.spans()
    digest = prompt_hash("prompt")
    assert Counter(_results(spans)) == {(digest, "miss"): 1, (digest, "coalesced"): 3}
    (forward,) = _named(spans, "forward")
    (miss,) = [one for one in spans if one.id == forward.parent]
    assert miss.attributes["forwardscope.cache.result"] == "miss"
    assert len(spans) == 5
    for one in spans:  # those that waited waited for the pass
        assert one.end_ms >= forward.end_ms
