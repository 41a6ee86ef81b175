"""The queue of hit spans: bounds, counts, flush and close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.context import Context

from forwardscope.core.keys import Question
from forwardscope.telemetry.span_queue import FinishedLookup, SpanQueue

pytestmark = pytest.mark.timeout(900)

_PATIENCE_S = 60.0


def _lookup(number: int = 0) -> FinishedLookup:
    """Return a lookup with its number as the time of its start."""
    return FinishedLookup(Question("op", "base", "hash", 0), "hit", number, number + 1, Context())


class _Spans:
    """Records the start times of the spans that are made.

    Attributes:
        made: In order.
        go_on: While it is not set, `make` blocks.
        reached: Set when `make` is first called.
        failures: What `make` raises, by start time.
    """

    def __init__(self) -> None:
        self.made: list[int] = []
        self.go_on = threading.Event()
        self.reached = threading.Event()
        self.go_on.set()
        self.failures: dict[int, BaseException] = {}

    def make(self, lookup: FinishedLookup) -> None:
        self.reached.set()
        assert self.go_on.wait(_PATIENCE_S)
        if lookup.start_ns in self.failures:
            raise self.failures[lookup.start_ns]
        self.made.append(lookup.start_ns)

    def block(self, queue: SpanQueue) -> None:
        """Offer a lookup, and return when its span is being made, and blocks."""
        self.go_on.clear()
        queue.offer(_lookup())
        assert not queue.flush(0.0)
        assert self.reached.wait(_PATIENCE_S)


class _Yielding(int):
    """A bound that lets other threads run at each comparison."""

    def __le__(self, other: int) -> bool:
        time.sleep(0)
        return int(self) <= other

    def __sub__(self, other: int) -> _Yielding:
        return _Yielding(int(self) - other)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("fast_switching")
def test_spans_of_each_thread_are_made_in_its_order(together: Any) -> None:
    """No span is lost where eight threads start workers at once and flush."""
    for _ in range(10):
        made: list[int] = []

        def make(lookup: FinishedLookup, made: list[int] = made) -> None:
            time.sleep(0)
            made.append(lookup.start_ns)

        queue = SpanQueue(make, None)

        def work(me: int, queue: SpanQueue = queue) -> bool:
            for number in range(100):
                queue.offer(_lookup(me * 100 + number))
            return queue.flush(_PATIENCE_S)

        assert together(8, work) == [True] * 8
        assert sorted(made) == list(range(800))
        for me in range(8):
            assert [one for one in made if one // 100 == me] == [*range(me * 100, me * 100 + 100)]


def test_spans_are_made_without_a_flush() -> None:
    """The worker makes them, ends after two idle seconds, and starts again."""
    before, spans = set(threading.enumerate()), _Spans()
    queue = SpanQueue(spans.make, None)
    for number in range(2):
        queue.offer(_lookup(number))
        (worker,) = set(threading.enumerate()) - before
        _until(lambda number=number: len(spans.made) > number)  # type: ignore[misc]
        worker.join(_PATIENCE_S)
        assert not worker.is_alive()
    assert spans.made == [0, 1]


def test_flush_of_an_empty_queue() -> None:
    """Flush and close return at once and start no thread."""
    before, queue = set(threading.enumerate()), SpanQueue(_Spans().make, None)
    assert queue.flush(0.0)
    queue.close(0.0)
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("fast_switching")
def test_full_queue_drops(together: Any) -> None:
    """No offer waits for a span that blocks; of 800 from eight threads 100 are queued."""
    spans = _Spans()
    queue = SpanQueue(spans.make, None, capacity=_Yielding(100))
    spans.block(queue)
    together(8, lambda _: [queue.offer(_lookup()) for _ in range(100)])
    assert (queue.dropped, len(queue), queue.pending) == (700, 100, 101)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert (len(spans.made), queue.pending, queue.dropped) == (101, 0, 700)


def test_hits_do_not_displace_misses() -> None:
    """Misses are queued where hits are dropped, up to twice as many; the budget is for hits."""
    spans = _Spans()
    queue = SpanQueue(spans.make, 11, capacity=10)
    spans.block(queue)
    for number in range(1, 31):
        miss = number > 15
        queue.offer(_lookup(number)._replace(result="miss" if miss else "hit"))
    assert (len(queue), queue.dropped, queue.elided) == (20, 5, 5)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert spans.made == [0, *range(1, 11), *range(16, 26)]


@pytest.mark.usefixtures("fast_switching")
def test_budget_is_exact_under_threads(together: Any) -> None:
    """Of 800 lookups 50 have spans and 750 are elided; a renewed budget allows 50 more."""
    spans = _Spans()
    queue = SpanQueue(spans.make, _Yielding(50))
    for rounds in (1, 2):
        together(8, lambda _: [queue.offer(_lookup()) for _ in range(100)])
        assert not queue.has_budget
        assert queue.flush(_PATIENCE_S)
        assert (len(spans.made), queue.elided) == (50 * rounds, 750 * rounds)
        queue.renew_budget()
        assert queue.has_budget


@pytest.mark.usefixtures("fast_switching")
def test_each_lookup_is_counted_once_under_threads(together: Any, in_thread: Any) -> None:
    """Each lookup is made, elided or dropped; `pending` is never negative."""
    spans, ended = _Spans(), threading.Event()
    queue = SpanQueue(spans.make, 5000, capacity=200)

    def read() -> int:
        least = 0
        while not ended.is_set():
            least = min(least, queue.pending)
        return least

    reader = in_thread(read)
    together(8, lambda _: [queue.offer(_lookup()) for _ in range(1000)])
    assert queue.flush(_PATIENCE_S)
    ended.set()
    assert reader.result(_PATIENCE_S) == 0
    assert len(spans.made) + queue.elided + queue.dropped == 8000
    assert (queue.pending, len(queue)) == (0, 0)


def test_pending_counts_the_spans_to_be_made() -> None:
    """With three of ten made, seven are pending, and a flush returns False at its timeout."""
    spans = _Spans()
    fourth, go_on = threading.Event(), threading.Event()

    def make(lookup: FinishedLookup) -> None:
        if lookup.start_ns == 3:
            fourth.set()
            assert go_on.wait(_PATIENCE_S)
        spans.make(lookup)

    queue = SpanQueue(make, None)
    for number in range(10):
        queue.offer(_lookup(number))
    assert not queue.flush(0.0)
    assert fourth.wait(_PATIENCE_S)
    assert not queue.flush(0.05)
    assert (spans.made, queue.pending) == ([0, 1, 2], 7)
    go_on.set()
    assert queue.flush(_PATIENCE_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [OSError("no"), SystemExit(1)], ids=["error", "exit"])
def test_failed_span_is_dropped_alone(error: BaseException) -> None:
    """It counts as dropped, and all later spans are made."""
    spans = _Spans()
    spans.failures = {0: error, 3: error}
    queue = SpanQueue(spans.make, None)
    for number in range(5):
        queue.offer(_lookup(number))
    queue.flush(1.0)
    queue.offer(_lookup(5))
    queue.flush(1.0)
    assert (spans.made, queue.dropped, queue.pending) == ([1, 2, 4, 5], 2, 0)


def test_flush_makes_the_spans_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Offers raise nothing, and no span is lost."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    spans = _Spans()
    queue = SpanQueue(spans.make, None, capacity=4)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(5):
        queue.offer(_lookup(number))
    assert (queue.pending, queue.dropped) == (4, 1)
    assert queue.flush(_PATIENCE_S)
    assert (spans.made, queue.pending, queue.dropped) == ([0, 1, 2, 3], 0, 1)


def test_close_drops_the_rest_at_its_timeout() -> None:
    """The span that is being made is not dropped; later offers are."""
    spans = _Spans()
    queue = SpanQueue(spans.make, None)
    spans.block(queue)
    for _ in range(4):
        queue.offer(_lookup())
    queue.close(0.05)
    queue.close(0.05)
    queue.offer(_lookup())
    assert (queue.dropped, queue.pending) == (5, 1)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert (len(spans.made), queue.dropped, queue.pending) == (1, 5, 0)


def test_close_makes_the_queued_spans() -> None:
    """They are made in order; only a later offer is dropped."""
    spans = _Spans()
    queue = SpanQueue(spans.make, None)
    for number in range(600):
        queue.offer(_lookup(number))
    queue.close(_PATIENCE_S)
    queue.offer(_lookup())
    assert spans.made == list(range(600))
    assert (queue.dropped, queue.pending) == (1, 0)


def test_flush_does_not_wait_for_dropped_spans(in_thread: Any) -> None:
    """It returns when the last span that a close did not drop is made."""
    spans = _Spans()
    queue = SpanQueue(spans.make, None)
    spans.block(queue)
    queue.offer(_lookup())
    flushed = in_thread(lambda: queue.flush(10.0))
    time.sleep(0.05)
    queue.close(0.0)
    assert queue.dropped == 1
    spans.go_on.set()
    assert flushed.result(_PATIENCE_S)


@pytest.mark.parametrize("fill", ["first", "queued", "elided", "dropped"])
def test_signal_handler_reads_the_counts(at_moment: Any, fill: str) -> None:
    """At any moment of an offer it reads the counts of before or after, without a deadlock."""

    def read_at(moment: int) -> bool:
        spans = _Spans()
        queue = SpanQueue(spans.make, 1 if fill == "elided" else None, capacity=2)
        spans.go_on.clear()
        if fill != "first":
            spans.block(queue)
        if fill == "dropped":
            for _ in range(2):
                queue.offer(_lookup())
        before = (queue.pending, queue.elided, queue.dropped)
        seen: list[tuple[int, int, int]] = []

        def read() -> None:
            seen.append((queue.pending, queue.elided, queue.dropped))

        came = at_moment(moment, read, lambda: queue.offer(_lookup()))
        after = (queue.pending, queue.elided, queue.dropped)
        assert sum(after) == sum(before) + 1
        assert all(one in (before, after) for one in seen)
        spans.go_on.set()
        assert queue.flush(_PATIENCE_S)
        return came

    moment = 0
    while read_at(moment):
        moment += 1
    assert moment > 1


def test_interrupt_at_any_moment(at_moment: Any, in_thread: Any) -> None:
    """After an interrupt of an offer another thread can offer, and its span is made."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    def interrupt_at(moment: int) -> bool:
        spans = _Spans()
        queue = SpanQueue(spans.make, 2)
        came = at_moment(moment, interrupt, lambda: queue.offer(_lookup()))
        in_thread(lambda: queue.offer(_lookup(7))).result(_PATIENCE_S)
        assert queue.flush(_PATIENCE_S)
        assert spans.made in ([7], [0, 7])
        assert (queue.pending, queue.elided, queue.dropped) == (0, 0, 0)
        return came

    moment = 0
    while interrupt_at(moment):
        moment += 1
    assert moment > 3
