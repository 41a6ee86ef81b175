"""Run a sweep: resume what is finished, measure the rest, and write all of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from forwardscope.suite.result import SuiteResult
from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep.adapters import Adapters
from forwardscope.sweep.engine import Engine
from forwardscope.sweep.folder import SweepFolder
from forwardscope.sweep.keys import keys_of
from forwardscope.sweep.observer import SweepObserver, SweepObservers, SweepStarted
from forwardscope.sweep.result import AdapterRow, Passes, SweepResult
from forwardscope.sweep.rows import compared, error_row, row_of
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.text import plural

__all__ = ["Sweep", "SweepInterrupted", "run_sweep", "tasks_of"]


class SweepInterrupted(KeyboardInterrupt):
    """A sweep was interrupted.

    Attributes:
        result: The adapters that ended.
    """

    def __init__(self, result: SweepResult) -> None:
        super().__init__()
        self.result = result


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep measures, and where it writes.

    Attributes:
        spec: The suite.
        tasks: The adapters in order.
        folder: Its folder.
        fresh: Whether adapters with a finished result are measured again.
        trace_id: Id of its OpenTelemetry trace, or None.
        events: What happened before it began.
    """

    spec: SuiteSpec
    tasks: Sequence[Task]
    folder: SweepFolder
    fresh: bool = False
    trace_id: str | None = None
    events: Sequence[str] = field(default=())


def tasks_of(spec: SuiteSpec, adapters: Adapters, folder: SweepFolder) -> list[Task]:
    """Return a task for each adapter."""
    keys = keys_of(spec, adapters.places)
    found = zip(adapters.places, adapters.labels, keys, strict=True)
    return [
        Task(index, place, label, key, str(folder.trace(label)))
        for index, (place, label, key) in enumerate(found)
    ]


def run_sweep(sweep: Sweep, engine: Engine, observer: SweepObserver | None = None) -> SweepResult:
    """Measure the adapters of a sweep that have no finished result.

    Each result is written when its adapter ends. The sweep's own result is returned, not
    written.

    Args:
        sweep: What to measure.
        engine: Measures; it stays open.
        observer: Receives the events of the sweep.

    Raises:
        SweepInterrupted: A stop was requested; it has the adapters that ended.
        OutputError: A result cannot be written.
        UserError: A mistake that no adapter makes.
    """
    running = _Running(sweep, engine)
    observer = SweepObservers(running, observer or SweepObserver())
    started = SweepStarted(
        sweep.spec, sweep.tasks, sweep.trace_id, running.started_s, engine.workers
    )
    observer.sweep_started(started)
    try:
        left = list(running.resume(observer))
        tasks = {task.index: task for task in left}
        for measured in engine.run(left, observer) if left else ():
            observer.adapter_finished(_row(sweep.folder, tasks[measured.index], measured))
    except KeyboardInterrupt as error:
        result = running.result()
        observer.sweep_finished(None)
        raise SweepInterrupted(result) from error
    except BaseException:
        observer.sweep_finished(None)
        raise
    result = running.result()
    observer.sweep_finished(result)
    return result


def _row(folder: SweepFolder, task: Task, measured: Measured) -> AdapterRow:
    """Return the row of what a worker returned, and keep its result."""
    place = folder.relative(task.label)
    if measured.result is None:
        return error_row(task, measured, place)
    try:
        result = SuiteResult.model_validate_json(measured.result)
    except ValidationError:
        reason = "its worker returned a result that cannot be read"
        return error_row(task, Measured(task.index, None, reason, worker=measured.worker), place)
    folder.keep(task, measured.result, finished=result.complete)
    return row_of(task, result, "finished", place, measured)


class _Running(SweepObserver):
    """The rows and events of a sweep so far."""

    def __init__(self, sweep: Sweep, engine: Engine) -> None:
        self._sweep = sweep
        self._workers = engine.workers
        self._rows: dict[int, AdapterRow] = {}
        self._events = list(sweep.events)
        self.started_s = time.time()
        self._start = time.perf_counter()

    def resume(self, observer: SweepObserver) -> Sequence[Task]:
        """Report the adapters that have a finished result; return the others."""
        left = []
        for task in self._sweep.tasks:
            folder = self._sweep.folder
            found = None if self._sweep.fresh else folder.finished(task)
            if found is None:
                folder.begin(task)
                left.append(task)
            else:
                row = row_of(task, found, "resumed", folder.relative(task.label))
                observer.adapter_finished(row)
        return left

    def adapter_finished(self, row: AdapterRow) -> None:
        self._rows[row.index] = row

    def worker_lost(self, worker: str, reason: str) -> None:
        self._events.append(f"{worker} was lost: {reason}")

    def result(self) -> SweepResult:
        """Return the result of the rows so far."""
        sweep, rows = self._sweep, [self._rows[index] for index in sorted(self._rows)]
        rows, comparisons = compared(rows)
        paid = [row.passes for row in rows if row.status == "finished"]
        return SweepResult(
            trace_id=sweep.trace_id,
            traces_url=sweep.spec.telemetry.traces_url,
            suite=sweep.spec.name or "suite",
            model=sweep.spec.model.label,
            started_at=datetime.fromtimestamp(self.started_s, UTC).isoformat(timespec="seconds"),
            wall_s=time.perf_counter() - self._start,
            workers=self._workers,
            store=sweep.spec.cache.store,
            rows=rows,
            not_run=[task.label for task in sweep.tasks if task.index not in self._rows],
            passes=sum(paid, Passes()),
            comparisons=comparisons,
            events=[*self._events, *_events(rows)],
        )


def _events(rows: Sequence[AdapterRow]) -> list[str]:
    """Return what happened to adapters, equal things together."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.error is not None:
            found.setdefault(row.error, []).append(row.label)
        for note in row.notes:
            found.setdefault(note, []).append(row.label)
    return [f"{_named(labels)}: {what}" for what, labels in found.items()]


def _named(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{plural(len(labels), 'adapter')} from {labels[0]}"
