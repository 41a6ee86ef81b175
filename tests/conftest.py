"""What several test modules share: a clock, threads that report, and a look at who waits."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import settings

from forwardscope import BackendInstrumentation
from forwardscope.core.cache import Entry, ForwardCache

settings.register_profile("forwardscope", deadline=None)  # timings are never asserted
settings.load_profile("forwardscope")

_PATIENCE_S = 60.0


class HandClock:
    """A `Clock` that moves only when it is told to."""

    _START_NS = 5_000_000_000

    def __init__(self) -> None:
        self.ns = self._START_NS

    def advance_ms(self, milliseconds: int) -> None:
        self.ns += milliseconds * 1_000_000

    def perf_counter_ns(self) -> int:
        return self.ns

    def time_ns(self) -> int:
        return 1_000_000_000_000_000 + self.ns - self._START_NS


class SteppingClock(HandClock):
    """A clock that moves at each reading of durations, by as much as it was told."""

    step_ms = 0

    def perf_counter_ns(self) -> int:
        self.advance_ms(self.step_ms)
        return super().perf_counter_ns()


@pytest.fixture
def stepping_clock() -> SteppingClock:
    """A clock under which whatever lies between two readings takes `step_ms`."""
    return SteppingClock()


@pytest.fixture
def clock() -> HandClock:
    """A clock to give to a backend, and to move by hand."""
    return HandClock()


@pytest.fixture
def in_thread() -> Callable[[Callable[[], Any]], Future[Any]]:
    """Start a function in a thread of its own; its future tells what it gave or raised."""

    def start(function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    return start


@pytest.fixture
def until_waiting() -> Callable[..., None]:
    """Return once a number of threads wait for the forward pass of a key."""

    def until(backend: BackendInstrumentation, key: tuple[str, str, str, int], n: int = 1) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (waiting := _waiting(backend, key)) != n:
            assert time.monotonic() < deadline, f"{waiting} threads wait for {key}, not {n}"
            time.sleep(0.0005)

    return until


@pytest.fixture
def interrupt() -> Iterator[Callable[[threading.Event], None]]:
    """Raise one KeyboardInterrupt in the main thread, from another thread.

    A signal that comes just before the main thread blocks does not wake it, so
    it is sent until the test says that the interrupt has come out.
    """
    raised, ended = threading.Event(), threading.Event()

    def handler(*_: object) -> None:
        if not raised.is_set():
            raised.set()
            raise KeyboardInterrupt

    def send(came_out: threading.Event) -> None:
        while not came_out.is_set() and not ended.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            came_out.wait(0.005)

    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, handler)
    yield send
    ended.set()
    signal.signal(signal.SIGINT, before)


def _waiting(backend: BackendInstrumentation, key: tuple[str, str, str, int]) -> int:
    """How many threads wait; each has given up the cache's lock."""
    entry = backend.cache.shelf.under_way.get(key)
    if entry is None or entry.joined is None:
        return 0
    frames = sys._current_frames().values()
    inside = [frame.f_locals for frame in frames if frame.f_code is ForwardCache.wait.__code__]
    return sum(mine["entry"] is entry and mine.get("joined") is entry.joined for mine in inside)


@pytest.fixture
def before_claim(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Let something happen between a lookup and its claim, each time one is made."""

    def arrange(happen: Callable[[], None]) -> None:
        busy: set[int] = set()

        def late() -> Entry:
            me = threading.get_ident()
            if me not in busy:
                busy.add(me)
                happen()
                busy.remove(me)
            return Entry()

        monkeypatch.setattr("forwardscope.instrumentation.Entry", late)
        monkeypatch.setattr("forwardscope.core.cache.Entry", late)

    return arrange
