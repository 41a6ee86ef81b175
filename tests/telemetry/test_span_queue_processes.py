"""Hit spans of forked children, and at the end of a program."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from opentelemetry.context import Context

from forwardscope.core.keys import Question
from forwardscope.telemetry.span_queue import FinishedLookup, SpanQueue

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.no_cover,  # a child hangs where another thread holds the lock of coverage's data
    # Python 3.12 and later warn of a fork beside threads, which is what these tests do
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

_PATIENCE_S = 60.0


def _lookup(number: int = 0) -> FinishedLookup:
    return FinishedLookup(Question("op", "base", "hash", 0), "hit", number, number + 1, Context())


class _Spans:
    """Records the start times of the spans that are made; `make` blocks until `go_on` is set."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.reached, self.go_on = threading.Event(), threading.Event()

    def make(self, lookup: FinishedLookup) -> None:
        self.reached.set()
        assert self.go_on.wait(_PATIENCE_S)
        self.made.append(lookup.start_ns)


def test_forked_child_makes_its_own_spans(in_child: Any) -> None:
    """It begins with an empty queue and no worker; the parent makes the spans that it queued."""
    spans = _Spans()
    queue = SpanQueue(spans.make, None)
    for number in range(3):
        queue.offer(_lookup(number))
    assert not queue.flush(0.0)
    assert spans.reached.wait(_PATIENCE_S)

    def child() -> None:
        # a thread that the child does not have may hold the locks of the events
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


@pytest.mark.parametrize("when", ["before", "a probe", "a miss", "an exception"])
def test_program_that_ends_without_close_loses_no_span(when: str) -> None:
    """They are made before the tracer provider shuts down, also one that was set later."""
    made, error = _run(when, 300, 0.0)
    assert made == "300"
    assert "spans" not in error
    assert error == "" or (when == "an exception" and error.endswith("ValueError\n"))


def test_spans_that_are_not_made_before_the_program_ends() -> None:
    """A processor that blocks delays the end by 5 seconds at most; a warning has their number."""
    made, error = _run("before", 300, 3600.0)
    assert made == "0"
    assert "the program ended before 300 spans of lookups could be made" in error
    assert "close() the BackendInstrumentation" in error
