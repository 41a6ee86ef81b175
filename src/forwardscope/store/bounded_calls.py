"""Calls that are waited for only so long, whatever they do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from forwardscope.core.forks import reset_in_children

__all__ = ["BoundedCalls"]

T = TypeVar("T")

_IDLE_S: Final = 5.0


class _Task(NamedTuple):
    call: Callable[[], Any]
    outcome: SimpleQueue[tuple[Any, Exception | None]]


class BoundedCalls:
    """Runs calls in threads of its own, so that each wait has an end. Safe under threads.

    A client bounds the wait for each part of an answer. That bounds neither an answer that
    comes byte by byte, nor the resolution of a host's name. A call that goes on after its
    timeout keeps its thread, and its result is dropped.

    Args:
        idle_s: A thread ends after so long without a call.
    """

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._idle_s = idle_s
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin without threads."""
        self._idle: deque[SimpleQueue[_Task]] = deque()

    def run(self, call: Callable[[], T], timeout_s: float) -> T:
        """Return the result of a call, or raise what it raises.

        Where no thread can be started, the wait is as long as the call.

        Raises:
            TimeoutError: It has not ended by then.
        """
        try:
            tasks = self._idle.pop()
        except IndexError:
            tasks = SimpleQueue()
            try:
                threading.Thread(
                    target=_work,
                    args=(tasks, self._idle, self._idle_s),
                    name="forwardscope-store-call",
                    daemon=True,
                ).start()
            except RuntimeError:  # too many threads, or the program ends
                return call()
        task = _Task(call, SimpleQueue())
        tasks.put(task)
        try:
            result, error = task.outcome.get(timeout=max(0.0, timeout_s))
        except Empty:
            raise TimeoutError from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


def _work(tasks: SimpleQueue[_Task], idle: deque[SimpleQueue[_Task]], idle_s: float) -> None:
    """Run tasks one by one; `idle` has the queue while the thread waits for one.

    Where a caller has it and no task comes, the caller was interrupted.
    """
    taken = False
    while True:
        try:
            task = tasks.get(timeout=idle_s)
        except Empty:
            if taken or _removed(tasks, idle):
                return
            taken = True  # a task comes at this moment, or never
            continue
        taken = False
        outcome: tuple[Any, Exception | None]
        try:
            outcome = task.call(), None
        except Exception as error:  # noqa: BLE001 - the caller raises it
            outcome = None, error
        idle.append(tasks)
        task.outcome.put(outcome)
        del task, outcome


def _removed(tasks: SimpleQueue[_Task], idle: deque[SimpleQueue[_Task]]) -> bool:
    """Remove a queue from the idle ones; return whether it was one."""
    with suppress(ValueError):
        idle.remove(tasks)
        return True
    return False
