"""Hit spans where processes fork and where they end: made once, or reported as lost."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from opentelemetry.context import Context

from forwardscope.core.keys import Question
from forwardscope.telemetry.hit_span_queue import FinishedLookup, HitSpanQueue

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.no_cover,  # a child hangs where another thread holds the lock of coverage's data
    # what Python 3.12 and later says of every fork beside threads, which is what is tested here
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

InChild = Callable[[Callable[[], object]], None]

_PATIENCE_S = 60.0


def _lookup(number: int = 0) -> FinishedLookup:
    return FinishedLookup(Question("op", "base", "hash", 0), "hit", number, number + 1, Context())


class _Spans:
    """Keeps the start times of the spans that are made, and holds `make` until it may go on."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.reached, self.go_on = threading.Event(), threading.Event()

    def make(self, lookup: FinishedLookup) -> None:
        self.reached.set()
        assert self.go_on.wait(_PATIENCE_S)
        self.made.append(lookup.start_ns)


def test_a_forked_child_makes_its_own_spans(in_child: InChild) -> None:
    """It begins with an empty queue and no worker; what the parent queued the parent makes once."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
    for number in range(3):
        queue.offer(_lookup(number))
    assert not queue.flush(0.0)
    assert spans.reached.wait(_PATIENCE_S)

    def child() -> None:
        # those of the parent may be in use by a thread that is not here
        spans.reached, spans.go_on = threading.Event(), threading.Event()
        spans.go_on.set()
        assert (queue.pending, len(queue)) == (0, 0)
        queue.offer(_lookup(9))
        assert queue.flush(_PATIENCE_S)
        assert spans.made == [9]
        queue.close(0.0)
        assert (queue.pending, queue.dropped) == (0, 0)

    in_child(child)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert spans.made == [0, 1, 2]


@pytest.mark.usefixtures("fast_switching")
def test_a_fork_beside_threads_that_offer(
    in_child: InChild, in_thread: Callable[[Callable[[], object]], object]
) -> None:
    """Whatever they were doing at the fork, the child's lookups do not wait, and have spans."""
    spans, ended = _Spans(), threading.Event()
    queue = HitSpanQueue(spans.make, None, capacity=1000)
    spans.go_on.set()

    def offer() -> None:
        while not ended.is_set():
            queue.offer(_lookup())
            queue.flush(0.0)

    def child() -> None:
        spans.reached, spans.go_on = threading.Event(), threading.Event()
        spans.go_on.set()
        dropped, made = queue.dropped, len(spans.made)
        for _ in range(100):
            queue.offer(_lookup())
        assert queue.flush(_PATIENCE_S)
        assert (queue.pending, queue.dropped, len(spans.made)) == (0, dropped, made + 100)

    for _ in range(4):
        in_thread(offer)
    try:
        for _ in range(20):
            in_child(child)
    finally:
        ended.set()


_PROGRAM = """
import sys, time
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from forwardscope import BackendInstrumentation

when, hits, seconds_each = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

class Count(SpanExporter):
    n = 0
    def export(self, spans):
        Count.n += sum(one.attributes.get("forwardscope.cache.result") == "hit" for one in spans)
        return SpanExportResult.SUCCESS
    def shutdown(self):
        print(Count.n)

class Slow(SpanProcessor):
    def on_start(self, span, parent_context=None):
        if span.attributes.get("forwardscope.cache.result") == "hit":
            time.sleep(seconds_each)

def provide():
    provider = TracerProvider()
    provider.add_span_processor(Slow())
    provider.add_span_processor(BatchSpanProcessor(Count()))
    trace.set_tracer_provider(provider)

if when == "before":
    provide()
backend = BackendInstrumentation()
if when != "before":
    provide()
if when == "a probe":
    backend.set_current_probe("probe")
for _ in range(hits + 1):
    backend.cached("op", "base", "the same", 8, lambda: 1.0)
if when == "an exception":
    raise ValueError
"""


def _run(when: str, hits: int, seconds_each: float) -> tuple[str, str]:
    """Run a program that does not close its backend; return what it wrote to stdout and stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, when, str(hits), str(seconds_each)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    return ran.stdout.strip(), ran.stderr


@pytest.mark.parametrize("when", ["before", "a probe", "a miss"])
def test_a_program_that_ends_without_close_loses_no_span(when: str) -> None:
    """They are made before the tracer provider shuts down, also one that was set later."""
    assert _run(when, 300, 0.0) == ("300", "")


def test_a_program_that_ends_by_an_exception_loses_no_span() -> None:
    """Its spans are made, and nothing is added to the traceback."""
    made, error = _run("an exception", 300, 0.0)
    assert made == "300"
    assert error.endswith("ValueError\n")
    assert "spans" not in error


def test_spans_that_cannot_be_made_before_the_program_ends_are_reported() -> None:
    """A processor that blocks delays the end by some seconds; then stderr has their number."""
    made, error = _run("before", 300, 3600.0)
    assert made == "0"
    assert "300 spans of cache hits were not made before the program ended" in error
    assert "close() the BackendInstrumentation" in error
