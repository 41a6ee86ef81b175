"""Backends and runs emit exactly the metrics, spans and attributes of names.py."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family

import forwardscope
from forwardscope.core.server_requests import Exchange
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import AdapterAblation, DeltaKL, NullAdapter, Probe, PromptCollapse
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.run_metrics import RunMetrics
from forwardscope.suite.spec import ModelSpec
from forwardscope.sweep import Measured, Sweep, SweepFolder, SweepObserver, Task, run_sweep
from forwardscope.telemetry import names, register, run_names, server_names, sweep_names
from forwardscope.telemetry.names import Metric
from forwardscope.testing import (
    InMemoryTelemetry,
    MemoryStore,
    ScriptedBackend,
    ScriptedView,
    pseudo_random_logits,
)

from .conftest import CountingStore

_SOURCE = Path(forwardscope.__file__).parent
_MODULES = sorted(_SOURCE.rglob("*.py"))
_TYPES = {"string": str, "int": int, "float": float, "boolean": bool}

each_metric = pytest.mark.parametrize("metric", names.METRICS, ids=lambda metric: metric.name)


def _suite(*probes: Probe, **settings: Any) -> SuiteSpec:
    model = ModelSpec(path="some-model", adapter="some-adapter")
    return SuiteSpec(version=1, name="tested", model=model, probes=probes, **settings)


def _script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
    if prompt == "broken":
        raise ValueError("no")
    if prompt == "interrupted":
        raise KeyboardInterrupt
    return pseudo_random_logits(view, prompt)


def test_names_are_unique() -> None:
    """No two metrics, spans or attributes have one name."""
    for kind in (names.METRICS, names.SPANS, names.ATTRIBUTES):
        own = [one.name for one in kind]
        assert sorted(set(own)) == sorted(own)


@each_metric
def test_metric_name_follows_prometheus(metric: Metric) -> None:
    """A counter, and nothing else, ends in `_total`; a base unit is part of the name."""
    assert re.fullmatch(r"forwardscope(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    in_name = [unit for unit in ("seconds", "bytes") if unit in metric.name.split("_")]
    assert [metric.unit] == in_name or (not in_name and metric.unit not in ("seconds", "bytes"))
    assert not metric.name.endswith(("_bucket", "_sum", "_count"))


@each_metric
def test_metric_has_help_labels_and_an_example(metric: Metric) -> None:
    """The example queries the metric, and no name that does not exist."""
    assert re.fullmatch(r"[A-Z0-9].*\.", metric.help)
    assert metric.labels
    assert len(set(metric.labels)) == len(metric.labels)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) and label != "le" for label in metric.labels)
    queried = set(re.findall(r"forwardscope_[a-z_]+", metric.example))
    suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    own = {f"{metric.name}{suffix}" for suffix in suffixes}
    assert queried & own
    known = {
        f"{one.name}{suffix}"
        for one in names.METRICS
        for suffix in (("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",))
    }
    assert queried <= known


def _check(families: Iterable[Family], metrics: Sequence[Metric]) -> None:
    """Compare families, each with samples, with the metrics of names.py."""
    for family, metric in zip(families, metrics, strict=True):
        stem = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
        assert (family.name, family.type) == (stem, metric.kind)
        assert family.documentation == metric.help
        assert family.unit in ("", metric.unit)
        found = {sample.name for sample in family.samples}
        if metric.kind == "histogram":
            assert found == {f"{metric.name}{suffix}" for suffix in ("_bucket", "_count", "_sum")}
        else:
            assert found == {metric.name}
        for sample in family.samples:
            bucket = ("le",) if sample.name.endswith("_bucket") else ()
            assert tuple(sample.labels) == (*metric.labels, *bucket)


def test_backend_exports_all_of_its_metrics(telemetry: InMemoryTelemetry, tmp_path: Path) -> None:
    """With all features in use, each metric has samples of its name and labels."""
    store = CountingStore(max_bytes=4096, errors={("get", "OSError"): 1})
    stored = {"store": store, "view_identity": lambda view_id: view_id, "verify": 1.0}
    BackendInstrumentation(**stored).cached("op", "ft", "stored", 0, lambda: 1.0)
    backend = telemetry.instrumentation(
        trace_path=tmp_path / "t.jsonl", cache_max_bytes=4096, **stored
    )
    backend.cached("op", "ft", "stored", 0, lambda: 1.0)
    for _ in range(2):
        backend.cached("op", "base", "prompt", 0, lambda: None)
    with pytest.raises(ValueError, match="no"):
        backend.cached(
            "op", "base", "broken", 0, lambda: _script(ScriptedView("base", 0), "broken")
        )
    backend.cached_batch("op", "base", ["a", "b"], 0, lambda indices: indices)
    backend.name_server("http://server:8000", "server", 8000)
    backend.report_request(Exchange("completions", 0.5, 2, 1, 200))
    assert backend.spans.flush(60.0)
    backend.close()
    collector = register(backend, telemetry.registry)
    _check(collector.collect(), names.BACKEND_METRICS)
    described = list(collector.describe())
    assert [family.samples for family in described] == [[]] * len(names.BACKEND_METRICS)
    assert [(one.name, one.type, one.documentation, one.unit) for one in described] == [
        (one.name, one.type, one.documentation, one.unit) for one in collector.collect()
    ]


def test_run_exports_all_of_its_metrics() -> None:
    """Each gauge has samples after a run that passed, and none before."""
    suite = _suite(DeltaKL(name="change", prompts=["a"], min_mean=1e-6), period="1d")
    metrics, registry = RunMetrics(suite), CollectorRegistry()
    registry.register(metrics)
    assert list(metrics.collect()) == []
    assert [one.name for one in metrics.describe()] == [one.name for one in run_names.RUN_METRICS]
    result = run_suite(suite, ScriptedBackend(), observer=metrics)
    assert result.passed
    _check(metrics.collect(), run_names.RUN_METRICS)
    verdicts = [
        registry.get_sample_value(
            run_names.PROBE_VERDICT.name, {**metrics.labels, "probe": "change", "verdict": verdict}
        )
        for verdict in ("pass", "fail", "error", "skip")
    ]
    assert verdicts == [1, 0, 0, 0]


class _Failing:
    """An engine of a sweep whose adapters all fail."""

    workers = 1

    def run(self, tasks: Sequence[Task], observer: SweepObserver) -> Iterator[Measured]:
        return (Measured(task.index, error="broken", error_type="AdapterError") for task in tasks)

    def request_stop(self) -> None: ...

    def close(self) -> None: ...


def test_runs_emit_every_span_and_attribute_and_no_other(
    telemetry: InMemoryTelemetry, tmp_path: Path
) -> None:
    """All four probes, an error, an interrupt and a sweep emit every attribute, of its type."""
    task = Task(0, "some-adapter", "some-adapter", "key", str(tmp_path / "trace.jsonl"))
    sweep = Sweep(_suite(DeltaKL(name="swept", prompts=["a"])), [task], SweepFolder(tmp_path))
    run_sweep(sweep, _Failing(), tracer_provider=telemetry.tracer_provider)
    instrumentation = telemetry.instrumentation()
    prompts = ("a", "b")
    run_suite(
        _suite(
            NullAdapter(name="baseline", runs=2, sentinel_prompts=["s"]),
            DeltaKL(name="change", prompts=prompts),
            AdapterAblation(name="response", prompts=prompts),
            PromptCollapse(name="long-context", prompts=prompts, context_lengths=(0, 4, 8)),
            DeltaKL(name="error", prompts=["a", "broken"]),
        ),
        ScriptedBackend(_script, instrumentation=instrumentation),
    )
    with pytest.raises(KeyboardInterrupt):
        run_suite(
            _suite(DeltaKL(name="stopped", prompts=["interrupted"])),
            ScriptedBackend(_script, instrumentation=instrumentation),
        )
    instrumentation.spans.name_model("a-model", "an-adapter", "a-provider")
    instrumentation.name_server("http://server:8000", "server", 8000)
    instrumentation.cached(
        "op", "base", "shares", 0, lambda: instrumentation.report_tokens([5], [3])
    )
    instrumentation.uncached("op", "base", "sampled", 0, lambda: "text")
    stored = {"store": MemoryStore(), "view_identity": lambda view_id: view_id, "verify": 1.0}
    for name in ("writer", "reader"):
        telemetry.instrumentation(name=name, **stored).cached("op", "ft", "stored", 0, lambda: 1.0)
    types: dict[str, dict[str, set[type]]] = defaultdict(lambda: defaultdict(set))
    for span in telemetry.spans():
        for key, value in span.attributes.items():
            types[names.kind_of(span.name)][key].add(type(value))
    assert types == {
        span.kind: {one.name: {_TYPES[one.type]} for one in span.attributes} for span in names.SPANS
    }


def test_tables_are_complete() -> None:
    """METRICS, SPANS and ATTRIBUTES have each constant of the modules."""
    constants = {one for one in vars(names).values() if isinstance(one, names.Attribute)}
    assert constants == set(names.ATTRIBUTES)
    spans = {one.name for one in vars(names).values() if isinstance(one, names.Span)}
    assert spans == {one.name for one in names.SPANS}
    tables = (names, run_names, server_names, sweep_names)
    metrics = {
        one.name for table in tables for one in vars(table).values() if isinstance(one, Metric)
    }
    assert metrics == {one.name for one in names.METRICS}


def _literals(module: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _is_module(dotted: str) -> bool:
    path = _SOURCE.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_names_are_written_once() -> None:
    """No string in another module begins like a metric or attribute, except module names."""
    found = {
        (module.relative_to(_SOURCE).as_posix(), line, text)
        for module in _MODULES
        for line, text in _literals(module)
        if text.startswith(("forwardscope_", "forwardscope.")) and not _is_module(text)
    }
    places = {"names", "run_names", "server_names", "sweep_names"}
    assert {where for where, _, _ in found} == {f"telemetry/{one}.py" for one in places}


def _imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_library_does_not_import_the_sdk() -> None:
    """Only `cli` and `testing` import OpenTelemetry's SDK and exporters."""
    importing = {
        module.relative_to(_SOURCE).parts[0]
        for module in _MODULES
        for name in _imported(module)
        if f"{name}.".startswith(("opentelemetry.sdk.", "opentelemetry.exporter."))
    }
    assert importing == {"cli", "testing"}
