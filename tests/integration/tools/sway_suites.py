"""Suites of dlm-sway over tiny models, and runs of them with and without us."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dlm_sway.backends.hf import HuggingFaceDifferentialBackend
from dlm_sway.core.model import ModelSpec
from dlm_sway.core.sections import Section, SectionPreference, SectionProbe
from dlm_sway.probes import adapter_revert, cluster_kl
from dlm_sway.suite import runner
from dlm_sway.suite.spec import SuiteDefaults, SuiteModels, SwaySpec

from forwardscope import BackendInstrumentation
from forwardscope.integrations.dlm_sway_run import instrumented
from forwardscope.integrations.tool_run import ToolRun
from forwardscope.store.locations import open_store
from forwardscope.suite.spec import SuiteSpec

from ..conftest import Zoo

PROMPTS = ["the cat sat on", "hello there", "the weather is", "the other cats"]
SECTIONS = (
    Section("a", "prose", "the cat sat on the mat and the other cats sat there " * 3),
    Section("b", "instruction", "q", probes=(SectionProbe("the cat sat", " on the mat"),)),
    Section("c", "preference", "p", preferences=(SectionPreference("the", " cat", " mat"),)),
)
_PAIR = {"prompt": "the cat sat", "gold": " on the mat", "paraphrases": ["the cats sat", "hello"]}
_FLIPS = [{"prompt": prompt, "chosen": " cat", "rejected": " mat"} for prompt in PROMPTS]
#: A probe of each kind, in the order in which the first one calibrates the others.
PROBES: tuple[dict[str, Any], ...] = (
    {"kind": "null_adapter", "runs": 2, "cache": False},
    {"kind": "delta_kl", "prompts": PROMPTS},
    {"kind": "adapter_ablation", "prompts": PROMPTS[:2], "lambdas": [0.0, 0.5, 1.0, 1.251, 1.254]},
    {"kind": "prompt_collapse", "prompts": PROMPTS[:2], "context_lengths": [0, 8, 16, 32]},
    {"kind": "calibration_drift", "items_limit": 5},
    {"kind": "external_perplexity", "chunk_chars": 128, "max_chunks": 2},
    {"kind": "section_internalization", "max_prose_chars": 60},
    {"kind": "leakage", "prefix_chars": 40, "max_new_tokens": 4},
    {"kind": "paraphrase_invariance", "cases": [_PAIR]},
    {"kind": "preference_flip", "triples": _FLIPS},
    {
        "kind": "style_fingerprint",
        "prompts": PROMPTS[:2],
        "doc_reference": "the cat sat on the mat. hello there world!",
        "max_new_tokens": 4,
    },
    {"kind": "adapter_revert", "cases": [_PAIR], "max_new_tokens": 4},
    {"kind": "cluster_kl", "prompts": PROMPTS, "num_clusters": 2, "min_prompts": 4},
)


def model(zoo: Zoo, adapter: str = "llama_lora", **settings: Any) -> ModelSpec:
    """Return the spec of a model of the zoo with an adapter, in float32 on the CPU."""
    base, own = zoo.path(adapter.partition("_")[0]), zoo.path(adapter)
    return ModelSpec(base=str(base), adapter=own, dtype="fp32", device="cpu", **settings)


def suite(models: ModelSpec, probes: Sequence[dict[str, Any]] = PROBES) -> SwaySpec:
    """Return a suite, whose probes are named for their kinds."""
    named = [{"name": one["kind"], **one} for one in probes]
    both = SuiteModels(base=models, ft=models)
    return SwaySpec(models=both, defaults=SuiteDefaults(top_k=16), suite=named)


def own_backend(spec: ModelSpec) -> HuggingFaceDifferentialBackend:
    """Load dlm-sway's own backend."""
    assert spec.adapter is not None
    return HuggingFaceDifferentialBackend(base_spec=spec, adapter_path=spec.adapter)


def run_suite(spec: SwaySpec, backend: Any) -> dict[str, Any]:
    """Run a suite; return its results by probe."""
    return {one.name: one for one in runner.run(spec, backend, sections=SECTIONS).probes}


class Runs:
    """Opens the runs of suites, with a store in a file, and keeps them.

    Args:
        file: The store; None for none.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.ended: list[ToolRun] = []

    @property
    def passes(self) -> int:
        """Forward passes of the latest run."""
        return self.ended[-1].instrumentation.stats.forward_passes

    @contextmanager
    def open(self, spec: SuiteSpec) -> Iterator[ToolRun]:
        """Open a run."""
        store = None if self.file is None else open_store(str(self.file))
        inst = BackendInstrumentation(store=store, verify=0.0, cache_maxsize=4096)
        with ToolRun(spec, inst) as run:
            yield run
        inst.close()
        if store is not None:
            store.close(5.0)
        self.ended.append(run)

    def run(self, spec: SwaySpec, backend: Any, **settings: Any) -> dict[str, Any]:
        """Run a suite on our instrumentation; return its results by probe."""
        with instrumented(self.open, **settings):
            return run_suite(spec, backend)


def values(results: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return what two runs are compared by."""
    return {
        name: (str(one.verdict), one.raw, one.score, one.z_score, one.ci_95, one.message)
        for name, one in results.items()
    }


@pytest.fixture(autouse=True)
def embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are embedded by their letters, and clustered by their order."""

    def embed(texts: list[str]) -> Any:
        return np.array([[text.count(letter) + 0.1 for letter in "aeho "] for text in texts])

    class KMeans:
        def __init__(self, n_clusters: int, **_: Any) -> None:
            self.n = n_clusters

        def fit_predict(self, vectors: Any) -> Any:
            return np.arange(len(vectors)) % self.n

    for probe in (adapter_revert, cluster_kl):
        monkeypatch.setattr(probe, "_load_embedder", lambda _: embed)
    monkeypatch.setitem(sys.modules, "sklearn", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "sklearn.cluster", SimpleNamespace(KMeans=KMeans))
