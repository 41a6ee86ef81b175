"""The gauges of a sweep."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec
from forwardscope.sweep import (
    LocalEngine,
    Sweep,
    SweepInterrupted,
    SweepMetrics,
    SweepObserver,
    SweepObservers,
    SweepStarted,
    Task,
    run_sweep,
)
from forwardscope.sweep.metrics import MAX_ADAPTERS, MAX_PROBES
from forwardscope.telemetry import sweep_names
from forwardscope.telemetry.names import Metric

SUITE = {"suite": "tested", "model": "some-model"}
MakeSweep = Callable[..., Sweep]
MakeEngine = Callable[..., LocalEngine]
MakeAdapter = Callable[..., Path]


class Read:
    """Reads the gauges as a scrape does."""

    def __init__(self) -> None:
        self.metrics = SweepMetrics()
        self.registry = CollectorRegistry()
        self.registry.register(self.metrics)

    def value(self, metric: Metric, **labels: str) -> float | None:
        return self.registry.get_sample_value(metric.name, {**SUITE, **labels})

    def states(self) -> dict[str, float]:
        """Return how many adapters are in each state that any is in."""
        states = ("pending", "running", "finished", "resumed", "error")
        found = {one: self.value(sweep_names.SWEEP_ADAPTERS_BY_STATE, state=one) for one in states}
        return {state: number for state, number in found.items() if number}

    def labels_of(self, metric: Metric, label: str) -> list[str]:
        """Return the values of a label, each once, in order."""
        families = [one for one in self.metrics.collect() if one.name == metric.name]
        samples = [sample for family in families for sample in family.samples]
        return list(dict.fromkeys(sample.labels[label] for sample in samples))


@pytest.fixture
def read() -> Read:
    """Return a reader of the gauges of one sweep."""
    return Read()


def started(spec: SuiteSpec, adapters: int, workers: int = 1) -> SweepStarted:
    """Return the start of a sweep of many adapters."""
    tasks = [Task(index, f"place/a{index}", f"a{index}", "key", "") for index in range(adapters)]
    return SweepStarted(spec, tasks, None, 1.0, workers)


def test_each_metric_of_a_sweep_has_samples(
    read: Read, sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter
) -> None:
    """They have the names and labels of names.py, from the start, and none before it."""
    assert list(read.metrics.collect()) == []
    assert [one.name for one in read.metrics.describe()] == [
        metric.name for metric in sweep_names.SWEEP_METRICS
    ]

    class AtStart(SweepObserver):
        def sweep_started(self, sweep: SweepStarted) -> None:
            check()

    def check() -> None:
        for family, metric in zip(read.metrics.collect(), sweep_names.SWEEP_METRICS, strict=True):
            assert family.samples
            assert {sample.name for sample in family.samples} == {metric.name}
            assert {tuple(sample.labels) for sample in family.samples} == {metric.labels}

    sweep = sweep_of(make_adapter("one"))
    observer = SweepObservers(read.metrics, AtStart())
    run_sweep(sweep, engine_of(sweep), observer=observer)
    check()


def test_gauges_agree_with_the_result(
    read: Read, sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter
) -> None:
    """Scores, verdicts and cost are those of sweep.json."""
    adapters = make_adapter("one"), make_adapter("two", change=0.1), make_adapter("bad", error="no")
    sweep = sweep_of(*adapters)
    result = run_sweep(sweep, engine_of(sweep), observer=read.metrics)
    assert read.states() == {"finished": 2, "error": 1}
    assert read.value(sweep_names.SWEEP_ACTIVE) == 0
    assert read.value(sweep_names.SWEEP_FORWARD_PASSES) == result.passes.forward_passes > 0
    assert read.value(sweep_names.SWEEP_PASSES_NEEDED) == result.passes.demand
    hits = {
        tier: read.value(sweep_names.SWEEP_LOOKUPS, result="hit", tier=tier)
        for tier in result.passes.by_tier
    }
    assert hits == result.passes.by_tier
    assert "disk" in hits
    misses = result.passes.lookups - result.passes.hits
    assert read.value(sweep_names.SWEEP_LOOKUPS, result="miss", tier="") == misses
    for row, position in zip(result.rows, ("001", "002", "003"), strict=True):
        own = {"adapter": row.label, "position": position}
        assert read.value(sweep_names.SWEEP_ADAPTER_PASSED, **own) == row.passed
        info = {"state": row.status, "worker": row.worker, "run_id": row.run_id or ""}
        assert read.value(sweep_names.SWEEP_ADAPTER_INFO, **own, **info) == 1
        for cell in row.probes:
            score = read.value(sweep_names.SWEEP_PROBE_SCORE, **own, probe=cell.name)
            assert score == pytest.approx(_or_nan(cell.score), nan_ok=True)
            given = {"probe": cell.name, "verdict": cell.verdict.value}
            assert read.value(sweep_names.SWEEP_PROBE_VERDICT, **own, **given) == 1
    bad = {"adapter": "bad", "position": "003"}
    assert math.isnan(read.value(sweep_names.SWEEP_ADAPTER_SCORE, **bad))
    assert math.isnan(read.value(sweep_names.SWEEP_PROBE_SCORE, **bad, probe="change"))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def test_resumed_adapters_cost_nothing(
    read: Read, sweep_of: MakeSweep, engine_of: MakeEngine, make_adapter: MakeAdapter
) -> None:
    """Their scores are there, and the cost is that of this sweep alone."""
    sweep = sweep_of(make_adapter("one"))
    run_sweep(sweep, engine_of(sweep))
    run_sweep(sweep, engine_of(sweep), observer=read.metrics)
    assert read.states() == {"resumed": 1}
    assert read.value(sweep_names.SWEEP_FORWARD_PASSES) == 0
    own = {"adapter": "one", "position": "001"}
    assert read.value(sweep_names.SWEEP_ADAPTER_PASSES, **own) > 0
    assert read.value(sweep_names.SWEEP_PROBE_SCORE, **own, probe="change") > 0


def test_adapters_that_were_not_reached_are_pending(
    read: Read,
    sweep_of: MakeSweep,
    engine_of: MakeEngine,
    make_adapter: MakeAdapter,
    models: Any,
) -> None:
    """After an interrupt nothing is running."""
    sweep = sweep_of(make_adapter("one"), make_adapter("two"))
    engine = engine_of(sweep)

    def interrupt() -> None:
        assert read.states() == {"running": 1, "pending": 1}
        assert read.value(sweep_names.SWEEP_WORKERS_BUSY) == 1
        engine.request_stop()

    models.before = interrupt
    with pytest.raises(SweepInterrupted):
        run_sweep(sweep, engine, observer=read.metrics)
    assert read.states() == {"pending": 2}
    assert read.value(sweep_names.SWEEP_WORKERS_BUSY) == 0
    assert read.value(sweep_names.SWEEP_ACTIVE) == 0


def test_the_adapter_of_a_lost_worker_is_pending(read: Read, spec: SuiteSpec) -> None:
    """Until another worker starts it."""
    sweep = started(spec, 3, workers=2)
    read.metrics.sweep_started(sweep)
    for task, worker in zip(sweep.tasks[:2], ("w1", "w2"), strict=True):
        read.metrics.adapter_started(task, worker)
    assert read.states() == {"running": 2, "pending": 1}
    read.metrics.worker_lost("w1", "killed")
    assert read.states() == {"running": 1, "pending": 2}
    assert read.value(sweep_names.SWEEP_WORKERS) == 2
    assert read.value(sweep_names.SWEEP_WORKERS_BUSY) == 1
    assert read.value(sweep_names.SWEEP_WORKERS_LOST) == 1
    read.metrics.adapter_started(sweep.tasks[0], "w3")
    assert read.states() == {"running": 2, "pending": 1}


def test_the_number_of_series_is_bounded(read: Read, spec: SuiteSpec) -> None:
    """Adapters and probes beyond a number have no series, and are counted."""
    probes = [DeltaKL(name=f"p{number}", prompts=["a"]) for number in range(MAX_PROBES + 2)]
    many = spec.model_copy(update={"probes": tuple(probes)})
    read.metrics.sweep_started(started(many, MAX_ADAPTERS + 3))
    assert read.value(sweep_names.SWEEP_ADAPTERS_OMITTED) == 3
    assert read.value(sweep_names.SWEEP_PROBES_OMITTED) == 2
    assert read.states() == {"pending": MAX_ADAPTERS + 3}
    adapters = [f"a{index}" for index in range(MAX_ADAPTERS)]
    assert read.labels_of(sweep_names.SWEEP_ADAPTER_INFO, "adapter") == adapters
    assert read.labels_of(sweep_names.SWEEP_PROBE_SCORE, "adapter") == adapters
    assert read.labels_of(sweep_names.SWEEP_PROBE_VERDICT, "probe") == [
        probe.name for probe in probes[:MAX_PROBES]
    ]


def test_positions_sort_as_texts(read: Read, spec: SuiteSpec) -> None:
    """The order of texts is the order of the sweep."""
    read.metrics.sweep_started(started(spec, 120))
    positions = read.labels_of(sweep_names.SWEEP_ADAPTER_INFO, "position")
    assert positions == sorted(positions)
    assert len(positions) == 120
