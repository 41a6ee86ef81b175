"""The queue of spans to be made: bounded, in order, and nothing of it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from forwardscope.telemetry import deferred
from forwardscope.telemetry.deferred import AnsweredLookup, DeferredSpans

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]

_PATIENCE_S = 60.0
_SOON_S = 0.05


def _lookup(number: int) -> AnsweredLookup:
    return ("op", "view", "hash", number), "hit", number, number + 1, None


class Workshop:
    """Makes spans, in the thread that does, and can be stopped in either place."""

    def __init__(self, capacity: int = deferred.CAPACITY) -> None:
        self.made: list[int] = []
        self.threads: list[threading.Thread] = []
        self.making, self.pacing = threading.Event(), threading.Event()
        self.may_make, self.may_pace = threading.Event(), threading.Event()
        self.may_make.set()
        self.may_pace.set()
        self.spans = DeferredSpans(self._make, self._pace, capacity)

    def offer(self, numbers: range) -> list[bool]:
        return [self.spans.offer(_lookup(number)) for number in numbers]

    def _make(self, lookup: AnsweredLookup) -> None:
        self.making.set()
        assert self.may_make.wait(_PATIENCE_S)
        self.made.append(lookup[0][3])

    def _pace(self) -> None:
        thread = threading.current_thread()
        if thread not in self.threads:
            self.threads.append(thread)
        self.pacing.set()
        assert self.may_pace.wait(_PATIENCE_S)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a queue wait for a good time for ever."""
    monkeypatch.setattr(deferred, "_LINGER_S", 3600.0)


def test_spans_are_made_in_order() -> None:
    """A thousand of them, several chunks, come out as they went in."""
    shop = Workshop()
    assert all(shop.offer(range(1000)))
    assert shop.spans.flush(_PATIENCE_S)
    assert shop.made == list(range(1000))


def test_a_lookup_comes_out_as_it_went_in() -> None:
    """What was offered is what is made."""
    made: list[AnsweredLookup] = []
    spans = DeferredSpans(made.append, lambda: None)
    assert spans.offer(_lookup(7))
    assert spans.flush(_PATIENCE_S)
    assert made == [_lookup(7)]


def test_nothing_offered_starts_no_thread() -> None:
    """Flushing, nudging and closing an empty queue are done at once, without a thread."""
    before = set(threading.enumerate())
    shop = Workshop()
    shop.spans.nudge()
    assert shop.spans.flush(0.0)
    assert shop.spans.close(0.0) == 0
    assert set(threading.enumerate()) <= before


def test_a_full_queue_refuses() -> None:
    """What is beyond the capacity is refused, and the rest is made; then there is room again."""
    shop = Workshop(capacity=4)
    shop.may_pace.clear()
    assert shop.offer(range(6)) == [True] * 4 + [False] * 2
    shop.may_pace.set()
    assert shop.spans.flush(_PATIENCE_S)
    assert shop.made == [0, 1, 2, 3]
    assert shop.offer(range(6, 8)) == [True, True]
    assert shop.spans.flush(_PATIENCE_S)
    assert shop.made == [0, 1, 2, 3, 6, 7]


@pytest.mark.usefixtures("unhurried")
def test_a_nudge_is_a_good_time() -> None:
    """Before it nothing is made; after it everything."""
    shop = Workshop()
    shop.offer(range(3))
    assert shop.made == []
    assert not shop.making.is_set()
    shop.spans.nudge()
    assert shop.making.wait(_PATIENCE_S)
    assert shop.spans.flush(_PATIENCE_S)
    assert shop.made == [0, 1, 2]


@pytest.mark.usefixtures("unhurried")
def test_a_half_full_queue_does_not_wait() -> None:
    """It is emptied though nobody says that it is a good time."""
    shop = Workshop(capacity=8)
    shop.offer(range(5))
    assert shop.making.wait(_PATIENCE_S)


@pytest.mark.usefixtures("unhurried")
def test_flush_waits_for_what_was_taken(in_thread: InThread) -> None:
    """It says no while a span is being made, and yes when all of them are."""
    shop = Workshop()
    shop.may_make.clear()
    shop.offer(range(3))
    assert not shop.spans.flush(_SOON_S)
    assert shop.making.wait(_PATIENCE_S)
    waiting = in_thread(lambda: (shop.spans.flush(_PATIENCE_S), list(shop.made)))
    shop.may_make.set()
    assert waiting.result(_PATIENCE_S) == (True, [0, 1, 2])


@pytest.mark.usefixtures("unhurried")
def test_close_makes_the_rest_and_takes_no_more() -> None:
    """After it everything is made, the thread has ended, and offers are refused; twice is fine."""
    shop = Workshop()
    shop.offer(range(600))
    assert shop.spans.close(_PATIENCE_S) == 0
    assert shop.made == list(range(600))
    assert [thread.is_alive() for thread in shop.threads] == [False]
    assert shop.offer(range(2)) == [False, False]
    assert shop.spans.close(_PATIENCE_S) == 0
    assert shop.made == list(range(600))


@pytest.mark.usefixtures("unhurried")
def test_close_gives_up_on_what_has_no_room() -> None:
    """Where the exporter has no room in time, none is made, and each is told of once."""
    shop = Workshop()
    shop.may_pace.clear()
    shop.offer(range(300))
    shop.spans.nudge()
    assert shop.pacing.wait(_PATIENCE_S)
    assert shop.spans.close(_SOON_S) == 300
    assert shop.spans.close(0.0) == 0
    shop.may_pace.set()
    shop.threads[0].join(_PATIENCE_S)
    assert not shop.threads[0].is_alive()
    assert shop.made == []


@pytest.mark.usefixtures("unhurried")
def test_close_counts_nothing_twice_while_a_span_is_made() -> None:
    """What is in hand is made in the end and not given up; the rest is given up and not made."""
    shop = Workshop()
    shop.may_make.clear()
    shop.offer(range(300))
    shop.spans.nudge()
    assert shop.making.wait(_PATIENCE_S)
    given_up = shop.spans.close(_SOON_S)
    shop.may_make.set()
    shop.threads[0].join(_PATIENCE_S)
    assert 0 < given_up < 300
    assert shop.made == list(range(300 - given_up))


def test_the_thread_ends_and_another_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do for a while it ends, and what is offered later starts a new one."""
    monkeypatch.setattr(deferred, "_IDLE_S", 0.0)
    shop = Workshop()
    for turn in range(3):
        shop.offer(range(turn, turn + 1))
        assert shop.spans.flush(_PATIENCE_S)
        shop.threads[turn].join(_PATIENCE_S)
        assert not shop.threads[turn].is_alive()
    assert shop.made == [0, 1, 2]
    assert len({thread.name for thread in shop.threads}) == 1
    assert len(shop.threads) == 3


def test_nothing_is_lost_under_threads(
    in_thread: InThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four threads' offers each one that was taken is made once, in its thread's order."""
    monkeypatch.setattr(deferred, "_IDLE_S", 0.0)
    shop, start = Workshop(capacity=64), threading.Barrier(4)
    shop.may_pace.clear()

    def offer(first: int) -> int:
        start.wait(_PATIENCE_S)
        refused = 0
        for number in range(first, first + 500):
            while not shop.spans.offer(_lookup(number)):
                refused += 1
                shop.may_pace.set()
                assert shop.spans.flush(_PATIENCE_S)
        return refused

    firsts = range(0, 4000, 1000)
    futures = [in_thread(lambda first=first: offer(first)) for first in firsts]
    refused = sum(future.result(_PATIENCE_S) for future in futures)
    assert shop.spans.flush(_PATIENCE_S)
    assert refused > 0
    for first in firsts:
        assert [n for n in shop.made if first <= n < first + 1000] == [*range(first, first + 500)]
    assert len(shop.made) == 2000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.usefixtures("unhurried")
def test_a_span_that_cannot_be_made_is_not_the_end_of_the_others() -> None:
    """A span processor of the program's own that raises costs that one span alone."""
    made: list[int] = []

    def make(lookup: AnsweredLookup) -> None:
        if lookup[0][3] == 0:
            raise ValueError("a processor's own mistake")
        made.append(lookup[0][3])

    spans = DeferredSpans(make, lambda: None)
    for number in range(3):
        spans.offer(_lookup(number))
    spans.flush(1.0)
    assert made == [1, 2]


def test_where_no_thread_can_be_started_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups go on while the system gives no threads, and the spans are made once it does."""
    made: list[int] = []
    spans = DeferredSpans(lambda lookup: made.append(lookup[0][3]), lambda: None, capacity=4)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        assert [spans.offer(_lookup(number)) for number in range(5)] == [True] * 4 + [False]
    assert spans.flush(60.0)
    assert made == [0, 1, 2, 3]
    assert spans.close(60.0) == 0
