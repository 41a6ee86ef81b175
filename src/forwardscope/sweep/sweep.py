"""Run a sweep: resume what is finished, measure the rest, and write all of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from opentelemetry.trace import Span, TracerProvider
from pydantic import ValidationError

from forwardscope.store.locations import store_name
from forwardscope.suite.result import SuiteResult
from forwardscope.suite.spans import trace_id_of
from forwardscope.suite.spec import CacheSpec, SuiteSpec
from forwardscope.sweep.adapters import Adapters
from forwardscope.sweep.engine import Engine
from forwardscope.sweep.folder import SweepFolder
from forwardscope.sweep.keys import keys_of
from forwardscope.sweep.observer import SweepObserver, SweepObservers, SweepStarted
from forwardscope.sweep.result import AdapterRow, Passes, SweepResult
from forwardscope.sweep.rows import compared, error_row, places_of, row_of
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import mark_failed
from forwardscope.telemetry.spans import LookupSpans
from forwardscope.text import listed, printable

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
        events: What happened before it began.
    """

    spec: SuiteSpec
    tasks: Sequence[Task]
    folder: SweepFolder
    fresh: bool = False
    events: Sequence[str] = field(default=())


def tasks_of(spec: SuiteSpec, adapters: Adapters, folder: SweepFolder) -> list[Task]:
    """Return a task for each adapter."""
    keys = keys_of(spec, adapters.places)
    found = zip(adapters.places, adapters.labels, keys, strict=True)
    return [
        Task(index, place, label, key, str(folder.trace(label)))
        for index, (place, label, key) in enumerate(found)
    ]


def run_sweep(
    sweep: Sweep,
    engine: Engine,
    *,
    observer: SweepObserver | None = None,
    tracer_provider: TracerProvider | None = None,
) -> SweepResult:
    """Measure the adapters of a sweep that have no finished result.

    Each result is written when its adapter ends. The sweep's own result is returned, not
    written.

    Args:
        sweep: What to measure.
        engine: Measures; it stays open.
        observer: Receives the events of the sweep.
        tracer_provider: Receives the span of the sweep; None for the global one.

    Raises:
        SweepInterrupted: A stop was requested; it has the adapters that ended.
        OutputError: A result cannot be written.
        UserError: A mistake that no adapter makes.
    """
    running = _Running(sweep, engine)
    observers = SweepObservers(running, observer or SweepObserver())
    spans = LookupSpans(tracer_provider, 0, time)
    result = None
    with spans.around(names.SWEEP, sweep.spec.name, _at_start(sweep)) as span:
        running.trace_id = trace_id_of(span)
        try:
            running.run(engine, observers)
            result = running.result()
        except KeyboardInterrupt as error:
            raise SweepInterrupted(running.result()) from error
        finally:
            _at_end(span, result or running.result())
            observers.sweep_finished(result)
    return result


def _at_start(sweep: Sweep) -> dict[str, Any]:
    """Return the attributes that are known when a sweep starts."""
    return {
        names.SUITE_NAME.name: printable(sweep.spec.name or "suite"),
        names.RUN_MODEL.name: sweep.spec.model.label,
        names.SWEEP_ADAPTERS.name: len(sweep.tasks),
    }


def _at_end(span: Span, result: SweepResult) -> None:
    """Set attributes and status of a sweep at its end."""
    status = Counter(row.status for row in result.rows)
    span.set_attributes(
        {
            names.SWEEP_RESUMED.name: status["resumed"],
            names.SWEEP_ERRORS.name: status["error"],
            names.TOTAL_LOOKUPS.name: result.passes.lookups,
            names.TOTAL_HITS.name: result.passes.hits,
            names.TOTAL_PASSES.name: result.passes.forward_passes,
        }
    )
    failed = next((row for row in result.rows if not row.passed), None)
    if failed is not None:
        mark_failed(span, failed.error_type or "probe_failed")


def _row(folder: SweepFolder, task: Task, measured: Measured) -> AdapterRow:
    """Return the row of what a worker returned, and keep its result."""
    place = folder.relative(task.label)
    if measured.result is None:
        folder.discard(task)
        return error_row(task, measured, place)
    try:
        result = SuiteResult.model_validate_json(measured.result)
        row = row_of(task, result, "finished", place, measured)
    except ValidationError:
        folder.discard(task)
        reason = "its worker returned a result that cannot be read"
        return error_row(task, Measured(task.index, None, reason, worker=measured.worker), place)
    folder.keep(task, measured.result, finished=result.complete)
    return row


def _kept_row(folder: SweepFolder, task: Task) -> AdapterRow | None:
    """Return the row of a finished result; None if there is none, or it has impossible counts."""
    result = folder.finished(task)
    if result is None:
        return None
    try:
        return row_of(task, result, "resumed", folder.relative(task.label))
    except ValidationError:
        return None


class _Running(SweepObserver):
    """The rows and events of a sweep so far."""

    def __init__(self, sweep: Sweep, engine: Engine) -> None:
        self._sweep = sweep
        self._workers = engine.workers
        self._store = _store_of(sweep.spec.cache)
        self._rows: dict[int, AdapterRow] = {}
        self._events = list(sweep.events)
        self.started_s = time.time()
        self.trace_id: str | None = None
        self._start = time.perf_counter()

    def run(self, engine: Engine, observer: SweepObserver) -> None:
        """Resume the adapters that are finished, and measure the others."""
        sweep = self._sweep
        observer.sweep_started(
            SweepStarted(sweep.spec, sweep.tasks, self.trace_id, self.started_s, engine.workers)
        )
        left = {task.index: task for task in self.resume(observer)}
        for measured in engine.run(list(left.values()), observer) if left else ():
            observer.adapter_finished(_row(sweep.folder, left[measured.index], measured))

    def resume(self, observer: SweepObserver) -> Sequence[Task]:
        """Report the adapters that have a finished result; return the others."""
        left = []
        for task in self._sweep.tasks:
            row = None if self._sweep.fresh else _kept_row(self._sweep.folder, task)
            if row is None:
                left.append(task)
            else:
                observer.adapter_finished(row)
        return left

    def adapter_started(self, task: Task, worker: str) -> None:  # noqa: ARG002 - of the base class
        """Remove what an earlier run of the adapter, or a first attempt, left."""
        self._sweep.folder.begin(task)

    def adapter_finished(self, row: AdapterRow) -> None:
        """Keep the row."""
        self._rows[row.index] = row

    def worker_lost(self, worker: str, reason: str) -> None:
        """Keep what happened."""
        self._events.append(f"{worker} was lost: {reason}")

    def noticed(self, what: str) -> None:
        """Keep it."""
        self._events.append(what)

    def result(self) -> SweepResult:
        """Return the result of the rows so far."""
        sweep, rows = self._sweep, [self._rows[index] for index in sorted(self._rows)]
        rows, comparisons = compared(rows)
        paid = [row.passes for row in rows if row.status == "finished"]
        return SweepResult(
            trace_id=self.trace_id,
            traces_url=sweep.spec.telemetry.traces_url,
            suite=sweep.spec.name or "suite",
            model=sweep.spec.model.label,
            started_at=datetime.fromtimestamp(self.started_s, UTC).isoformat(timespec="seconds"),
            wall_s=time.perf_counter() - self._start,
            workers=self._workers,
            store=self._store,
            rows=rows,
            not_run=[task.label for task in sweep.tasks if task.index not in self._rows],
            passes=sum(paid, Passes()),
            comparisons=comparisons,
            events=[*self._events, *_events(rows)],
        )


def _store_of(cache: CacheSpec) -> str | None:
    """Return where the store is, without the secrets of a URL; None without a store."""
    if cache.store is None or not cache.enabled:
        return None
    return store_name(cache.store) if "://" in cache.store else cache.store


def _events(rows: Sequence[AdapterRow]) -> list[str]:
    """Return what happened to adapters, equal things together."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.error is not None:
            found.setdefault(row.error, []).append(row.label)
        for note in row.notes:
            found.setdefault(note, []).append(row.label)
    events = [f"{listed(labels)}: {what}" for what, labels in found.items()]
    places = [f"{listed(labels)} in {place}" for place, labels in places_of(rows).items()]
    if len(places) > 1:
        events.append(
            f"adapters were measured in unlike ways, and changes between them can come from that: "
            f"{'; '.join(places)}; --fresh measures all again"
        )
    return events
