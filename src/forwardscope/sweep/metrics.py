"""Gauges of one sweep: its adapters, workers and cost, and what each adapter measured."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep.observer import SweepObserver, SweepStarted
from forwardscope.sweep.result import AdapterRow, Passes, ProbeCell, SweepResult
from forwardscope.sweep.tasks import Task
from forwardscope.telemetry import sweep_names
from forwardscope.telemetry.families import add_sample, new_family
from forwardscope.telemetry.names import Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["MAX_ADAPTERS", "MAX_PROBES", "SweepMetrics"]

#: Adapters, and probes of each, that have series of their own; further ones are counted.
MAX_ADAPTERS: Final = 200
MAX_PROBES: Final = 100
_STATES: Final = ("pending", "running", "finished", "resumed", "error")

_Families = Mapping[Metric, "Family"]


class SweepMetrics(SweepObserver):
    """Observes a sweep and exports its gauges. A collector of prometheus_client.

    There are no samples before the sweep begins. Each adapter and probe has samples from then
    on, so that a push replaces those of the sweep before. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sweep: SweepStarted | None = None
        self._ended_s: float | None = None
        self._rows: dict[int, AdapterRow] = {}
        self._running: dict[int, str] = {}  # the worker by the adapter's index
        self._lost = 0

    @property
    def has_adapters(self) -> bool:
        """Whether an adapter has ended."""
        return bool(self._rows)

    # -- the observer -------------------------------------------------------------------

    def sweep_started(self, sweep: SweepStarted) -> None:
        """Record the start of the sweep."""
        with self._lock:
            self._sweep = sweep

    def adapter_started(self, task: Task, worker: str) -> None:
        """Record that a worker measures an adapter."""
        with self._lock:
            self._running[task.index] = worker

    def adapter_finished(self, row: AdapterRow) -> None:
        """Record what became of an adapter."""
        with self._lock:
            self._running.pop(row.index, None)
            self._rows[row.index] = row

    def worker_lost(self, worker: str, reason: str) -> None:  # noqa: ARG002 - of the base class
        """Record the loss of a worker; its adapter is pending again."""
        with self._lock:
            self._lost += 1
            self._running = {i: name for i, name in self._running.items() if name != worker}

    def sweep_finished(self, result: SweepResult | None) -> None:  # noqa: ARG002
        """Record the end of the sweep; adapters that were running are not measured."""
        with self._lock:
            self._running.clear()
            self._ended_s = time.time()

    # -- the collector ------------------------------------------------------------------

    def describe(self) -> Iterable[Family]:
        """Return every metric, with no values yet."""
        return [new_family(metric) for metric in sweep_names.SWEEP_METRICS]

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have a value now."""
        with self._lock:
            sweep, ended_s, lost = self._sweep, self._ended_s, self._lost
            rows, running = dict(self._rows), dict(self._running)
        if sweep is None:
            return
        families = {metric: new_family(metric) for metric in sweep_names.SWEEP_METRICS}
        labels = _labels(sweep.spec)
        info = (*labels, _started_at(sweep), sweep.trace_id or "")
        add_sample(families[sweep_names.SWEEP_INFO], sweep_names.SWEEP_INFO, info, 1)
        values = {
            sweep_names.SWEEP_START: sweep.started_s,
            sweep_names.SWEEP_END: ended_s,
            sweep_names.SWEEP_ACTIVE: float(ended_s is None),
            sweep_names.SWEEP_ADAPTERS_OMITTED: max(0, len(sweep.tasks) - MAX_ADAPTERS),
            sweep_names.SWEEP_PROBES_OMITTED: max(0, len(sweep.spec.probes) - MAX_PROBES),
            sweep_names.SWEEP_WORKERS: sweep.workers,
            sweep_names.SWEEP_WORKERS_BUSY: len(set(running.values())),
            sweep_names.SWEEP_WORKERS_LOST: lost,
        }
        _add(families, labels, values)
        states = [_state(task.index, rows, running) for task in sweep.tasks]
        _add_states(families, labels, states)
        _add_cost(families, labels, rows.values())
        for task, state in zip(sweep.tasks[:MAX_ADAPTERS], states, strict=False):
            own, row = (*labels, task.label, f"{task.index + 1:03}"), rows.get(task.index)
            _add_adapter(families, own, state, row)
            for name, cell in _cells(sweep.spec, row).items():
                _add_probe(families, (*own, name), cell)
        yield from families.values()


def _started_at(sweep: SweepStarted) -> str:
    return datetime.fromtimestamp(sweep.started_s, UTC).isoformat(timespec="seconds")


def _labels(spec: SuiteSpec) -> tuple[str, ...]:
    return spec.name or "suite", spec.model.label


def _add(families: _Families, labels: Sequence[str], values: Mapping[Metric, float | None]) -> None:
    for metric, value in values.items():
        add_sample(families[metric], metric, labels, _number(value))


def _state(index: int, rows: Mapping[int, AdapterRow], running: Mapping[int, str]) -> str:
    if index in rows:
        return rows[index].status
    return "running" if index in running else "pending"


def _add_states(families: _Families, labels: tuple[str, ...], states: Iterable[str]) -> None:
    metric, numbers = sweep_names.SWEEP_ADAPTERS_BY_STATE, Counter(states)
    for state in _STATES:
        add_sample(families[metric], metric, (*labels, state), numbers[state])


def _add_cost(families: _Families, labels: tuple[str, ...], rows: Iterable[AdapterRow]) -> None:
    """Add what the adapters cost that this sweep has measured."""
    cost = sum((row.passes for row in rows if row.status == "finished"), Passes())
    metric = sweep_names.SWEEP_LOOKUPS
    for tier, hits in cost.by_tier.items():
        add_sample(families[metric], metric, (*labels, "hit", tier), hits)
    add_sample(families[metric], metric, (*labels, "miss", ""), cost.lookups - cost.hits)
    values = {
        sweep_names.SWEEP_FORWARD_PASSES: cost.forward_passes,
        sweep_names.SWEEP_PASSES_NEEDED: cost.demand,
    }
    _add(families, labels, values)


def _add_adapter(
    families: _Families, labels: tuple[str, ...], state: str, row: AdapterRow | None
) -> None:
    """Add the gauges of an adapter; `labels` are those of all but its information."""
    info = (*labels, state, row.worker if row else "", (row and row.run_id) or "")
    add_sample(families[sweep_names.SWEEP_ADAPTER_INFO], sweep_names.SWEEP_ADAPTER_INFO, info, 1)
    measured = row if row is not None and row.status != "error" else None
    values = {
        sweep_names.SWEEP_ADAPTER_PASSED: float(row.passed) if row else None,
        sweep_names.SWEEP_ADAPTER_SCORE: row.score if row else None,
        sweep_names.SWEEP_ADAPTER_WALL: measured.wall_s if measured else None,
        sweep_names.SWEEP_ADAPTER_PASSES: measured.passes.forward_passes if measured else None,
        sweep_names.SWEEP_ADAPTER_PASSES_NEEDED: measured.passes.demand if measured else None,
    }
    _add(families, labels, values)


def _add_probe(families: _Families, labels: tuple[str, ...], cell: ProbeCell | None) -> None:
    values = {
        sweep_names.SWEEP_PROBE_SCORE: cell.score if cell else None,
        sweep_names.SWEEP_PROBE_RAW: cell.raw if cell else None,
    }
    _add(families, labels, values)
    metric, verdict = sweep_names.SWEEP_PROBE_VERDICT, cell.verdict.value if cell else ""
    add_sample(families[metric], metric, (*labels, verdict), float(cell is not None))


def _cells(spec: SuiteSpec, row: AdapterRow | None) -> dict[str, ProbeCell | None]:
    """Return the cells of an adapter by probe, also of those that have not ended."""
    cells: dict[str, ProbeCell | None] = dict.fromkeys(probe.name for probe in spec.probes)
    cells |= {cell.name: cell for cell in row.probes} if row else {}
    return dict(islice(cells.items(), MAX_PROBES))


def _number(value: float | None) -> float:
    """Return a value, or NaN for None; a Pushgateway keeps a value that a push omits."""
    return math.nan if value is None else value
