"""The queue of hit spans: bounded, counted, and without effect on the lookups that fill it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Any

import pytest
from opentelemetry.context import Context

from forwardscope.core.keys import Question
from forwardscope.telemetry.hit_span_queue import FinishedLookup, HitSpanQueue

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]

_PATIENCE_S = 60.0


def _lookup(number: int = 0) -> FinishedLookup:
    return FinishedLookup(Question("op", "base", "hash", 0), "hit", number, number + 1, Context())


class _Spans:
    """Keeps the start times of the spans that are made; holds or fails on demand."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.go_on = threading.Event()
        self.reached = threading.Event()
        self.go_on.set()
        self.failing: set[int] = set()

    def make(self, lookup: FinishedLookup) -> None:
        self.reached.set()
        assert self.go_on.wait(_PATIENCE_S)
        if lookup.start_ns in self.failing:
            raise OSError("no")
        self.made.append(lookup.start_ns)


def _offer_from_threads(in_thread: InThread, queue: HitSpanQueue, each: int) -> None:
    start = threading.Barrier(8)

    def work() -> None:
        start.wait(_PATIENCE_S)
        for _ in range(each):
            queue.offer(_lookup())

    for future in [in_thread(work) for _ in range(8)]:
        future.result(_PATIENCE_S)


def test_spans_are_made_in_order() -> None:
    """A flush returns when all of them are made, and nothing is pending then."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
    for number in range(1000):
        queue.offer(_lookup(number))
    assert queue.flush(_PATIENCE_S)
    assert spans.made == list(range(1000))
    assert (queue.pending, queue.elided, queue.dropped, len(queue)) == (0, 0, 0, 0)


def test_spans_are_made_without_a_flush() -> None:
    """The worker makes them by itself, and ends when it has been idle for a while."""
    before, spans = threading.active_count(), _Spans()
    queue = HitSpanQueue(spans.make, None)
    for number in range(2):
        queue.offer(_lookup(number))
        _until(lambda number=number: len(spans.made) > number)  # type: ignore[misc]
        _until(lambda: threading.active_count() <= before)
    assert spans.made == [0, 1]


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_drops(in_thread: InThread) -> None:
    """An offer never waits; of 800 from eight threads exactly those that fit are kept."""
    spans = _Spans()
    spans.go_on.clear()
    queue = HitSpanQueue(spans.make, None, capacity=100)
    queue.offer(_lookup())
    assert not queue.flush(0.0)
    assert spans.reached.wait(_PATIENCE_S)
    _offer_from_threads(in_thread, queue, 100)
    assert (queue.dropped, len(queue), queue.pending) == (700, 100, 101)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert (len(spans.made), queue.pending, queue.dropped) == (101, 0, 700)


def test_the_budget_is_exact_under_threads(in_thread: InThread) -> None:
    """Of 800 lookups 50 have spans and 750 are elided; a renewed budget allows 50 more."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, 50)
    for rounds in (1, 2):
        _offer_from_threads(in_thread, queue, 100)
        assert not queue.has_budget
        assert queue.flush(_PATIENCE_S)
        assert (len(spans.made), queue.elided) == (50 * rounds, 750 * rounds)
        queue.renew_budget()
        assert queue.has_budget


def test_a_span_that_cannot_be_made_costs_itself_alone() -> None:
    """It counts as dropped; the worker goes on with the next, and with later lookups."""
    spans = _Spans()
    spans.failing = {0, 3}
    queue = HitSpanQueue(spans.make, None)
    for number in range(5):
        queue.offer(_lookup(number))
    assert queue.flush(_PATIENCE_S)
    queue.offer(_lookup(5))
    assert queue.flush(_PATIENCE_S)
    assert (spans.made, queue.dropped, queue.pending) == ([1, 2, 4, 5], 2, 0)


def test_close_drops_what_time_is_too_short_for() -> None:
    """What is being made may still be made; the rest, and what comes later, is dropped."""
    spans = _Spans()
    spans.go_on.clear()
    queue = HitSpanQueue(spans.make, None)
    queue.offer(_lookup())
    queue.flush(0.0)
    assert spans.reached.wait(_PATIENCE_S)
    for _ in range(4):
        queue.offer(_lookup())
    queue.close(0.05)
    queue.close(0.05)
    queue.offer(_lookup())
    assert (queue.dropped, queue.pending) == (5, 1)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert (len(spans.made), queue.dropped, queue.pending) == (1, 5, 0)


def test_a_negative_budget_is_refused() -> None:
    """The message names the value and the way to fix it."""
    with pytest.raises(ValueError, match="0 or more, or None for no limit; got -1"):
        HitSpanQueue(_Spans().make, -1)


def test_counts_can_be_read_in_a_signal_handler() -> None:
    """A handler that reads them while its own thread queues a lookup neither waits nor harms."""
    spans, seen = _Spans(), []
    queue = HitSpanQueue(spans.make, None, capacity=100_000)
    before = signal.signal(signal.SIGPROF, lambda *_: seen.append(queue.pending))
    signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
    try:
        offered = 0
        while len(seen) < 20 and offered < 100_000:
            queue.offer(_lookup())
            offered += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert queue.flush(_PATIENCE_S)
    assert len(spans.made) + queue.dropped == offered
    assert min(seen) >= 0


def test_an_interrupt_at_any_moment_leaves_the_queue_usable(in_thread: InThread) -> None:
    """After Ctrl-C in an offer another thread can offer, and its span is made."""
    moment, came = 0, True
    while came:
        spans = _Spans()
        queue, came = HitSpanQueue(spans.make, None), False

        def look(frame: FrameType, event: str, _: Any, at: int = moment) -> None:
            nonlocal came, passed
            if event in ("call", "c_return") and "forwardscope" in frame.f_code.co_filename:
                passed += 1
                if passed > at and not came:
                    came = True
                    raise KeyboardInterrupt

        passed = 0
        with contextlib.suppress(KeyboardInterrupt):
            sys.setprofile(look)
            try:
                queue.offer(_lookup())
            finally:
                sys.setprofile(None)
        in_thread(lambda queue=queue: queue.offer(_lookup(7))).result(_PATIENCE_S)  # type: ignore[misc]
        assert queue.flush(_PATIENCE_S)
        assert 7 in spans.made
        assert queue.pending == 0
        moment += 1
    assert moment > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_spans() -> None:
    """It begins with an empty queue; what the parent queued is made by the parent, once."""
    spans = _Spans()
    spans.go_on.clear()
    queue = HitSpanQueue(spans.make, None)
    for number in range(3):
        queue.offer(_lookup(number))
    queue.flush(0.0)
    assert spans.reached.wait(_PATIENCE_S)
    pid = os.fork()
    if pid == 0:
        spans.go_on = threading.Event()
        spans.go_on.set()
        spans.made = []
        empty = (queue.pending, len(queue)) == (0, 0)
        queue.offer(_lookup(9))
        made = queue.flush(_PATIENCE_S) and spans.made == [9]
        os._exit(0 if empty and made else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert spans.made == [0, 1, 2]


_PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from forwardscope import BackendInstrumentation

class Count(SpanExporter):
    n = 0
    def export(self, spans):
        Count.n += sum("forwardscope.cache.result" in span.attributes for span in spans)
        return SpanExportResult.SUCCESS
    def shutdown(self):
        print(Count.n)

def provide():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Count()))
    trace.set_tracer_provider(provider)

late = sys.argv[1] == "late"
if not late:
    provide()
backend = BackendInstrumentation()
if late:
    provide()
    backend.set_current_probe("probe")
for _ in range(101):
    backend.cached("op", "base", "the same", 8, lambda: 1.0)
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_program_that_ends_without_close_loses_no_span(when: str) -> None:
    """They are made before the tracer provider shuts down, also one that was set later."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, when], capture_output=True, text=True, check=True
    )
    assert (ran.stdout.strip(), ran.stderr) == ("101", "")
