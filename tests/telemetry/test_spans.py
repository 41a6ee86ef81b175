"""The spans of lookups: parents, times and attributes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forwardscope import BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.telemetry import names
from forwardscope.testing import InMemoryTelemetry, SeenSpan

pytestmark = pytest.mark.timeout(900)

_PATIENCE_S = 60
_KEY = ("next_token_dist", "base", "prompt", 8)


def _tree(spans: Sequence[SeenSpan], parent: int | None = None) -> list[Any]:
    """Return the spans as (name, children), by time of start."""
    return [(one.name, _tree(spans, one.id)) for one in spans if one.parent == parent]


def _named(spans: Sequence[SeenSpan], name: str) -> list[SeenSpan]:
    return [one for one in spans if one.name == name]


def _results(spans: Sequence[SeenSpan]) -> list[tuple[str, str]]:
    """Return (prompt hash, result) of each lookup."""
    found = [one.attributes for one in spans if names.CACHE_RESULT.name in one.attributes]
    return [(one["forwardscope.prompt_hash"], one["forwardscope.cache.result"]) for one in found]


def _look_up_batch(backend: BackendInstrumentation, *prompts: str) -> list[int]:
    return backend.cached_batch("next_token_dist", "base", prompts, 8, lambda indices: indices)


def test_miss(telemetry: InMemoryTelemetry) -> None:
    """The forward span is a child of the lookup, and both have the parts of the key."""
    backend = telemetry.instrumentation()
    backend.spans.name_model("some-model", "some-adapter", "some-provider")
    backend.cached(*_KEY, lambda: backend.report_tokens([5]))
    lookup, forward = spans = telemetry.spans()
    assert _tree(spans) == [("lookup miss", [("forward base", [])])]
    assert (lookup.links, forward.links) == ((), ())
    assert lookup.attributes == {
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.prompt_hash": prompt_hash("prompt"),
        "forwardscope.top_k": 8,
        "forwardscope.cache.result": "miss",
    }
    assert forward.attributes == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "some-provider",
        "gen_ai.request.model": "some-model",
        "gen_ai.usage.input_tokens": 5,
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.batch.size": 1,
    }
    assert {span.status for span in spans} == {"unset"}
    assert {span.kind for span in spans} == {"internal"}


def test_hit(telemetry: InMemoryTelemetry) -> None:
    """It has the times of the lookup, and a link to the forward call that it was spared."""
    backend = telemetry.instrumentation()
    backend.cached(*_KEY, lambda: "value")
    before = telemetry.clock.perf_counter_ns()
    assert backend.cached(*_KEY, lambda: "again") == "value"
    after = telemetry.clock.perf_counter_ns()
    first, forward, hit = spans = telemetry.spans()
    assert _tree(spans) == [("lookup miss", [("forward base", [])]), ("lookup hit", [])]
    assert hit.links == (forward.id,)
    assert hit.attributes == {**first.attributes, "forwardscope.cache.result": "hit"}
    assert hit.end_ms - hit.start_ms == 1
    assert after - before == 3_000_000


def test_batch(telemetry: InMemoryTelemetry) -> None:
    """It has a lookup for each prompt, each with a link to the forward call of its value."""
    backend = telemetry.instrumentation()
    _look_up_batch(backend, "known")
    first = _named(telemetry.spans(), "forward base")[0].id
    seen = len(telemetry.spans())
    _look_up_batch(backend, "known", "a", "b", "a")
    spans = telemetry.spans()[seen:]
    batch = spans[0]
    assert (batch.name, batch.parent) == ("lookup batch", None)
    assert {span.parent for span in spans[1:]} == {batch.id}
    assert Counter(span.name for span in spans[1:]) == {
        "lookup hit": 1,
        "lookup miss": 2,
        "lookup coalesced": 1,
        "forward base": 1,
    }
    known, a, b = map(prompt_hash, ("known", "a", "b"))
    assert Counter(_results(spans)) == Counter(
        [(known, "hit"), (a, "miss"), (b, "miss"), (a, "coalesced")]
    )
    (forward,) = _named(spans, "forward base")
    links = {span.name: span.links for span in spans}
    of_others = {"lookup miss": (forward.id,), "lookup coalesced": (forward.id,)}
    assert links == {"lookup hit": (first,), "forward base": (), "lookup batch": (), **of_others}
    assert forward.attributes["forwardscope.batch.size"] == 2
    assert batch.attributes == {
        "forwardscope.op": "next_token_dist",
        "forwardscope.view": "base",
        "forwardscope.top_k": 8,
        "forwardscope.batch.hits": 2,
        "forwardscope.batch.misses": 2,
    }


def test_lookups_of_a_batch_follow_one_another(telemetry: InMemoryTelemetry) -> None:
    """Each of 200 has an even share of the time up to the forward call, and leads to it."""
    backend = telemetry.instrumentation()
    _look_up_batch(backend, *(f"prompt {n}" for n in range(200)))
    batch, *lookups, forward = telemetry.spans()
    assert _results(lookups) == [(prompt_hash(f"prompt {n}"), "miss") for n in range(200)]
    assert {one.links for one in lookups} == {(forward.id,)}
    edges = [batch.start_ms, *(one.end_ms for one in lookups)]
    assert edges[:-1] == [one.start_ms for one in lookups]
    assert edges[-1] == pytest.approx(forward.start_ms)
    assert len({round(one.end_ms - one.start_ms, 6) for one in lookups}) == 1
    assert forward.attributes["forwardscope.batch.size"] == 200


def test_forward_span_is_current_during_the_compute(telemetry: InMemoryTelemetry) -> None:
    """Spans and lookups inside a compute are its children."""
    backend = telemetry.instrumentation()
    tracer = telemetry.tracer_provider.get_tracer("test")

    def compute() -> None:
        with tracer.start_as_current_span("mine"):
            backend.cached("op", "base", "inner", 0, lambda: None)
        backend.cached("op", "base", "inner", 0, lambda: None)

    backend.cached(*_KEY, compute)
    assert not trace.get_current_span().get_span_context().is_valid
    (outermost,) = _tree(telemetry.spans())
    assert outermost[0] == "lookup miss"
    ((name, below),) = outermost[1]
    assert name == "forward base"
    inner = ("lookup miss", [("forward base", [])])
    assert sorted(below) == [("lookup hit", []), ("mine", [inner])]


def test_current_span_is_the_parent_of_lookups(telemetry: InMemoryTelemetry) -> None:
    """It comes before the span that was current at `set_current_probe`."""
    backend = telemetry.instrumentation()
    tracer = telemetry.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("probe"):
        backend.set_current_probe("probe")
    with tracer.start_as_current_span("mine"):
        backend.cached(*_KEY, lambda: None)
        backend.cached(*_KEY, lambda: None)
        _look_up_batch(backend, "a")
    spans = telemetry.spans()
    (mine,) = _named(spans, "mine")
    below = [one.name for one in spans if one.parent == mine.id]
    assert sorted(below) == ["lookup batch", "lookup hit", "lookup miss"]
    (probe,) = _named(spans, "probe")
    assert [one for one in spans if one.parent == probe.id] == []
    assert len({one.trace for one in spans}) == 2


def test_parent_of_lookups_in_a_thread_without_a_span(
    telemetry: InMemoryTelemetry, in_thread: Any
) -> None:
    """It is the span that was current at `set_current_probe`; none outside any probe."""
    backend = telemetry.instrumentation()

    def look_up() -> None:
        backend.cached(*_KEY, lambda: None)
        backend.cached(*_KEY, lambda: None)
        _look_up_batch(backend, "a")

    with backend.spans.around(names.PROBE, "one", {}):
        backend.set_current_probe("probe")
        in_thread(look_up).result(_PATIENCE_S)
        backend.set_current_probe(None)
        in_thread(look_up).result(_PATIENCE_S)
    batch = ("lookup batch", [("lookup miss", []), ("forward base", [])])
    inside = [("lookup miss", [("forward base", [])]), ("lookup hit", []), batch]
    outside = [("lookup hit", [])] * 2 + [("lookup batch", [("lookup hit", [])])]
    assert _tree(telemetry.spans()) == [("probe one", inside), *outside]


def test_child_is_within_its_parent(telemetry: InMemoryTelemetry) -> None:
    """No span begins before its parent or ends after it."""
    backend = telemetry.instrumentation()

    def compute(indices: list[int]) -> list[int]:
        backend.cached(*_KEY, lambda: None)
        backend.cached(*_KEY, lambda: None)
        return indices

    with backend.spans.around(names.PROBE, "one", {}):
        _look_up_batch(backend, "a", "b")
        backend.cached_batch("op", "base", ["a", "b", "a"], 8, compute)
        _look_up_batch(backend, "b", "c", "b", "a", "c")
    spans = telemetry.spans()
    by_id = {span.id: span for span in spans}
    children = [(span, by_id[span.parent]) for span in spans if span.parent is not None]
    assert len(children) == len(spans) - 1
    for child, parent in children:
        assert parent.start_ms <= child.start_ms <= child.end_ms <= parent.end_ms


def test_spans_of_coalesced_lookups(
    telemetry: InMemoryTelemetry, in_thread: Any, until_waiting: Any
) -> None:
    """Of four threads that miss one key one has the forward span; the others link to it."""
    backend, start = telemetry.instrumentation(), threading.Barrier(4)

    def look_up() -> None:
        start.wait(_PATIENCE_S)
        backend.cached(*_KEY, lambda: until_waiting(backend, _KEY, 3))

    futures = [in_thread(look_up) for _ in range(4)]
    assert [future.result(_PATIENCE_S) for future in futures] == [None] * 4
    spans = telemetry.spans()
    digest = prompt_hash("prompt")
    assert Counter(_results(spans)) == {(digest, "miss"): 1, (digest, "coalesced"): 3}
    (forward,) = _named(spans, "forward base")
    assert {one.links for one in _named(spans, "lookup coalesced")} == {(forward.id,)}
    (miss,) = [one for one in spans if one.id == forward.parent]
    assert miss.attributes["forwardscope.cache.result"] == "miss"
    assert len(spans) == 5
    for one in spans:
        assert one.end_ms >= forward.end_ms


def test_names_are_printable_and_cut(telemetry: InMemoryTelemetry) -> None:
    """A name has at most 64 characters, and no control characters of a view or a probe."""
    backend = telemetry.instrumentation()
    with backend.spans.around(names.PROBE, "a\x1b[2Jb" + "c" * 100, {}):
        backend.cached("op", "view\n2_7", "prompt", 0, lambda: None)
    probe, _, forward = telemetry.spans()
    assert probe.name == "probe a\\x1b[2Jb" + "c" * (64 - len("probe a\\x1b[2Jb"))
    assert forward.name == "forward view\\n2"


def test_names_of_forward_spans_are_few(telemetry: InMemoryTelemetry) -> None:
    """Views of one family share a name; families beyond the first 20 are `forward other`."""
    backend = telemetry.instrumentation()
    for number in range(23):
        for parameter in (0.5, 0.7):
            backend.cached("op", f"family{number}_{parameter}", "prompt", 0, lambda: None)
    forwards = Counter(span.name for span in telemetry.spans() if "forward" in span.name)
    assert forwards == {**{f"forward family{n}": 2 for n in range(20)}, "forward other": 6}


def test_value_without_a_call_has_no_link(telemetry: InMemoryTelemetry) -> None:
    """A value that was put into the cache, or computed without a tracer, leads nowhere."""
    backend = telemetry.instrumentation()
    backend.cache.put(_KEY, "value")
    assert backend.cached(*_KEY, lambda: "again") == "value"
    assert [(one.name, one.links) for one in telemetry.spans()] == [("lookup hit", ())]


def test_lookup_of_a_batch_that_waits(
    telemetry: InMemoryTelemetry, in_thread: Any, until_waiting: Any
) -> None:
    """It begins after the batch's own forward call, and lasts as long as it waits."""
    backend, begun = telemetry.instrumentation(), threading.Event()

    def compute() -> None:
        begun.set()
        until_waiting(backend, _KEY)

    leader = in_thread(lambda: backend.cached(*_KEY, compute))
    assert begun.wait(_PATIENCE_S)
    _look_up_batch(backend, "prompt", "other", "prompt")
    leader.result(_PATIENCE_S)
    spans = telemetry.spans()
    (awaited,) = [one for one in _named(spans, "forward base") if one.parent == spans[0].id]
    (own,) = [one for one in _named(spans, "forward base") if one is not awaited]
    (miss,) = [one for one in _named(spans, "lookup miss") if one.links]
    repeated, waited = _named(spans, "lookup coalesced")
    assert repeated.links == waited.links == (awaited.id,)
    assert miss.end_ms <= repeated.start_ms <= repeated.end_ms <= own.start_ms
    assert own.end_ms <= waited.start_ms
    assert awaited.end_ms <= waited.end_ms


def test_hit_that_is_found_when_a_batch_claims_it(telemetry: InMemoryTelemetry, clock: Any) -> None:
    """It has no length, and ends after the call that computed its value meanwhile."""
    backend = BackendInstrumentation(tracer_provider=telemetry.tracer_provider, clock=clock)
    clock.step_ms = 1
    readings = 0

    def compute_meanwhile() -> None:
        nonlocal readings
        readings += 1
        if readings == 2:  # the batch has searched the cache
            backend.cached(*_KEY, lambda: "value")

    clock.on_reading = compute_meanwhile
    assert _look_up_batch(backend, "prompt", "prompt", "other") == ["value", "value", 2]
    assert backend.spans.flush(_PATIENCE_S)
    spans = telemetry.spans()
    hits = _named(spans, "lookup hit")
    calls = {one.id: one for one in _named(spans, "forward base")}
    assert len(hits) == 2
    for hit in hits:
        assert calls[hit.links[0]].end_ms <= hit.start_ms == pytest.approx(hit.end_ms, abs=1)


def test_spans_of_misses_are_made_before_hits(telemetry: InMemoryTelemetry) -> None:
    """The misses of a batch come first, whatever the order of its prompts."""
    memory = InMemorySpanExporter()
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(memory))
    backend = telemetry.instrumentation()
    _look_up_batch(backend, "known")
    _look_up_batch(backend, "known", "a", "known", "b")
    backend.close()
    made = [one.name for one in memory.get_finished_spans() if one.name.startswith("lookup ")]
    assert [one for one in made if one != "lookup batch"] == [
        *("lookup miss", "lookup miss", "lookup miss", "lookup hit", "lookup hit")
    ]
