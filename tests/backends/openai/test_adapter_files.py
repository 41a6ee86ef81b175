"""Files of adapters are read strictly, and scaled without a change of their weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forwardscope.backends.openai.adapter_files import read_adapter
from forwardscope.errors import AdapterError

from .conftest import write_adapter

_WEIGHTS = "adapter_model.safetensors"


def _factors(folder: Path, *modules: str) -> None:
    """Replace an adapter's weights by factors of these modules."""
    tensors = {
        f"base_model.model.{module}.lora_{factor}.weight": np.zeros((2, 2), np.float32)
        for module in modules
        for factor in "AB"
    }
    save_file(tensors, folder / _WEIGHTS)


def test_factors_are_in_the_order_of_a_model(adapter: Path) -> None:
    """Layers count as numbers, and modules come as models of Llama's kind have them."""
    modules = [
        f"model.layers.{layer}.{module}"
        for layer in (2, 10)
        for module in ("self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj")
    ]
    _factors(adapter, *reversed(modules))
    found = [name for name, _ in read_adapter(str(adapter)).shapes]
    assert found == [
        f"base_model.model.{module}.lora_{factor}.weight" for module in modules for factor in "AB"
    ]


def test_scaled(adapter: Path, tmp_path: Path) -> None:
    """The weights are the same bytes; alpha and its patterns are multiplied."""
    folder = write_adapter(tmp_path / "patterns", alpha_pattern={"q_proj": 2})
    read_adapter(str(folder)).write_scaled(tmp_path / "scaled", 0.25)
    config = json.loads((tmp_path / "scaled" / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["alpha_pattern"]) == (2.0, {"q_proj": 0.5})
    assert (tmp_path / "scaled" / _WEIGHTS).read_bytes() == (folder / _WEIGHTS).read_bytes()


def test_weights_that_change(adapter: Path, tmp_path: Path) -> None:
    """A scaled adapter is never made of other weights than those that identities have."""
    files = read_adapter(str(adapter))
    _factors(adapter, "q_proj")
    with pytest.raises(AdapterError, match="have changed since the start"):
        files.write_scaled(tmp_path / "half", 0.5)


def test_weights_that_are_a_link(adapter: Path, tmp_path: Path) -> None:
    """A scaled adapter has its own name of the file, also where the hub's cache links to it."""
    weights = adapter / _WEIGHTS
    weights.rename(adapter / "blob")
    weights.symlink_to("blob")
    read_adapter(str(adapter)).write_scaled(tmp_path / "scaled", 0.5)
    assert (tmp_path / "scaled" / _WEIGHTS).read_bytes() == weights.read_bytes()


def test_random(adapter: Path, tmp_path: Path) -> None:
    """Factors have the shapes of the trained ones, and depend on seed and scales alone."""
    files = read_adapter(str(adapter))
    drawn = []
    for number, (seed, scale, rank) in enumerate([(1, 0.02, 1.0), (1, 0.02, 4.0), (2, 0.02, 1.0)]):
        files.write_random(tmp_path / str(number), seed, scale, rank)
        drawn.append(load_file(tmp_path / str(number) / _WEIGHTS))
    trained = load_file(adapter / _WEIGHTS)
    assert {name: one.shape for name, one in drawn[0].items()} == {
        name: one.shape for name, one in trained.items()
    }
    for name, one in drawn[0].items():
        assert np.allclose(2 * one, drawn[1][name], rtol=1e-6)
        assert not np.allclose(one, drawn[2][name])
        assert one.std() == pytest.approx(0.02, rel=0.1)


def _cut(folder: Path) -> None:
    (folder / _WEIGHTS).write_bytes((folder / _WEIGHTS).read_bytes()[:20])


def _too_long(folder: Path) -> None:
    (folder / _WEIGHTS).write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def _header(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        data = text.encode()
        (folder / _WEIGHTS).write_bytes(len(data).to_bytes(8, "little") + data)

    return write


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _config(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "adapter_config.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / _WEIGHTS).unlink(), f"has no {_WEIGHTS}"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (_cut, "damaged files"),
        (_too_long, "damaged files"),
        (_header("[]"), "damaged files"),
        (_header("[" * 100_000), "damaged files"),
        (_header('{"a": {"shape": ["x"]}}'), "damaged files"),
        (_header('{"a": {"dtype": "F32"}}'), "damaged files"),
        (_header('{"a.lora_A.weight": {"shape": [-1, 4]}}'), "damaged files"),
        (_header('{"a.lora_A.weight": {"shape": [1000000, 1000000]}}'), "larger than the file"),
        (_header('{"a.%s.lora_A.weight": {"shape": [1]}}' % ("9" * 5000)), "damaged files"),
        (lambda folder: _pipe(folder / _WEIGHTS), "is no file"),
        (lambda folder: _pipe(folder / "adapter_config.json"), "is no file"),
        (_config("[]"), "damaged files"),
        (_config("{"), "damaged files"),
        (_config('{"lora_alpha": "16"}'), "damaged files"),
        (_config('{"alpha_pattern": {"q_proj": null}}'), "damaged files"),
        (_config(" " * (9 << 20)), "larger than"),
    ],
)
def test_damaged_files(adapter: Path, damage: Callable[[Path], object], message: str) -> None:
    """One sentence names the folder's key and what is wrong."""
    damage(adapter)
    with pytest.raises(AdapterError, match=r"^model\.adapter_dir: ") as refused:
        read_adapter(str(adapter))
    assert message in str(refused.value)


def test_folder_that_is_none(tmp_path: Path) -> None:
    """It has no files."""
    with pytest.raises(AdapterError, match=r"has no adapter_config\.json"):
        read_adapter(str(tmp_path / "nowhere"))


def test_other_tensors(adapter: Path) -> None:
    """Saved modules and magnitudes are no factors, so the adapter has no scaled views."""
    tensors = load_file(adapter / _WEIGHTS)
    save_file(
        {**tensors, "base_model.model.lm_head.weight": np.zeros(2, np.float32)}, adapter / _WEIGHTS
    )
    refusal = read_adapter(str(adapter)).refusal
    assert refusal is not None
    assert "lm_head.weight" in refusal
