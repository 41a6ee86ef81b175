"""What the gauges of a run say of the process."""

from __future__ import annotations

import sys
import time

import pytest
from prometheus_client import CollectorRegistry

from forwardscope import BackendInstrumentation
from forwardscope.core.server_requests import Exchange
from forwardscope.probes import DeltaKL
from forwardscope.store.base import StoreStats
from forwardscope.suite import RunMetrics, SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.result import ServerUse
from forwardscope.suite.spec import ModelSpec
from forwardscope.telemetry import run_names
from forwardscope.telemetry.names import Metric
from forwardscope.testing import (
    MemoryStore,
    ScriptedBackend,
    ScriptedView,
    pseudo_random_logits,
)
from forwardscope.testing.scripted import FloatArray

_PASS_S = 0.02


def busy_logits(view: ScriptedView, prompt: str) -> FloatArray:
    """Compute for a while, as a model does."""
    until = time.process_time() + _PASS_S
    while time.process_time() < until:
        pass
    return pseudo_random_logits(view, prompt)


@pytest.fixture
def spec() -> SuiteSpec:
    """Return a suite of six forward passes."""
    probe = DeltaKL(name="change", prompts=["a", "b", "c"], min_mean=1e-6)
    model = ModelSpec(path="some-model", adapter="some-adapter")
    return SuiteSpec(version=1, name="tested", model=model, probes=[probe])


def value(metrics: RunMetrics, metric: Metric) -> float:
    """Return the value of a gauge."""
    registry = CollectorRegistry()
    registry.register(metrics)
    found = registry.get_sample_value(metric.name, metrics.labels)
    assert found is not None
    return found


def test_cpu_time_is_that_of_the_run(spec: SuiteSpec) -> None:
    """It has the CPU time of the forward passes, and none of before or after the run."""
    metrics = RunMetrics(spec)
    for _ in range(20):
        busy_logits(ScriptedView("base", 0), "before")
    since = time.process_time()
    run_suite(spec, ScriptedBackend(busy_logits), observer=metrics)
    cpu = value(metrics, run_names.RUN_CPU_SECONDS)
    assert 6 * _PASS_S <= cpu <= time.process_time() - since
    busy_logits(ScriptedView("base", 0), "after")
    assert value(metrics, run_names.RUN_CPU_SECONDS) == cpu


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report it")
def test_peak_memory_is_in_bytes(spec: SuiteSpec) -> None:
    """It is at least what the process holds."""
    held = b"x" * 50_000_000
    metrics = RunMetrics(spec)
    run_suite(spec, ScriptedBackend(), observer=metrics)
    assert len(held) < value(metrics, run_names.RUN_MEMORY) < 1000 * len(held)


def test_gauges_of_the_store_are_those_of_the_result(spec: SuiteSpec) -> None:
    """During the run they have what was verified so far, after it what the result says."""
    store = MemoryStore()

    def run(ft: str) -> tuple[SuiteResult, RunMetrics, list[float]]:
        metrics, during = RunMetrics(spec), []

        def script(view: ScriptedView, prompt: str) -> FloatArray:
            during.append(value(metrics, run_names.RUN_STORE_VERIFIED))
            return pseudo_random_logits(view, prompt + (ft if view.id == "ft" else ""))

        backend = ScriptedBackend(
            script,
            instrumentation=BackendInstrumentation(store=store, verify=1.0),
            view_identity=lambda view_id: view_id,
        )
        return run_suite(spec, backend, observer=metrics), metrics, during

    run("")
    result, metrics, during = run(" was another")
    used = result.store
    assert used is not None
    assert used.verified + used.mismatches == used.hits
    assert 0 < max(during) <= used.verified < used.hits
    assert value(metrics, run_names.RUN_STORE_VERIFIED) == used.verified
    assert value(metrics, run_names.RUN_STORE_MISMATCHES) == used.mismatches
    assert value(metrics, run_names.RUN_STORE_HITS) == used.hits


def test_gauges_of_a_store_that_fails(spec: SuiteSpec) -> None:
    """They have the losses of the run, also where it ends without a result."""

    class Failing(MemoryStore):
        lost = StoreStats()

        def stats(self) -> StoreStats:
            return self.lost

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        store.lost = StoreStats(corrupt=2, dropped=3, errors={("get", "A"): 1, ("put", "B"): 4})
        if prompt == "c":
            raise KeyboardInterrupt
        return pseudo_random_logits(view, prompt)

    store, metrics = Failing(), RunMetrics(spec)
    backend = ScriptedBackend(script, instrumentation=BackendInstrumentation(store=store))
    with pytest.raises(KeyboardInterrupt):
        run_suite(spec, backend, observer=metrics)
    gauges = (run_names.RUN_STORE_CORRUPT, run_names.RUN_STORE_DROPPED, run_names.RUN_STORE_ERRORS)
    assert [value(metrics, one) for one in gauges] == [2, 3, 5]


def test_gauges_of_requests_to_a_server(spec: SuiteSpec) -> None:
    """They count those of the run, during the run too; a run without a server has zeros."""
    gauges = (run_names.RUN_REQUESTS, run_names.RUN_REQUEST_RETRIES)
    gauges += (run_names.RUN_REQUEST_THROTTLED,)
    during = []

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        backend.instrumentation.report_request(Exchange("completions", 0.1, 3, 1, 200))
        during.append([value(metrics, one) for one in gauges])
        return pseudo_random_logits(view, prompt)

    def run() -> SuiteResult:
        return run_suite(spec, backend, observer=metrics)

    backend, metrics = ScriptedBackend(script), RunMetrics(spec)
    assert run().server is None
    assert [value(metrics, one) for one in gauges] == [0, 0, 0]
    backend = ScriptedBackend(script)
    backend.instrumentation.name_server("http://server:8000", "server", 8000)
    backend.instrumentation.report_request(Exchange("models", 0.1, 2, 0, 200))
    during.clear()
    result = run()
    passes = result.backend_stats["forward_passes"]
    assert during[0] == [1, 2, 1]
    assert [value(metrics, one) for one in gauges] == [passes, 2 * passes, passes]
    assert result.server == ServerUse(
        address="server",
        port=8000,
        requests=passes,
        retries=2 * passes,
        throttled=passes,
        failed=0,
    )


def test_gauges_of_a_store_without_one(spec: SuiteSpec) -> None:
    """They are 0, so that a push replaces those of the run before."""
    metrics = RunMetrics(spec)
    run_suite(spec, ScriptedBackend(), observer=metrics)
    gauges = [one for one in run_names.RUN_METRICS if "_store_" in one.name]
    assert [value(metrics, one) for one in gauges] == [0] * 6


def test_a_later_run_takes_the_place_of_the_one_before(spec: SuiteSpec) -> None:
    """The gauges are those of the latest run, also while it goes on, and of its adapter."""
    metrics = RunMetrics(spec)
    run_suite(spec, ScriptedBackend(), observer=metrics)
    assert value(metrics, run_names.RUN_PASSED) == 1.0
    model = spec.model.model_copy(update={"adapter": "another"})
    seen: list[float] = []

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        seen.append(value(metrics, run_names.RUN_ACTIVE))
        raise RuntimeError("no logits")

    later = spec.model_copy(update={"model": model})
    run_suite(later, ScriptedBackend(script), observer=metrics)
    assert set(seen) == {1.0}
    assert value(metrics, run_names.RUN_PASSED) == 0.0
    [info] = [one for one in metrics.collect() if one.name == run_names.RUN_INFO.name]
    assert [sample.labels["adapter"] for sample in info.samples] == ["another"]
