"""Which lookups have a span: budget, sampler, tracer, full queue and close."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from forwardscope import BackendInstrumentation
from forwardscope.telemetry import names
from forwardscope.telemetry.span_queue import CAPACITY
from forwardscope.telemetry.spans import DEFAULT_BUDGET
from forwardscope.testing import InMemoryTelemetry, SeenSpan

pytestmark = pytest.mark.timeout(900)

_PATIENCE_S = 60.0
_KEY = ("next_token_dist", "base", "prompt", 8)


def _look_up(backend: BackendInstrumentation, times: int = 1) -> None:
    for _ in range(times):
        backend.cached(*_KEY, lambda: "value")


def _look_up_batch(backend: BackendInstrumentation, *prompts: str) -> None:
    backend.cached_batch("next_token_dist", "base", prompts, 8, lambda indices: indices)


def _results(spans: list[SeenSpan]) -> Counter[str]:
    lookups = [span for span in spans if names.kind_of(span.name) == "lookup"]
    return Counter(span.attributes["forwardscope.cache.result"] for span in lookups)


@pytest.mark.parametrize(("budget", "spans"), [(0, 0), (3, 3), (5, 5), (None, 5)])
def test_budget_is_exact(telemetry: InMemoryTelemetry, budget: int | None, spans: int) -> None:
    """The hits over the budget are elided; misses always have spans."""
    backend = telemetry.instrumentation(span_budget=budget)
    _look_up(backend, 6)
    backend.cached("op", "base", "prompt", 0, lambda: None)
    assert _results(telemetry.spans()) == +Counter(miss=2, hit=spans)
    assert backend.spans.elided() == 5 - spans
    assert backend.spans.outcomes() == +Counter(
        {
            ("lookup", "ended"): 2 + spans,
            ("lookup", "elided"): 5 - spans,
            ("forward", "ended"): 2,
        }
    )


def test_default_budget(telemetry: InMemoryTelemetry) -> None:
    """It is 2,000 hit spans."""
    backend = telemetry.instrumentation()
    _look_up(backend, DEFAULT_BUDGET + 11)
    assert _results(telemetry.spans()) == Counter(miss=1, hit=2000)
    assert backend.spans.elided() == 10


def test_each_probe_has_its_own_budget(telemetry: InMemoryTelemetry) -> None:
    """A new budget begins at each `set_current_probe`, also at the end of a probe."""
    backend = telemetry.instrumentation(span_budget=3)
    _look_up(backend)
    for probe in ("one", "one", None):
        backend.set_current_probe(probe)
        _look_up(backend, 5)
    assert _results(telemetry.spans()) == Counter(miss=1, hit=9)
    assert backend.spans.elided() == 6


def test_negative_budget_is_refused() -> None:
    """The message names the value and the fix."""
    with pytest.raises(ValueError, match="0 or more, or None for no limit; got -1"):
        BackendInstrumentation(span_budget=-1)


@pytest.mark.parametrize(("budget", "batches", "hits"), [(0, 0, 0), (1, 1, 1), (3, 1, 3)])
def test_batch_of_hits(telemetry: InMemoryTelemetry, budget: int, batches: int, hits: int) -> None:
    """Over the budget the batch is elided with its hits; else the budget bounds them."""
    backend = telemetry.instrumentation(span_budget=budget)
    _look_up_batch(backend, "a", "b", "c")
    before = len(telemetry.spans())
    assert _results(telemetry.spans()) == {"miss": 3}
    _look_up_batch(backend, "a", "b", "c")
    spans = telemetry.spans()[before:]
    assert Counter(span.name for span in spans) == +Counter(
        {"lookup batch": batches, "lookup hit": hits}
    )
    assert {span.parent for span in spans[1:]} <= {span.id for span in spans[:1]}
    assert backend.spans.elided() == 3 - hits
    assert backend.spans.outcomes()["batch", "elided"] == 1 - batches


def test_empty_batch_has_no_span(telemetry: InMemoryTelemetry) -> None:
    """No span is made or counted."""
    backend = telemetry.instrumentation()
    _look_up_batch(backend)
    assert telemetry.spans() == []
    assert backend.spans.outcomes() == Counter()


def test_spans_that_are_not_sampled_are_elided() -> None:
    """Each lookup counts as elided, hit or miss."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    backend = BackendInstrumentation(tracer_provider=provider)
    _look_up(backend, 3)
    _look_up_batch(backend, "prompt", "a", "b")
    assert backend.spans.flush(_PATIENCE_S)
    assert backend.spans.outcomes() == {
        ("lookup", "elided"): 6,
        ("batch", "elided"): 1,
        ("forward", "elided"): 2,
    }
    assert backend.spans.elided() == backend.stats.total_lookups == 6


@pytest.mark.parametrize("provider", [None, trace.NoOpTracerProvider()], ids=["none", "no-op"])
def test_without_a_tracer_there_is_no_work(
    monkeypatch: pytest.MonkeyPatch, provider: trace.TracerProvider | None
) -> None:
    """No span is made or counted, and no thread is started."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    threads = set(threading.enumerate())
    backend = BackendInstrumentation(tracer_provider=provider, span_budget=1)
    backend.set_current_probe("probe")
    _look_up(backend, 5)
    _look_up_batch(backend, "prompt", "a")
    with backend.spans.around(names.PROBE, "one", {}):
        assert not trace.get_current_span().is_recording()
    assert (backend.spans.active, backend.spans.used) == (False, False)
    assert backend.spans.outcomes() == Counter()
    backend.close()
    assert set(threading.enumerate()) <= threads
    assert backend.stats.total_lookups == 7


@pytest.mark.parametrize("used_by", ["miss", "batch", "probe"])
def test_global_provider_that_is_set_later(
    monkeypatch: pytest.MonkeyPatch, telemetry: InMemoryTelemetry, clock: Any, used_by: str
) -> None:
    """It is used from the next probe on, or from a miss or batch 0.1 s later."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    backend = BackendInstrumentation(clock=clock)
    _look_up(backend, 2)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: telemetry.tracer_provider)
    _look_up(backend)
    backend.cached("op", "base", "too soon", 0, lambda: None)
    assert not backend.spans.active
    clock.advance_ms(0 if used_by == "probe" else 100)
    if used_by == "miss":
        backend.cached("op", "base", "new", 0, lambda: None)
    elif used_by == "batch":
        _look_up_batch(backend, "prompt")
    else:
        backend.set_current_probe("probe")
    assert backend.spans.active
    _look_up(backend)
    backend.close()
    expected = {"miss": Counter(miss=1, hit=1), "batch": Counter(hit=2), "probe": Counter(hit=1)}
    assert _results(telemetry.spans()) == expected[used_by]


class _Blocking(SpanProcessor):
    """A processor that blocks at the end of a span."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        self.reached.set()
        assert self.go_on.wait(_PATIENCE_S)


def test_full_queue_drops_spans(telemetry: InMemoryTelemetry) -> None:
    """A lookup never waits for a processor; the spans over the capacity count as dropped."""
    backend, blocking = telemetry.instrumentation(span_budget=None), _Blocking()
    _look_up(backend)
    telemetry.tracer_provider.add_span_processor(blocking)
    _look_up(backend)
    backend.spans.flush(0.0)
    assert blocking.reached.wait(_PATIENCE_S)
    _look_up(backend, CAPACITY + 10)
    counts = backend.spans.outcomes()
    assert counts["lookup", "dropped"] == 10
    assert counts["lookup", "pending"] == CAPACITY + 1
    backend.spans.close(timeout_s=0.05)
    assert backend.spans.outcomes()["lookup", "dropped"] == CAPACITY + 10
    blocking.go_on.set()
    assert backend.spans.flush(_PATIENCE_S)
    assert backend.spans.outcomes() == {
        ("lookup", "dropped"): CAPACITY + 10,
        ("lookup", "ended"): 2,
        ("forward", "ended"): 1,
    }


def test_close_makes_all_spans(telemetry: InMemoryTelemetry) -> None:
    """Later lookups have no spans; `close` may be called twice."""
    backend = telemetry.instrumentation()
    _look_up(backend, 100)
    backend.close()
    expected = {("lookup", "ended"): 100, ("forward", "ended"): 1}
    assert backend.spans.outcomes() == expected
    assert (backend.spans.active, backend.spans.used) == (False, True)
    _look_up(backend)
    backend.set_current_probe("later")
    backend.cached("op", "base", "new", 0, lambda: None)
    _look_up_batch(backend, "prompt", "new")
    backend.close()
    assert backend.spans.outcomes() == expected
    assert len(telemetry.spans()) == 101
