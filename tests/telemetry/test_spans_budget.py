"""Which lookups have a span: the budget, the sampler, no tracer, a full queue, and the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from forwardscope import BackendInstrumentation
from forwardscope.telemetry import names
from forwardscope.telemetry.hit_span_queue import CAPACITY
from forwardscope.telemetry.spans import DEFAULT_BUDGET
from forwardscope.testing import InMemoryTelemetry, SeenSpan

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]

_PATIENCE_S = 60.0
_KEY = ("next_token_dist", "base", "prompt", 8)


def _ask(backend: BackendInstrumentation, times: int = 1) -> None:
    for _ in range(times):
        backend.cached(*_KEY, lambda: "value")


def _ask_batch(backend: BackendInstrumentation, *prompts: str) -> None:
    backend.cached_batch("next_token_dist", "base", prompts, 8, lambda indices: indices)


def _results(spans: list[SeenSpan]) -> Counter[str]:
    lookups = [span for span in spans if span.name == "cache.lookup"]
    return Counter(span.attributes["forwardscope.cache.result"] for span in lookups)


@pytest.mark.parametrize(("budget", "shown"), [(0, 0), (3, 3), (5, 5), (None, 5)])
def test_the_budget_is_exact(telemetry: InMemoryTelemetry, budget: int | None, shown: int) -> None:
    """Of five hits so many are spans and the others are elided; misses always are spans."""
    backend = telemetry.instrumentation(span_budget=budget)
    _ask(backend, 6)
    backend.cached("op", "base", "prompt", 0, lambda: None)
    assert _results(telemetry.spans()) == +Counter(miss=2, hit=shown)
    assert backend.spans.elided() == 5 - shown
    assert backend.spans.outcomes() == +Counter(
        {
            ("cache.lookup", "ended"): 2 + shown,
            ("cache.lookup", "elided"): 5 - shown,
            ("forward", "ended"): 2,
        }
    )


def test_the_default_budget(telemetry: InMemoryTelemetry) -> None:
    """Without a word of it there are 2,000 hit spans."""
    backend = telemetry.instrumentation()
    _ask(backend, DEFAULT_BUDGET + 11)
    assert _results(telemetry.spans()) == Counter(miss=1, hit=2000)
    assert backend.spans.elided() == 10


def test_each_probe_has_a_budget_of_its_own(telemetry: InMemoryTelemetry) -> None:
    """It begins anew at each `set_current_probe`, also when a probe ends."""
    backend = telemetry.instrumentation(span_budget=3)
    _ask(backend)
    for probe in ("one", "one", None):
        backend.set_current_probe(probe)
        _ask(backend, 5)
    assert _results(telemetry.spans()) == Counter(miss=1, hit=9)
    assert backend.spans.elided() == 6


def test_the_budget_is_exact_under_threads(
    telemetry: InMemoryTelemetry, in_thread: InThread
) -> None:
    """Eight threads share it: of their 400 hits 100 are spans."""
    backend, start = telemetry.instrumentation(span_budget=100), threading.Barrier(8)
    _ask(backend)

    def ask() -> None:
        start.wait(_PATIENCE_S)
        _ask(backend, 50)

    for future in [in_thread(ask) for _ in range(8)]:
        future.result(_PATIENCE_S)
    assert _results(telemetry.spans()) == Counter(miss=1, hit=100)
    assert backend.spans.elided() == 300


def test_a_negative_budget_is_refused() -> None:
    """The message names the value and the way out."""
    with pytest.raises(ValueError, match="0 or more, or None for no limit; got -1"):
        BackendInstrumentation(span_budget=-1)


@pytest.mark.parametrize(("budget", "batches", "hits"), [(0, 0, 0), (1, 1, 1), (3, 1, 3)])
def test_a_batch_of_hits_alone(
    telemetry: InMemoryTelemetry, budget: int, batches: int, hits: int
) -> None:
    """Beyond the budget it has no span either; with a bit left it has what fits."""
    backend = telemetry.instrumentation(span_budget=budget)
    _ask_batch(backend, "a", "b", "c")
    before = len(telemetry.spans())
    _ask_batch(backend, "a", "b", "c")
    spans = telemetry.spans()[before:]
    assert Counter(span.name for span in spans) == +Counter(
        {"cache.lookup_batch": batches, "cache.lookup": hits}
    )
    assert {span.parent for span in spans[1:]} <= {span.id for span in spans[:1]}
    assert backend.spans.elided() == 3 - hits


def test_an_empty_batch_has_no_span(telemetry: InMemoryTelemetry) -> None:
    """Where nothing is asked nothing is shown."""
    backend = telemetry.instrumentation()
    _ask_batch(backend)
    assert telemetry.spans() == []
    assert backend.spans.outcomes() == Counter()


def test_what_the_sampler_declines_is_elided() -> None:
    """Each lookup is counted as left out on purpose, whatever its result."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    backend = BackendInstrumentation(tracer_provider=provider)
    _ask(backend, 3)
    _ask_batch(backend, "prompt", "a", "b")
    assert backend.spans.flush(_PATIENCE_S)
    assert backend.spans.outcomes() == {
        ("cache.lookup", "elided"): 6,
        ("cache.lookup_batch", "elided"): 1,
        ("forward", "elided"): 2,
    }
    assert backend.spans.elided() == backend.stats.total_lookups == 6


@pytest.mark.parametrize("provider", [None, trace.NoOpTracerProvider()], ids=["none", "no-op"])
def test_without_a_tracer_there_is_no_work(
    monkeypatch: pytest.MonkeyPatch, provider: trace.TracerProvider | None
) -> None:
    """No span, no thread, and nothing is counted, not even as elided."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    threads = set(threading.enumerate())
    backend = BackendInstrumentation(tracer_provider=provider, span_budget=1)
    backend.set_current_probe("probe")
    _ask(backend, 5)
    _ask_batch(backend, "prompt", "a")
    with backend.spans.around(names.PROBE_RUN, {}):
        assert not trace.get_current_span().is_recording()
    assert (backend.spans.active, backend.spans.used) == (False, False)
    assert backend.spans.outcomes() == Counter()
    backend.close()
    assert set(threading.enumerate()) <= threads
    assert backend.stats.total_lookups == 7


@pytest.mark.parametrize("notice", ["miss", "batch", "probe"])
def test_a_global_provider_is_noticed_later(
    monkeypatch: pytest.MonkeyPatch, telemetry: InMemoryTelemetry, clock: Any, notice: str
) -> None:
    """One set after the first lookups is used from the next probe on, or a miss or batch soon."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    backend = BackendInstrumentation(clock=clock)
    _ask(backend, 2)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: telemetry.tracer_provider)
    _ask(backend)
    backend.cached("op", "base", "too soon", 0, lambda: None)
    assert not backend.spans.active
    clock.advance_ms(0 if notice == "probe" else 100)
    if notice == "miss":
        backend.cached("op", "base", "new", 0, lambda: None)
    elif notice == "batch":
        _ask_batch(backend, "prompt")
    else:
        backend.set_current_probe("probe")
    assert backend.spans.active
    _ask(backend)
    backend.close()
    expected = {"miss": Counter(miss=1, hit=1), "batch": Counter(hit=2), "probe": Counter(hit=1)}
    assert _results(telemetry.spans()) == expected[notice]


class _Blocking(SpanProcessor):
    """A processor that holds the thread that ends a span."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        self.reached.set()
        assert self.go_on.wait(_PATIENCE_S)


def test_what_does_not_fit_the_queue_is_dropped(telemetry: InMemoryTelemetry) -> None:
    """A lookup never waits for a processor: the queue is filled, the rest counted as dropped."""
    backend, blocking = telemetry.instrumentation(span_budget=None), _Blocking()
    _ask(backend)
    telemetry.tracer_provider.add_span_processor(blocking)
    _ask(backend)
    backend.spans.flush(0.0)
    assert blocking.reached.wait(_PATIENCE_S)
    _ask(backend, CAPACITY + 10)
    counts = backend.spans.outcomes()
    assert counts["cache.lookup", "dropped"] == 10
    assert counts["cache.lookup", "pending"] == CAPACITY + 1
    backend.spans.close(timeout_s=0.05)
    assert backend.spans.outcomes()["cache.lookup", "dropped"] == CAPACITY + 10
    blocking.go_on.set()
    assert backend.spans.flush(_PATIENCE_S)
    assert backend.spans.outcomes() == {
        ("cache.lookup", "dropped"): CAPACITY + 10,
        ("cache.lookup", "ended"): 2,
        ("forward", "ended"): 1,
    }


def test_close_ends_all_spans(telemetry: InMemoryTelemetry) -> None:
    """After it nothing is pending, later lookups have no spans, and closing again is fine."""
    backend = telemetry.instrumentation()
    _ask(backend, 100)
    backend.close()
    expected = {("cache.lookup", "ended"): 100, ("forward", "ended"): 1}
    assert backend.spans.outcomes() == expected
    assert (backend.spans.active, backend.spans.used) == (False, True)
    _ask(backend)
    backend.set_current_probe("later")
    backend.cached("op", "base", "new", 0, lambda: None)
    _ask_batch(backend, "prompt", "new")
    backend.close()
    assert backend.spans.outcomes() == expected
    assert len(telemetry.spans()) == 101
