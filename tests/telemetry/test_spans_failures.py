"""Spans of failed lookups, and of keys that are not valid UTF-8."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forwardscope.core.keys import prompt_hash
from forwardscope.telemetry import names
from forwardscope.testing import InMemoryTelemetry

_KEY = ("next_token_dist", "base", "prompt", 8)


def test_failure_has_no_message(telemetry: InMemoryTelemetry) -> None:
    """Lookup and forward span have the class of the exception; no span has its message."""
    memory = InMemorySpanExporter()
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(memory))
    backend, error = telemetry.instrumentation(), KeyError("a secret prompt")

    def compute(*_: object) -> Any:
        raise error

    with pytest.raises(KeyError) as caught:
        backend.cached(*_KEY, compute)
    assert caught.value is error
    with backend.spans.around(names.PROBE, "one", {}), pytest.raises(KeyError):
        backend.cached(*_KEY, compute)
    with pytest.raises(KeyError), backend.spans.around(names.SUITE, "nightly", {}):
        raise error
    failed = Counter((one.name, one.status) for one in telemetry.spans())
    assert failed == {
        ("lookup error", "error"): 2,
        ("forward base", "error"): 2,
        ("probe one", "unset"): 1,
        ("suite nightly", "error"): 1,
    }
    for span in memory.get_finished_spans():
        assert (span.events, span.status.description) == ((), None)
        assert "secret" not in span.to_json()
        expected = "KeyError" if span.status.status_code.name == "ERROR" else None
        assert (span.attributes or {}).get("error.type") == expected


def test_failed_batch(telemetry: InMemoryTelemetry) -> None:
    """The batch, the forward span and the misses are errors; hits stay hits."""
    backend = telemetry.instrumentation()
    backend.cached("next_token_dist", "base", "known", 8, lambda: None)
    seen = len(telemetry.spans())
    with pytest.raises(RuntimeError, match="1 values for 2 prompts"):
        backend.cached_batch("next_token_dist", "base", ["known", "a", "b"], 8, lambda _: [0])
    spans = telemetry.spans()[seen:]
    failed = [(one.name, one.status, one.attributes.get("error.type")) for one in spans]
    assert Counter(failed) == {
        ("lookup batch", "error", "RuntimeError"): 1,
        ("lookup hit", "unset", None): 1,
        ("lookup error", "error", "RuntimeError"): 2,
        ("forward base", "error", "RuntimeError"): 1,
    }
    known, a, b = map(prompt_hash, ("known", "a", "b"))
    results = Counter(
        (one.attributes["forwardscope.prompt_hash"], one.attributes["forwardscope.cache.result"])
        for one in spans
        if names.CACHE_RESULT.name in one.attributes
    )
    assert results == {(known, "hit"): 1, (a, "miss"): 1, (b, "miss"): 1}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_no_span_stays_current_after_a_failure(
    telemetry: InMemoryTelemetry, error: BaseException
) -> None:
    """All spans have ended, and the next lookup has no parent."""
    backend = telemetry.instrumentation()

    def compute(*_: object) -> Any:
        raise error

    for look_up in (
        lambda: backend.cached(*_KEY, compute),
        lambda: backend.cached_batch("op", "base", ["a", "b"], 0, compute),
    ):
        with pytest.raises(type(error)) as caught:
            look_up()
        assert caught.value is error
        assert not trace.get_current_span().get_span_context().is_valid
    backend.cached(*_KEY, lambda: None)
    spans = telemetry.spans()
    roots = [one.name for one in spans if one.parent is None]
    assert roots == ["lookup error", "lookup batch", "lookup miss"]
    outcomes = {("lookup", "ended"): 4, ("forward", "ended"): 3, ("batch", "ended"): 1}
    assert backend.spans.outcomes() == outcomes


def test_close_while_a_lookup_waits(
    telemetry: InMemoryTelemetry, in_thread: Any, until_waiting: Any
) -> None:
    """A waiter computes after its leader failed, also after `close`."""
    backend, begun = telemetry.instrumentation(), threading.Event()

    def fail() -> None:
        begun.set()
        until_waiting(backend, _KEY)
        backend.close()
        raise ValueError

    leader = in_thread(lambda: backend.cached(*_KEY, fail))
    assert begun.wait(60)
    assert backend.cached(*_KEY, lambda: "value") == "value"
    assert isinstance(leader.exception(60), ValueError)


def test_lone_surrogates_are_escaped(telemetry: InMemoryTelemetry) -> None:
    """Op and view may have them, which no exporter could encode."""
    backend = telemetry.instrumentation()
    lone = "\udc80"
    for _ in range(2):
        backend.cached(lone, lone, lone, 0, lambda: None)
        backend.cached_batch(lone, lone, [lone, "other"], 1, lambda indices: indices)
    spans = telemetry.spans()
    assert len(spans) == 10
    for span in spans:
        assert span.attributes["forwardscope.op"] == "\\udc80"
        assert span.attributes["forwardscope.view"] == "\\udc80"


def test_close_during_a_batch(telemetry: InMemoryTelemetry) -> None:
    """Its lookups count as dropped, as the queue is closed."""
    backend = telemetry.instrumentation()

    def compute(indices: list[int]) -> list[int]:
        backend.close()
        return indices

    assert backend.cached_batch("op", "base", ["a", "b", "a"], 0, compute) == [0, 1, 0]
    assert backend.spans.outcomes() == {
        ("lookup", "dropped"): 3,
        ("batch", "ended"): 1,
        ("forward", "ended"): 1,
    }
