"""A stop by signal: the work runs in a worker thread, the main thread waits and takes signals.

Python runs signal handlers in the main thread, between any two of its instructions. An exception
raised there can leave a lock held, in this library or in another. So the handlers only record the
signal, and the work is stopped where it can be: before its next forward call.
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

#: How often the main thread looks for a signal that the system delivered to another thread.
_POLL_S: Final = 0.1
#: How long the same signal again is no second one: `timeout` sends it to the process and to the
#: group of the process, so that it may come twice.
_TWICE_S: Final = 0.1
_SHOW_CURSOR: Final = b"\x1b[?25h"


class Stopped(KeyboardInterrupt):
    """Work that was stopped before its end.

    Attributes:
        status: The exit status that says so: 128 plus the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status: Final = 128 + number


class Stop:
    """What a stop does to the work, registered by the work itself. Safe under threads.

    Attributes:
        notice: What happens next when a stop is requested now; printed then.
    """

    def __init__(self) -> None:
        self.notice = "stopping before the next forward pass"
        self._lock = threading.Lock()
        self._requested = False
        self._callbacks: list[Callable[[], None]] = []

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call a function once a stop is requested; now, where it was requested before."""
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
    """Run a function in a worker thread; SIGINT and SIGTERM stop it meanwhile.

    The first signal requests a stop. The work then raises KeyboardInterrupt where
    it can stop, or it goes on to its end. Where that takes longer than a moment, one
    line on stderr says so. From then on a second signal ends the process at once,
    with the status of that signal; before, only one of the other kind does. A signal
    that is ignored stays ignored. Outside the main thread, where no handler can be
    installed, this is a plain call.

    Args:
        work: Runs in a copy of the caller's context (contextvars).

    Returns:
        What the work returned, whether or not a stop was requested.

    Raises:
        Stopped: The work raised KeyboardInterrupt.
        BaseException: Whatever else the work raised, unchanged.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        return work(stop)
    outcome: Future[T] = Future()
    run = copy_context().run
    worker = threading.Thread(
        target=lambda: run(_settle, outcome, work, stop), name="forwardscope-run", daemon=True
    )
    with _Signals() as signals:
        worker.start()
        while worker.is_alive() and signals.first is None:
            worker.join(_POLL_S)
        if signals.first is not None:
            stop.request()
            worker.join(_TWICE_S)
        if worker.is_alive():
            signals.second_ends = True  # before the line is printed, which may block
            _print_line(f"{stop.notice}; a second signal ends the run at once")
        while worker.is_alive():
            worker.join(_POLL_S)
    try:
        return outcome.result()
    except KeyboardInterrupt as error:
        raise Stopped(signals.first or signal.SIGINT) from error


class _Signals:
    """The handlers of SIGINT and SIGTERM, while it is entered.

    Attributes:
        first: The first signal that came.
        second_ends: Whether the same signal again ends the process.
    """

    first: int | None = None
    second_ends = False

    def __enter__(self) -> Self:
        taken = (signal.SIGINT, signal.SIGTERM)
        self._before = {
            one: signal.signal(one, self._take)
            for one in taken
            if signal.getsignal(one) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in reversed(self._before.items()):  # SIGINT last: its handler may raise
            signal.signal(one, handler or signal.SIG_DFL)  # None for one that is not Python's

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        elif self.second_ends or number != self.first:
            _end_at_once(number)


def _settle(outcome: Future[T], work: Callable[[Stop], T], stop: Stop) -> None:
    try:
        outcome.set_result(work(stop))
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        outcome.set_exception(error)


def _print_line(line: str) -> None:
    # through sys.stderr, in whose place a progress bar puts a file that prints above the bar
    if sys.stderr is None:  # it was closed before the start
        return
    with suppress(OSError, ValueError):  # it is closed by now, or its reader is gone
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _end_at_once(number: int) -> NoReturn:
    # os._exit because any other end waits for the worker, which may be in a forward pass that
    # never returns. Nothing is flushed: the worker may hold a stream's lock while a reader lets
    # it wait, and the lines of the trace are written already.
    with suppress(OSError):
        if os.isatty(2):  # a progress bar has hidden the cursor
            os.write(2, _SHOW_CURSOR)
    os._exit(128 + number)
