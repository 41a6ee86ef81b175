"""Spans whose sampler or processor fails, and the counts of what became of spans."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

from forwardscope import BackendInstrumentation
from forwardscope.telemetry.span_factory import SpanFactory
from forwardscope.testing import InMemoryTelemetry, StepClock

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
InChild = Callable[[Callable[[], object]], None]
Together = Callable[[int, Callable[[int], Any]], list[Any]]
OnTimer = Callable[[Callable[[], None]], None]

_PATIENCE_S = 60.0
_WARNING = "span not made: OSError in the tracer provider; lookups go on"


class _FailingSampler(Sampler):
    """A sampler that cannot decide."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise OSError("a secret prompt")

    def get_description(self) -> str:
        return "failing"


class _FailingStart(SpanProcessor):
    """A processor that fails when a span starts."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        raise OSError("a secret prompt")


class _FailingEnd(SpanProcessor):
    """A processor that fails when a span ends."""

    def on_end(self, span: ReadableSpan) -> None:
        raise OSError("a secret prompt")


def _failing(where: str) -> TracerProvider:
    """Return a provider of which one part fails."""
    if where == "sampler":
        return TracerProvider(sampler=_FailingSampler(), shutdown_on_exit=False)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_FailingStart() if where == "start" else _FailingEnd())
    return provider


@pytest.mark.parametrize("where", ["sampler", "start", "end"])
def test_a_provider_that_fails_costs_no_lookup(where: str) -> None:
    """Each span counts as dropped, one warning without the message names the error's class."""
    backend = BackendInstrumentation(tracer_provider=_failing(where))
    with pytest.warns(RuntimeWarning, match=_WARNING) as caught:
        for _ in range(3):
            assert backend.cached("op", "base", "p", 0, lambda: "P") == "P"
        assert backend.cached_batch("op", "base", ["p", "q"], 0, lambda _: ["Q"]) == ["P", "Q"]
        assert backend.spans.flush(_PATIENCE_S)
    assert [str(one.message) for one in caught if "secret" in str(one.message)] == []
    assert len(caught) == 1
    assert backend.spans.outcomes() == {
        ("cache.lookup", "dropped"): 5,
        ("cache.lookup_batch", "dropped"): 1,
        ("forward", "dropped"): 2,
    }
    assert backend.stats.total_lookups == 5


@pytest.mark.parametrize("where", ["sampler", "start", "end"])
def test_a_provider_that_fails_where_warnings_are_errors(where: str) -> None:
    """The spans are only counted: neither a lookup nor the thread that makes spans fails."""
    backend = BackendInstrumentation(tracer_provider=_failing(where))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert backend.cached("op", "base", "p", 0, lambda: "P") == "P"
        assert backend.spans.flush(_PATIENCE_S)
    assert backend.spans.outcomes()["cache.lookup", "dropped"] == 3


def test_a_processor_that_fails_once_costs_one_span(telemetry: InMemoryTelemetry) -> None:
    """The spans of later hits are made."""
    backend, failures = telemetry.instrumentation(), [OSError("no")]

    class FailingOnce(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            if failures:
                raise failures.pop()

    backend.cached("op", "base", "p", 0, lambda: None)
    telemetry.tracer_provider.add_span_processor(FailingOnce())
    with pytest.warns(RuntimeWarning, match=_WARNING):
        for _ in range(3):
            backend.cached("op", "base", "p", 0, lambda: None)
        assert backend.spans.flush(_PATIENCE_S)
    outcomes = backend.spans.outcomes()
    assert (outcomes["cache.lookup", "ended"], outcomes["cache.lookup", "dropped"]) == (3, 1)


@pytest.mark.usefixtures("fast_switching")
def test_counts_are_exact_under_threads(together: Together) -> None:
    """Of eight threads' 8,000 spans of a thousand names each is counted once."""
    factory, spans = SpanFactory(None, StepClock()), [f"span {number}" for number in range(1000)]

    def work(_: int) -> None:
        for name in spans:
            factory.count(name, "ended")

    together(8, work)
    assert factory.outcomes() == {(name, "ended"): 8 for name in spans}


def test_counts_can_be_read_by_a_signal_handler(on_timer: OnTimer) -> None:
    """It does not wait for its own thread, which is counting or reading, and reads the same."""
    factory, seen, counted = SpanFactory(None, StepClock()), list[int](), 0
    on_timer(lambda: seen.append(factory.outcomes().total()))
    while len(seen) < 50:
        factory.count(f"span {counted % 100}", "ended")
        counted += 1
        assert factory.outcomes().total() == counted
    assert seen == sorted(seen)


@pytest.mark.no_cover  # a child hangs where another thread holds the lock of coverage's data
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_counts_in_a_forked_child(in_thread: InThread, in_child: InChild) -> None:
    """Where another thread was counting at the fork, a child's count does not wait for it."""
    factory, ended = SpanFactory(None, StepClock()), threading.Event()

    def work() -> None:
        while not ended.is_set():
            factory.outcomes()

    def child() -> None:
        before = factory.outcomes()["forward", "ended"]
        factory.count("forward", "ended")
        assert factory.outcomes()["forward", "ended"] == before + 1

    for _ in range(4):
        in_thread(work)
    try:
        for _ in range(20):
            in_child(child)
    finally:
        ended.set()
