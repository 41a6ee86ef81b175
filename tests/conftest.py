"""Order of the tests; fixtures: clocks, threads, forked children and interrupts."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from opentelemetry import context

import forwardscope
from forwardscope import BackendInstrumentation

settings.register_profile("forwardscope", deadline=None)  # timings are never asserted
settings.load_profile("forwardscope")

_SOURCES = tuple(path + os.sep for path in (*forwardscope.__path__, *context.__path__))
_PATIENCE_S = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long, so that no process is left alone with one of them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class HandClock:
    """A `Clock` that a test moves.

    Attributes:
        step_ms: Milliseconds to advance at each reading of durations.
        on_reading: Called after each reading of durations.
    """

    _START_NS = 5_000_000_000

    def __init__(self) -> None:
        self.ns = self._START_NS
        self.step_ms = 0
        self.on_reading: Callable[[], object] = int

    def advance_ms(self, milliseconds: int) -> None:
        self.ns += milliseconds * 1_000_000

    def perf_counter_ns(self) -> int:
        self.advance_ms(self.step_ms)
        now = self.ns
        self.on_reading()
        return now

    def time_ns(self) -> int:
        return 1_000_000_000_000_000 + self.ns - self._START_NS


@pytest.fixture
def clock() -> HandClock:
    """Return a clock for a backend that only the test moves."""
    return HandClock()


@pytest.fixture
def in_thread() -> Callable[[Callable[[], Any]], Future[Any]]:
    """Start a function in a new thread; its future has the result or the exception."""

    def start(function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the test checks it
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    return start


@pytest.fixture
def together(
    in_thread: Callable[[Callable[[], Any]], Future[Any]],
) -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """Call a function in n threads that start at once; return the results in order."""

    def run(n: int, work: Callable[[int], Any]) -> list[Any]:
        start = threading.Barrier(n)

        def one(me: int) -> Any:
            start.wait(_PATIENCE_S)
            return work(me)

        futures = [in_thread(lambda me=me: one(me)) for me in range(n)]  # type: ignore[misc]
        return [future.result(_PATIENCE_S) for future in futures]

    return run


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Let threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def until_waiting() -> Callable[..., None]:
    """Return once a number of lookups wait for the flight of a key."""

    def until(backend: BackendInstrumentation, key: tuple[str, str, str, int], n: int = 1) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (waiting := backend.flights.waiters(key)) != n:
            assert time.monotonic() < deadline, f"{waiting} lookups wait for {key}, not {n}"
            time.sleep(0.0005)

    return until


@pytest.fixture
def at_moment() -> Callable[[int, Callable[[], None], Callable[[], Any]], bool]:
    """Call a function and act at its n-th moment; return whether there was one.

    A moment is the begin of a function of forwardscope, or the return of a C function
    that it called. CPython runs signal handlers at these moments. Functions that attach
    or detach OpenTelemetry's context have moments as well. A KeyboardInterrupt is
    suppressed.
    """

    def run(moment: int, act: Callable[[], None], function: Callable[[], Any]) -> bool:
        left = moment

        def profile(frame: FrameType, event: str, _: object) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_filename.startswith(_SOURCES):
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    act()

        sys.setprofile(profile)
        try:
            function()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        return left < 0

    return run


@pytest.fixture
def interrupt() -> Iterator[Callable[[threading.Event], None]]:
    """Raise one KeyboardInterrupt in the main thread, from another thread.

    A signal just before the main thread blocks does not wake it, so it is sent until
    the test sets an event.
    """
    raised, ended = threading.Event(), threading.Event()

    def handler(*_: object) -> None:
        if not raised.is_set():
            raised.set()
            raise KeyboardInterrupt

    def send(raised_in_test: threading.Event) -> None:
        while not raised_in_test.is_set() and not ended.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            raised_in_test.wait(0.005)

    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, handler)
    yield send
    ended.set()
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], None]:
    """Call a function in a forked child; fail if it raises or does not return there."""

    def run(function: Callable[[], object]) -> None:
        child = os.fork()
        if not child:
            _run_and_exit(function)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                assert status == 0, f"the child ended with wait status {status}"
                return
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.fail("the child did not end")
            time.sleep(0.001)

    return run


def _run_and_exit(function: Callable[[], object]) -> None:
    status = 1
    try:
        function()
        status = 0
    except BaseException:  # noqa: BLE001 - the child must not return into pytest
        traceback.print_exc()
    finally:
        os._exit(status)
