"""`forwardscope plan` with a store, on models: what it says is what the next run pays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from forwardscope.backends.hf import load_backend
from forwardscope.cli.app import app
from forwardscope.suite import SuiteResult

Copy = Callable[[str], Path]

PROMPTS = ["the cat sat on the", "hello there", "the weather"]
PROBES = [
    {"name": "baseline", "kind": "null_adapter", "runs": 2, "sentinel_prompts": PROMPTS[:1]},
    {"name": "change", "kind": "delta_kl", "prompts": PROMPTS},
    {"name": "response", "kind": "adapter_ablation", "prompts": PROMPTS[:2]},
    {
        "name": "long-context",
        "kind": "prompt_collapse",
        "prompts": PROMPTS[:1],
        "context_lengths": [0, 16, 32],
    },
]


def called(*arguments: object, status: tuple[int, ...] = (0,)) -> str:
    """Call the command line; return what it printed."""
    ran = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert ran.exit_code in status, ran.output
    return ran.stdout


def write_suite(path: Path, model: dict[str, str], probes: list[dict[str, Any]]) -> Path:
    """Write a suite on the CPU."""
    suite = {"version": 1, "model": {"device": "cpu", **model}, "probes": probes}
    path.write_text(yaml.safe_dump(suite))
    return path


def plan_of(suite: Path, store: Path) -> dict[str, Any]:
    """Return the plan of a suite with a store."""
    return dict(json.loads(called("plan", suite, "--store", store, "--format", "json")))


def paid(suite: Path, store: Path) -> list[tuple[str, str, int, int]]:
    """Run a suite with a store; return probe, view, answered and paid passes by series."""
    path = suite.with_suffix(".json")
    called("run", suite, "--store", store, "--quiet", "--json", path, status=(0, 1))
    result = SuiteResult.model_validate_json(path.read_text())
    assert result.complete
    return [
        (one.probe or "(outside)", one.view_id, one.store_hits, one.forward_passes)
        for one in result.series
    ]


def planned(suite: Path, store: Path) -> list[tuple[str, str, int, int]]:
    """Return what `paid` will return, and check that the plan runs no forward pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", _refuse)
        rows = plan_of(suite, store)["series"][:-1]
    return [(one["probe"], one["view"], one["stored"], one["to_pay"]) for one in rows]


def _refuse(*_: object, **__: object) -> None:
    pytest.fail("a plan runs no forward pass")


@pytest.mark.parametrize("kind", ["lora", "dora", "tokens", "head"])
def test_a_run_pays_what_is_planned(zoo: Any, tmp_path: Path, kind: str) -> None:
    """After a run of a part of the suite, and after a run of all of it."""
    store, model = tmp_path / "s.db", {"path": str(zoo.path("llama"))}
    model["adapter"] = str(zoo.path(f"llama_{kind}"))
    paid(write_suite(tmp_path / "part.yaml", model, PROBES[:2]), store)
    whole = write_suite(tmp_path / "whole.yaml", model, PROBES)
    first = planned(whole, store)
    assert {bool(stored) for _, _, stored, _ in first} == {True, False}
    assert first == paid(whole, store)
    again = planned(whole, store)
    assert sum(to_pay for *_, to_pay in again) == 0
    assert again == paid(whole, store)


def test_another_adapter_pays_for_its_own_views(zoo: Any, tmp_path: Path) -> None:
    """Base and null views are stored, the others are not."""
    store, path = tmp_path / "s.db", str(zoo.path("llama"))
    for adapter in ("llama_lora", "llama_other"):
        model = {"path": path, "adapter": str(zoo.path(adapter))}
        suite = write_suite(tmp_path / f"{adapter}.yaml", model, PROBES)
        expected = planned(suite, store)
        assert expected == paid(suite, store)
    own = {view for _, view, _, to_pay in expected if to_pay}
    assert own == {"ft", "scaled_0.25", "scaled_0.5", "scaled_0.75", "scaled_1.25"}


def test_a_changed_weight_is_another_model(copy_of: Copy, tmp_path: Path) -> None:
    """Nothing that was stored is promised for it."""
    store, folder = tmp_path / "s.db", copy_of("llama")
    model = {"path": str(folder), "adapter": str(copy_of("llama_lora"))}
    suite = write_suite(tmp_path / "suite.yaml", model, PROBES[1:2])
    paid(suite, store)
    assert plan_of(suite, store)["store"]["to_pay"] == 0
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[min(tensors)].view(torch.int32).view(-1)[0] ^= 1
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    assert plan_of(suite, store)["store"]["stored"] == 0


def test_a_full_fine_tune(zoo: Any, copy_of: Copy, tmp_path: Path) -> None:
    """Its plan with a store is that of its run, with both models loaded and none computed."""
    store, tuned = tmp_path / "s.db", copy_of("llama")
    file = tuned / "model.safetensors"
    tensors = {name: tensor * 1.1 for name, tensor in load_file(file).items()}
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    model = {"path": str(zoo.path("llama")), "tuned": str(tuned)}
    paid(write_suite(tmp_path / "part.yaml", model, PROBES[1:2]), store)
    whole = write_suite(tmp_path / "whole.yaml", model, PROBES)
    assert planned(whole, store) == paid(whole, store)


def test_a_model_that_is_gone(copy_of: Copy, tmp_path: Path) -> None:
    """The plan is printed, and the reason why its store was not asked."""
    store, folder = tmp_path / "s.db", copy_of("llama")
    model = {"path": str(folder), "adapter": str(copy_of("llama_lora"))}
    suite = write_suite(tmp_path / "suite.yaml", model, PROBES[1:2])
    paid(suite, store)
    shutil.rmtree(folder)
    last = called("plan", suite, "--store", store).splitlines()[-1]
    reason = f"model path {folder} is not a folder"
    assert last.startswith(f"what the store {store} would answer is not known: {reason}")


@pytest.mark.parametrize("exactness", ["fast", "strict"])
def test_a_backend_that_is_not_checked(
    zoo: Any, monkeypatch: pytest.MonkeyPatch, exactness: Any
) -> None:
    """It has the identities of one that is; it runs no forward pass at load, and optimises none."""
    source = zoo.source("llama_lora")
    views = ("base", "ft", "scaled_0.5", "null_3")
    checked = load_backend(source, exactness=exactness)
    expected = [checked.view_identity(view) for view in views]
    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", _refuse)
        backend = load_backend(source, exactness=exactness, check=False)
        assert [backend.view_identity(view) for view in views] == expected
    assert all(state.startswith("off (") for state in backend.optimisations.values())
    with backend.as_base() as one, checked.as_base() as other:
        first, second = (view.next_token_dist(PROMPTS[0]) for view in (one, other))
    assert first.logprobs == pytest.approx(second.logprobs, abs=1e-4)
