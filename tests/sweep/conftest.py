"""Sweeps without a model: adapters are folders, and their backends are scripted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forwardscope.errors import AdapterError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import DeltaKL, NullAdapter
from forwardscope.suite import SuiteSpec
from forwardscope.suite.spec import CacheSpec, ModelSpec
from forwardscope.sweep import (
    LocalEngine,
    Sweep,
    SweepFolder,
    Watch,
    Worker,
    find_adapters,
    tasks_of,
)
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

PROMPTS = ("a secret question", "another secret question", "a third one")


class ScriptedModels:
    """Opens a scripted backend, as the file `adapter_config.json` of an adapter says.

    Its `change` is the size of the adapter's change; `error` is raised instead of opening, `bug` is
    the message of an error of a library, and
    `nan` gives logits that are no numbers.
    """

    notes: Sequence[str] = ()

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed = False
        self.before: Callable[[], None] = lambda: None

    def open(
        self, spec: SuiteSpec, instrumentation: BackendInstrumentation, report: Any
    ) -> ScriptedBackend:
        adapter = Path(spec.model.adapter or "")
        self.opened.append(adapter.name)
        said = json.loads((adapter / "adapter_config.json").read_text())
        if "bug" in said:
            raise RuntimeError(said["bug"])
        if "error" in said:
            raise AdapterError(said["error"])

        def script(view: ScriptedView, prompt: str) -> Any:
            self.before()
            if said.get("nan") and view.id == "ft":
                return np.full(32, np.nan)
            own = view.id == "ft"  # null views are those of every adapter
            return pseudo_random_logits(view, prompt, change=said["change"] if own else 0.5)

        def identity(view_id: str) -> str:
            shared = view_id == "base" or view_id.startswith("null")
            return f"{view_id} of {'the base' if shared else said['change']}"

        return ScriptedBackend(script, instrumentation=instrumentation, view_identity=identity)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an adapter."""

    def make(name: str, **said: Any) -> Path:
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps({"change": 0.5, **said}))
        return folder

    return make


@pytest.fixture
def spec(tmp_path: Path) -> SuiteSpec:
    """Return a suite whose store is in the test's folder."""
    return SuiteSpec(
        version=1,
        name="tested",
        model=ModelSpec(path="some-model", adapter="some-adapter"),
        cache=CacheSpec(store=str(tmp_path / "store.db"), verify=0.0),
        probes=(
            NullAdapter(name="baseline", runs=2, sentinel_prompts=["a secret sentinel"]),
            DeltaKL(name="change", prompts=PROMPTS),
        ),
    )


@pytest.fixture
def models() -> ScriptedModels:
    """Return what opens the adapters."""
    return ScriptedModels()


@pytest.fixture
def sweep_of(spec: SuiteSpec, tmp_path: Path) -> Callable[..., Sweep]:
    """Return a function that makes a sweep of adapters in the test's folder."""

    def make(*adapters: Path, spec: SuiteSpec = spec, **more: Any) -> Sweep:
        folder = SweepFolder(tmp_path / "sweep")
        found = find_adapters([str(one) for one in adapters], [])
        return Sweep(spec, tasks_of(spec, found, folder), folder, **more)

    return make


@pytest.fixture
def engine_of(models: ScriptedModels) -> Callable[..., LocalEngine]:
    """Return a function that makes the engine of a sweep."""

    def make(sweep: Sweep, **watched: Any) -> LocalEngine:
        return LocalEngine(Worker(sweep.spec, models, Watch(**watched)))

    return make
