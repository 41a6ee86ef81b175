"""Samplers and processors that fail, and the counts of spans."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

from forwardscope import BackendInstrumentation
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import SpanFactory
from forwardscope.testing import StepClock

pytestmark = pytest.mark.timeout(900)

_PATIENCE_S = 60.0
_WARNING = "span not made: OSError in the tracer provider; lookups go on"


class _FailingSampler(Sampler):
    """A sampler that fails."""

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
    """Return a provider with a sampler or processor that fails."""
    if where == "sampler":
        return TracerProvider(sampler=_FailingSampler(), shutdown_on_exit=False)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_FailingStart() if where == "start" else _FailingEnd())
    return provider


@pytest.mark.parametrize("where", ["sampler", "start", "end"])
def test_provider_that_fails(where: str) -> None:
    """No lookup fails; each span counts as dropped, and one warning names the error."""
    backend = BackendInstrumentation(tracer_provider=_failing(where))
    with pytest.warns(RuntimeWarning, match=_WARNING) as caught:
        for _ in range(3):
            assert backend.cached("op", "base", "p", 0, lambda: "P") == "P"
        assert backend.cached_batch("op", "base", ["p", "q"], 0, lambda _: ["Q"]) == ["P", "Q"]
        assert backend.spans.flush(_PATIENCE_S)
    assert [str(one.message) for one in caught if "secret" in str(one.message)] == []
    assert len(caught) == 1
    assert backend.spans.outcomes() == {
        ("lookup", "dropped"): 5,
        ("batch", "dropped"): 1,
        ("forward", "dropped"): 2,
    }
    assert backend.stats.total_lookups == 5


@pytest.mark.parametrize("where", ["sampler", "start", "end"])
def test_provider_that_fails_where_warnings_are_errors(where: str) -> None:
    """Neither a lookup nor the thread that makes spans fails."""
    backend = BackendInstrumentation(tracer_provider=_failing(where))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert backend.cached("op", "base", "p", 0, lambda: "P") == "P"
        assert backend.spans.flush(_PATIENCE_S)
    assert backend.spans.outcomes()["lookup", "dropped"] == 3


@pytest.mark.usefixtures("fast_switching")
def test_counts_are_exact_under_threads(together: Any) -> None:
    """Each of 8,000 spans of eight threads is counted once."""
    factory, spans = SpanFactory(None, StepClock()), [*names.SPANS] * 200

    def work(_: int) -> None:
        for kind in spans:
            factory.count(kind, "ended")

    together(8, work)
    assert factory.outcomes() == {(kind.kind, "ended"): 1600 for kind in names.SPANS}


@pytest.mark.no_cover  # a child hangs where another thread holds the lock of coverage's data
@pytest.mark.usefixtures("fast_switching")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_counts_in_a_forked_child(in_thread: Any, in_child: Any) -> None:
    """A count does not wait for a thread that held the lock at the fork."""
    factory, ended = SpanFactory(None, StepClock()), threading.Event()

    def work() -> None:
        while not ended.is_set():
            factory.outcomes()

    def child() -> None:
        before = factory.outcomes()["forward", "ended"]
        factory.count(names.FORWARD, "ended")
        assert factory.outcomes()["forward", "ended"] == before + 1

    for _ in range(4):
        in_thread(work)
    try:
        for _ in range(20):
            in_child(child)
    finally:
        ended.set()


def test_counts_are_read_during_a_count() -> None:
    """A signal handler may read them while its own thread holds the lock."""
    factory, seen = SpanFactory(None, StepClock()), list[int]()

    class Name(str):
        __slots__ = ()

        def __hash__(self) -> int:
            if not seen:
                seen.append(-1)
                seen.append(factory.outcomes().total())
            return super().__hash__()

    factory.count(replace(names.FORWARD, kind=Name("forward")), "ended")
    assert (seen, factory.outcomes().total()) == ([-1, 0], 1)
