"""Stops on signals: a worker thread runs the work while the main thread handles signals.

Python runs signal handlers in the main thread, between any two instructions. An exception raised
there can leave a lock held, in this library or another. So the handlers only record the signal,
and the work stops at a safe point: before its next forward call.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from types import FrameType
from typing import Final, NoReturn, Self, TypeVar

__all__ = ["Stop", "Stopped", "run_stoppable"]

T = TypeVar("T")

#: How often the main thread wakes up to run handlers of signals that another thread received.
_POLL_S: Final = 0.1
#: Within this time the same signal counts once: `timeout` sends it to the process and to its
#: process group, so that it can arrive twice.
_DUPLICATE_S: Final = 0.1
_SHOW_CURSOR: Final = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """The work was stopped before its end.

    Attributes:
        status: The exit status: 128 plus the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status: Final = 128 + number


class Stop:
    """A stop request and its callbacks. Thread-safe.

    Attributes:
        notice: What the work does after a request; printed on stderr.
    """

    def __init__(self) -> None:
        self.notice = "stopping before the next forward pass"
        self._lock = threading.Lock()
        self._requested = False
        self._callbacks: list[Callable[[], None]] = []

    def on_request(self, callback: Callable[[], None]) -> None:
        """Register a function to call on a request; call it now if there was one already."""
        with self._lock:
            self._callbacks.append(callback)
            requested = self._requested
        if requested:
            callback()

    def request(self) -> None:
        """Request a stop."""
        with self._lock:
            self._requested = True
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()


def run_stoppable(work: Callable[[Stop], T]) -> T:
    """Run a function in a worker thread that SIGINT and SIGTERM stop.

    The first signal requests a stop. The work then raises KeyboardInterrupt at a
    point where it can stop, or runs to its end. If it is still running after
    0.1 s, the notice is printed on stderr. From then on, a second signal ends the
    process at once with the status of that signal; before that, only a different
    signal does. A signal that is ignored stays ignored. Outside the main thread
    no handler can be installed, and the work is called directly.

    Args:
        work: The function; runs in a copy of the caller's context (contextvars).

    Returns:
        The value of the work, whether or not a stop was requested.

    Raises:
        Stopped: The work raised KeyboardInterrupt.
        BaseException: Any other exception of the work, unchanged.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        return work(stop)
    outcome: Future[T] = Future()
    run = copy_context().run
    worker = threading.Thread(
        target=lambda: run(_run_work, outcome, work, stop), name="forwardscope-run", daemon=True
    )
    with _Signals() as signals:
        worker.start()
        while worker.is_alive() and signals.first is None:
            worker.join(_POLL_S)
        if signals.first is not None:
            stop.request()
            worker.join(_DUPLICATE_S)
        if worker.is_alive():
            signals.second_ends = True  # before printing, which may block
            _print_line(f"{stop.notice}; a second signal ends the run at once")
        while worker.is_alive():
            worker.join(_POLL_S)
    try:
        return outcome.result()
    except KeyboardInterrupt as error:
        raise Stopped(signals.first or signal.SIGINT) from error


class _Signals:
    """A context manager that installs handlers of SIGINT and SIGTERM.

    Attributes:
        first: The first signal received.
        second_ends: Whether a second signal equal to the first ends the process.
    """

    first: int | None = None
    second_ends = False

    def __enter__(self) -> Self:
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in reversed(self._previous.items()):  # SIGINT last: its handler may raise
            signal.signal(one, handler or signal.SIG_DFL)  # None: it was not set from Python

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        elif self.second_ends or number != self.first:
            _end_at_once(number)


def _run_work(outcome: Future[T], work: Callable[[Stop], T], stop: Stop) -> None:
    try:
        outcome.set_result(work(stop))
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        outcome.set_exception(error)


def _print_line(line: str) -> None:
    # through sys.stderr, since a progress bar replaces it to print above the bar
    if sys.stderr is None:  # closed before the start
        return
    with suppress(OSError, ValueError):  # closed, or without a reader
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _end_at_once(number: int) -> NoReturn:
    # os._exit, since any other exit waits for the worker, which may be in a forward pass that
    # never returns. No stream is flushed: the worker may hold its lock while it waits for a
    # reader. The trace is written line by line and needs no flush.
    with suppress(OSError):
        if os.isatty(2):  # a progress bar hides the cursor
            os.write(2, _SHOW_CURSOR)
    os._exit(128 + number)
