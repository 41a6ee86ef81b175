"""What measures the tasks of a sweep: one worker in this process, or several elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from forwardscope.sweep.observer import SweepObserver
from forwardscope.sweep.tasks import Measured, Task

__all__ = ["Engine"]


class Engine(Protocol):
    """Measures tasks with one or more workers."""

    @property
    def workers(self) -> int:
        """Number of workers that it has, or is going to start."""
        ...

    def run(self, tasks: Sequence[Task], observer: SweepObserver) -> Iterator[Measured]:
        """Yield what became of each task, as they end.

        Each task ends once. The trace of a task is in `task.trace` when it is yielded. An
        adapter that cannot be measured, also because its workers died, has an error.

        Args:
            tasks: The tasks; they may be started in any order.
            observer: Receives `adapter_started` and `worker_lost`, from the thread that iterates.

        Raises:
            KeyboardInterrupt: A stop was requested.
            UserError: A mistake that no adapter makes, such as a base that cannot be loaded.
        """
        ...

    def request_stop(self) -> None:
        """Stop each worker before its next forward pass. Thread-safe, and returns at once."""
        ...

    def close(self) -> None:
        """End the workers and free their models; may be called twice."""
        ...
