"""The queue of hit spans: bounded, counted, and without effect on the lookups that fill it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from opentelemetry.context import Context

from forwardscope.core.keys import Question
from forwardscope.telemetry.hit_span_queue import FinishedLookup, HitSpanQueue

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
Together = Callable[[int, Callable[[int], Any]], list[Any]]
AtMoment = Callable[[int, Callable[[], None], Callable[[], Any]], bool]

_PATIENCE_S = 60.0


def _lookup(number: int = 0) -> FinishedLookup:
    """Return a lookup that can be told apart by the time of its start."""
    return FinishedLookup(Question("op", "base", "hash", 0), "hit", number, number + 1, Context())


class _Spans:
    """Keeps the start times of the spans that are made.

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

    def block(self, queue: HitSpanQueue) -> None:
        """Offer a lookup, and return when its span is being made, and blocks."""
        self.go_on.clear()
        queue.offer(_lookup())
        assert not queue.flush(0.0)
        assert self.reached.wait(_PATIENCE_S)


class _Yielding(int):
    """A bound that lets other threads run wherever it is compared."""

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


def test_spans_are_made_in_order() -> None:
    """A flush returns when all of them are made, and nothing is pending then."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
    for number in range(1000):
        queue.offer(_lookup(number))
    assert queue.flush(_PATIENCE_S)
    assert spans.made == list(range(1000))
    assert (queue.pending, queue.elided, queue.dropped, len(queue)) == (0, 0, 0, 0)


@pytest.mark.usefixtures("fast_switching")
def test_spans_of_each_thread_are_made_in_its_order(together: Together) -> None:
    """Eight threads that start workers at once, and flush, cost no span and no order."""
    for _ in range(10):
        made: list[int] = []

        def make(lookup: FinishedLookup, made: list[int] = made) -> None:
            time.sleep(0)
            made.append(lookup.start_ns)

        queue = HitSpanQueue(make, None)

        def work(me: int, queue: HitSpanQueue = queue) -> bool:
            for number in range(100):
                queue.offer(_lookup(me * 100 + number))
            return queue.flush(_PATIENCE_S)

        assert together(8, work) == [True] * 8
        assert sorted(made) == list(range(800))
        for me in range(8):
            assert [one for one in made if one // 100 == me] == [*range(me * 100, me * 100 + 100)]


def test_spans_are_made_without_a_flush() -> None:
    """The worker makes them, ends when it has been idle for a while, and is started again."""
    before, spans = set(threading.enumerate()), _Spans()
    queue = HitSpanQueue(spans.make, None)
    for number in range(2):
        queue.offer(_lookup(number))
        (worker,) = set(threading.enumerate()) - before
        _until(lambda number=number: len(spans.made) > number)  # type: ignore[misc]
        worker.join(_PATIENCE_S)
        assert not worker.is_alive()
    assert spans.made == [0, 1]


def test_flush_of_an_empty_queue() -> None:
    """It returns at once and starts no thread; so does a close."""
    before, queue = set(threading.enumerate()), HitSpanQueue(_Spans().make, None)
    assert queue.flush(0.0)
    queue.close(0.0)
    assert set(threading.enumerate()) <= before


def test_flush_gives_up_at_its_timeout() -> None:
    """It returns False while a span is still to be made, and True when it is made."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
    spans.block(queue)
    assert not queue.flush(0.05)
    assert queue.pending == 1
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert queue.pending == 0


@pytest.mark.usefixtures("fast_switching")
def test_a_full_queue_drops(together: Together) -> None:
    """No offer waits for a span that blocks; of 800 from eight threads 100 are kept."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None, capacity=_Yielding(100))
    spans.block(queue)
    together(8, lambda _: [queue.offer(_lookup()) for _ in range(100)])
    assert (queue.dropped, len(queue), queue.pending) == (700, 100, 101)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert (len(spans.made), queue.pending, queue.dropped) == (101, 0, 700)


@pytest.mark.usefixtures("fast_switching")
def test_the_budget_is_exact_under_threads(together: Together) -> None:
    """Of 800 lookups 50 have spans and 750 are elided; a renewed budget allows 50 more."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, _Yielding(50))
    for rounds in (1, 2):
        together(8, lambda _: [queue.offer(_lookup()) for _ in range(100)])
        assert not queue.has_budget
        assert queue.flush(_PATIENCE_S)
        assert (len(spans.made), queue.elided) == (50 * rounds, 750 * rounds)
        queue.renew_budget()
        assert queue.has_budget


@pytest.mark.usefixtures("fast_switching")
def test_nothing_is_lost_or_counted_twice_under_threads(
    together: Together, in_thread: InThread
) -> None:
    """Of eight threads' lookups each is made, elided or dropped; pending is never negative."""
    spans, ended = _Spans(), threading.Event()
    queue = HitSpanQueue(spans.make, 5000, capacity=200)

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


def test_pending_counts_only_spans_that_are_not_made() -> None:
    """With three of ten made, and the fourth being made, seven are pending."""
    spans = _Spans()
    fourth, go_on = threading.Event(), threading.Event()

    def make(lookup: FinishedLookup) -> None:
        if lookup.start_ns == 3:
            fourth.set()
            assert go_on.wait(_PATIENCE_S)
        spans.make(lookup)

    queue = HitSpanQueue(make, None)
    for number in range(10):
        queue.offer(_lookup(number))
    assert not queue.flush(0.0)
    assert fourth.wait(_PATIENCE_S)
    assert (spans.made, queue.pending) == ([0, 1, 2], 7)
    go_on.set()
    assert queue.flush(_PATIENCE_S)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [OSError("no"), SystemExit(1)], ids=["error", "exit"])
def test_a_span_that_cannot_be_made_costs_itself_alone(error: BaseException) -> None:
    """It counts as dropped; the next ones are made, and so are those of later lookups."""
    spans = _Spans()
    spans.failures = {0: error, 3: error}
    queue = HitSpanQueue(spans.make, None)
    for number in range(5):
        queue.offer(_lookup(number))
    queue.flush(1.0)
    queue.offer(_lookup(5))
    queue.flush(1.0)
    assert (spans.made, queue.dropped, queue.pending) == ([1, 2, 4, 5], 2, 0)


def test_where_no_thread_can_be_started_a_flush_makes_the_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Offers raise nothing while the system has no threads left, and nothing is lost."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    spans = _Spans()
    queue = HitSpanQueue(spans.make, None, capacity=4)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(5):
        queue.offer(_lookup(number))
    assert (queue.pending, queue.dropped) == (4, 1)
    assert queue.flush(_PATIENCE_S)
    assert (spans.made, queue.pending, queue.dropped) == ([0, 1, 2, 3], 0, 1)


def test_close_drops_what_time_is_too_short_for() -> None:
    """The span that is being made may still be made; the rest, and what comes later, is dropped."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
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


def test_close_drops_all_that_is_queued_behind_a_span_that_blocks() -> None:
    """Also what was offered together with it: only the span that is being made is pending."""
    spans = _Spans()
    spans.go_on.clear()
    queue = HitSpanQueue(spans.make, None)
    for number in range(10):
        queue.offer(_lookup(number))
    queue.close(0.5)
    assert spans.reached.is_set()
    assert (queue.dropped, queue.pending) == (9, 1)
    spans.go_on.set()
    assert queue.flush(_PATIENCE_S)
    assert (spans.made, queue.dropped, queue.pending) == ([0], 9, 0)


def test_close_makes_what_is_queued() -> None:
    """With enough time nothing is dropped but what is offered later."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
    for number in range(600):
        queue.offer(_lookup(number))
    queue.close(_PATIENCE_S)
    queue.offer(_lookup())
    assert spans.made == list(range(600))
    assert (queue.dropped, queue.pending) == (1, 0)


def test_a_flush_does_not_wait_for_what_a_close_dropped(in_thread: InThread) -> None:
    """It returns when the last span is made that was not dropped."""
    spans = _Spans()
    queue = HitSpanQueue(spans.make, None)
    spans.block(queue)
    queue.offer(_lookup())
    flushed = in_thread(lambda: queue.flush(10.0))
    time.sleep(0.05)
    queue.close(0.0)
    assert queue.dropped == 1
    spans.go_on.set()
    assert flushed.result(_PATIENCE_S)


def test_a_negative_budget_is_refused() -> None:
    """The message names the value and the way to fix it."""
    with pytest.raises(ValueError, match="0 or more, or None for no limit; got -1"):
        HitSpanQueue(_Spans().make, -1)


@pytest.mark.parametrize("fill", ["first", "queued", "elided", "dropped"])
def test_counts_can_be_read_by_a_signal_handler(at_moment: AtMoment, fill: str) -> None:
    """At any moment of an offer it neither waits for its own thread nor reads a negative count."""

    def read_at(moment: int) -> bool:
        spans = _Spans()
        queue = HitSpanQueue(spans.make, 1 if fill == "elided" else None, capacity=2)
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


def test_an_interrupt_at_any_moment_leaves_the_queue_usable(
    at_moment: AtMoment, in_thread: InThread
) -> None:
    """After Ctrl-C in an offer another thread can offer, and its span is made."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    def interrupt_at(moment: int) -> bool:
        spans = _Spans()
        queue = HitSpanQueue(spans.make, 2)
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
