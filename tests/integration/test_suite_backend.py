"""The backend of a suite has what the suite says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forwardscope import TraceReader
from forwardscope.errors import ModelError, OutputError
from forwardscope.suite import SuiteSpec, load_backend, load_suite, run_suite

SUITE = """version: 1
model: {{path: {path}, adapter: {adapter}, device: cpu, dtype: {dtype}}}
exactness: strict
cache: {{max_entries: 7, max_bytes: 1MiB, store: {store}, verify: 0.0}}
probes:
  - {{name: one, kind: delta_kl, prompts: [the cat, the dog]}}
"""


@pytest.fixture
def suite(zoo: Any, tmp_path: Path) -> SuiteSpec:
    """A suite of a small model, with a store of its own."""
    source = zoo.source("llama_lora")
    text = SUITE.format(
        path=source.path, adapter=source.adapter, dtype="bfloat16", store=tmp_path / "values.db"
    )
    (tmp_path / "suite.yaml").write_text(text)
    return load_suite(tmp_path / "suite.yaml")


def test_settings_of_the_suite(suite: SuiteSpec) -> None:
    """Device, dtype, exactness and the bounds of the cache."""
    with load_backend(suite) as backend:
        assert (backend.device, backend.dtype, backend.exactness) == ("cpu", "bfloat16", "strict")
        assert backend.instrumentation.cache.maxsize == 7
        assert backend.instrumentation.cache.max_bytes == 1 << 20


def test_a_second_run_has_the_values_of_the_first(suite: SuiteSpec, tmp_path: Path) -> None:
    """They are in the suite's store, which is closed at the end; the trace has all lookups."""
    hits = []
    for _ in range(2):
        with load_backend(suite, trace_path=tmp_path / "trace.jsonl") as backend:
            result = run_suite(suite, backend)
        assert result.store is not None
        hits.append(result.store.hits)
    assert hits[0] == 0
    assert hits[1] > 0
    lookups = result.backend_stats["cache_hits"] + result.backend_stats["cache_misses"]
    assert len(list(TraceReader(tmp_path / "trace.jsonl"))) == 2 * lookups


def test_what_cannot_be_loaded(suite: SuiteSpec, tmp_path: Path) -> None:
    """A model or a trace that cannot be had is an error, and no empty trace remains."""
    model = suite.model.model_copy(update={"path": "./missing"})
    trace = tmp_path / "trace.jsonl"
    with pytest.raises(ModelError, match="missing"):
        load_backend(suite.model_copy(update={"model": model}), trace_path=trace).__enter__()
    assert not trace.exists()
    with pytest.raises(OutputError, match="trace"):
        load_backend(suite, trace_path=tmp_path).__enter__()
