"""Observers of a sweep's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep.tasks import Task

if TYPE_CHECKING:
    from forwardscope.sweep.result import AdapterRow, SweepResult

__all__ = ["SweepObserver", "SweepObservers", "SweepStarted"]


@dataclass(frozen=True, slots=True)
class SweepStarted:
    """Start of a sweep.

    Attributes:
        spec: The suite that is run on each adapter.
        tasks: All adapters in order, also those with a finished result.
        trace_id: Id of the sweep's OpenTelemetry trace, or None.
        started_s: Start of the sweep, in seconds since the epoch.
        workers: Number of workers.
    """

    spec: SuiteSpec
    tasks: Sequence[Task]
    trace_id: str | None
    started_s: float
    workers: int


class SweepObserver:
    """Base class that receives the events of a sweep, in the thread of the sweep."""

    def sweep_started(self, sweep: SweepStarted) -> None:
        """Handle the start of the sweep."""

    def adapter_started(self, task: Task, worker: str) -> None:
        """Handle the start of an adapter on a worker; again if it is tried again."""

    def adapter_finished(self, row: AdapterRow) -> None:
        """Handle the end of an adapter, or that it has a finished result."""

    def worker_lost(self, worker: str, reason: str) -> None:
        """Handle the loss of a worker; `reason` is a sentence that names what became of it."""

    def noticed(self, what: str) -> None:
        """Handle what a reader of the sweep should know of its workers, in one sentence."""

    def sweep_finished(self, result: SweepResult | None) -> None:
        """Handle the end of the sweep; the result is None if it was aborted."""


class SweepObservers(SweepObserver):
    """Forwards each event to several observers, in order."""

    def __init__(self, *observers: SweepObserver) -> None:
        self._observers = observers

    def sweep_started(self, sweep: SweepStarted) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.sweep_started(sweep)

    def adapter_started(self, task: Task, worker: str) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.adapter_started(task, worker)

    def adapter_finished(self, row: AdapterRow) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.adapter_finished(row)

    def worker_lost(self, worker: str, reason: str) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.worker_lost(worker, reason)

    def noticed(self, what: str) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.noticed(what)

    def sweep_finished(self, result: SweepResult | None) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.sweep_finished(result)
