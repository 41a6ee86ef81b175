"""A sweep's engine in this process: one worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from forwardscope.sweep.observer import SweepObserver
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.sweep.worker import Worker, worker_name

__all__ = ["LocalEngine"]


class LocalEngine:
    """Measures the tasks in order, in the thread that iterates.

    Args:
        worker: Measures them; closed with the engine.
    """

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._stop_requested = threading.Event()

    def run(self, tasks: Sequence[Task], observer: SweepObserver) -> Iterator[Measured]:
        """Yield what became of each task; see `Engine.run`."""
        for task in tasks:
            if self._stop_requested.is_set():
                raise KeyboardInterrupt
            observer.adapter_started(task, worker_name())
            yield self._worker.measure(task)

    def request_stop(self) -> None:
        """Stop before the next adapter or forward pass."""
        self._stop_requested.set()
        self._worker.request_stop()

    def close(self) -> None:
        """Free the worker's base."""
        self._worker.close()
