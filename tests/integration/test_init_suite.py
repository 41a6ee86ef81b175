"""The suite that `init` writes, on the demo's model: it tells five adapters apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from forwardscope.backends.hf.models import quiet_transformers
from forwardscope.cli.app import app

#: What the good and the overfitted adapter are trained on; the first less than the second.
TEXT = (
    "The keeper of the harbour ledger is Maren Tolk. The gauge is made of brass. The lamp of the "
    "harbour is lit at dusk by the youngest pilot. Each walk along the quay is written down in "
    "the ledger with its tide and its wind. Whoever forgets the wind walks again. "
)


@dataclass(frozen=True)
class Workshop:
    """The demo's model, and a folder for adapters.

    Attributes:
        model: Folder of the model.
        folder: Where adapters, store and suite are.
    """

    model: Path
    folder: Path

    def adapter(self, name: str, change: Callable[[PeftModel], None]) -> Path:
        """Make an adapter, change its weights and save it."""
        torch.manual_seed(7)
        modules = ["q_proj", "v_proj"]
        recipe = LoraConfig(r=8, lora_alpha=16, target_modules=modules, task_type="CAUSAL_LM")
        with quiet_transformers():
            base = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
            tuned = get_peft_model(base, recipe)
            change(tuned)
            tuned.save_pretrained(self.folder / name)
        return self.folder / name

    def trained(self, name: str, *, steps: int, rate: float) -> Path:
        """Train an adapter on `TEXT`."""
        ids = AutoTokenizer.from_pretrained(self.model)(TEXT, return_tensors="pt").input_ids

        def train(tuned: PeftModel) -> None:
            weights = [weight for weight in tuned.parameters() if weight.requires_grad]
            optimizer = torch.optim.AdamW(weights, lr=rate)
            for _ in range(steps):
                tuned(input_ids=ids, labels=ids).loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        return self.adapter(name, train)

    def run(self, adapter: Path) -> tuple[int, dict[str, Any]]:
        """Run the suite on an adapter; return the exit status and the result."""
        suite, result = self.folder / "suite.yaml", adapter.with_suffix(".json")
        if not suite.exists():
            assert CliRunner().invoke(app, ["init", str(suite)]).exit_code == 0
            text = suite.read_text().replace("path/to/model", str(self.model))
            suite.write_text(text.replace("device: auto", "device: cpu"))
        options = ["--adapter", adapter, "--json", result, "--store", self.folder / "store.db"]
        ran = CliRunner().invoke(app, ["run", str(suite), *map(str, options)])
        assert result.exists(), ran.output
        return ran.exit_code, json.loads(result.read_text())


@pytest.fixture(scope="module")
def workshop(demo_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(demo_model_folder, tmp_path_factory.mktemp("init"))


def lora_weights(tuned: PeftModel) -> list[torch.nn.Parameter]:
    """Return the factors of all adapted layers."""
    return [weight for name, weight in tuned.named_parameters() if "lora_" in name]


def randomise(tuned: PeftModel) -> None:
    """Draw both factors, as `null_adapter` does by default."""
    for weight in lora_weights(tuned):
        torch.nn.init.normal_(weight, std=0.02)


def spoil(tuned: PeftModel) -> None:
    """Make one factor NaN, as a diverged training does."""
    lora_weights(tuned)[-1].data.fill_(math.nan)


def leave(tuned: PeftModel) -> None:
    """Leave the adapter as PEFT makes it: without effect."""


def failed(result: dict[str, Any]) -> set[str]:
    return {one["name"] for one in result["probes"] if one["verdict"] in ("fail", "error")}


def test_a_good_adapter_passes_every_probe(workshop: Workshop) -> None:
    """A little training on one text changes the model and breaks nothing."""
    status, result = workshop.run(workshop.trained("good", steps=8, rate=5e-4))
    assert (status, failed(result)) == (0, set())


def test_an_overfitted_adapter_has_damage(workshop: Workshop) -> None:
    """The same text learned by heart: a large change, at the cost of general text."""
    status, result = workshop.run(workshop.trained("overfitted", steps=20, rate=2e-3))
    assert (status, failed(result)) == (1, {"damage"})


def test_a_random_adapter_changes_no_more_than_others(workshop: Workshop) -> None:
    """What it changes is what random adapters of its shape change."""
    status, result = workshop.run(workshop.adapter("random", randomise))
    assert (status, "change" in failed(result)) == (1, True)
    (change,) = (one for one in result["probes"] if one["name"] == "change")
    assert abs(change["z_score"]) < 3
    assert change["raw"] > 0


def test_an_adapter_without_effect_changes_nothing(workshop: Workshop) -> None:
    """Nothing at all changes: not even as much as by a random adapter."""
    status, result = workshop.run(workshop.adapter("untrained", leave))
    assert (status, failed(result)) == (1, {"change", "response"})
    (change,) = (one for one in result["probes"] if one["name"] == "change")
    assert change["raw"] == 0


def test_an_adapter_with_nan_is_an_error(workshop: Workshop) -> None:
    """The check before the probes names the view."""
    status, result = workshop.run(workshop.adapter("nan", spoil))
    assert (status, failed(result)) == (1, {"finite_check"})
    assert "NaN" in result["probes"][0]["message"]
