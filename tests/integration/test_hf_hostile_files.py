"""Files of unknown origin: no code runs, no pickle is read, and nothing grows without bound."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.errors import AdapterError, ModelError, NonFiniteError

Copy = Callable[[str], Path]
_SLOW = "(([a-z0-9_.])+)+!"
_INDEX = "model.safetensors.index.json"


def _refusal(source: ModelSource) -> str:
    with pytest.raises((AdapterError, ModelError)) as raised:
        load_backend(source)
    return str(raised.value)


def _set(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def adapter(copy_of: Copy) -> Path:
    """Folder of an adapter that a test may change."""
    return copy_of("llama_lora")


@pytest.fixture
def model(copy_of: Copy) -> Path:
    """Folder of a model that a test may change."""
    return copy_of("llama")


@pytest.fixture
def source(zoo: Any, adapter: Path) -> ModelSource:
    """The sound model with the adapter that a test may change."""
    return replace(zoo.source("llama_lora"), adapter=str(adapter))


@pytest.fixture
def module_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `planted.code` that can be imported; the file that it writes when it runs."""
    ran = tmp_path / "ran"
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "code.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield ran
    for name in ("planted", "planted.code"):
        sys.modules.pop(name, None)


def test_module_of_a_config_is_not_imported(
    source: ModelSource, adapter: Path, module_in_the_way: Path
) -> None:
    """A config that names a module for PEFT to import is refused, or the name is left out."""
    config = adapter / "adapter_config.json"
    parent = {"parent_library": "planted.code", "base_model_class": "x"}
    _set(config, megatron_core="planted.code", auto_mapping=parent)
    load_backend(source).close()
    _set(config, megatron_config={"x": 1})
    assert "has megatron_config in its adapter_config.json" in _refusal(source)
    assert not module_in_the_way.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": _SLOW},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": _SLOW},
        {"rank_pattern": {_SLOW: 3}},
        {"alpha_pattern": {_SLOW: 3}},
        {"layers_pattern": [_SLOW], "layers_to_transform": [0]},
    ],
)
def test_pattern_that_never_ends(
    source: ModelSource, adapter: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pattern that would search the model's names for ever is refused in a bounded time."""
    monkeypatch.setattr("forwardscope.backends.hf.adapter_config.PATTERN_TIME_S", 0.5)
    _set(adapter / "adapter_config.json", **change)
    assert "has patterns that search the model's names for over" in _refusal(source)


def test_pattern_that_is_none(source: ModelSource, adapter: Path) -> None:
    """A pattern that is no regular expression is refused."""
    _set(adapter / "adapter_config.json", target_modules="(.*q_proj")
    assert "has a pattern that is not valid" in _refusal(source)


def test_pattern_that_ends(source: ModelSource, adapter: Path, zoo: Any) -> None:
    """A pattern in place of a list of modules gives the same values."""
    _set(adapter / "adapter_config.json", target_modules=r".*\.(q|v)_proj")
    values = []
    for one in (source, zoo.source("llama_lora")):
        with load_backend(one).as_finetuned() as view:
            values.append(view.next_token_dist("the cat").logprobs)
    assert (values[0] == values[1]).all()


def test_settings_of_null(source: ModelSource, adapter: Path, zoo: Any) -> None:
    """A setting that a training program left empty has its default, as PEFT reads it."""
    nulls = dict.fromkeys(
        ("fan_in_fan_out", "bias", "use_rslora", "use_dora", "lora_bias", "rank_pattern"), None
    )
    _set(adapter / "adapter_config.json", **nulls)
    values = []
    for one in (source, zoo.source("llama_lora")):
        with load_backend(one).as_finetuned() as view:
            values.append(view.next_token_dist("the cat").logprobs)
    assert (values[0] == values[1]).all()


def test_rank_of_another_tensor_s_size(source: ModelSource, adapter: Path) -> None:
    """A rank that only a saved embedding has as a dimension is refused."""
    file = adapter / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.x.weight": torch.zeros(1000, 1)}, file)
    _set(adapter / "adapter_config.json", r=1000)
    assert "has rank 1000 in adapter_config.json" in _refusal(source)


def test_adapter_in_the_folder_of_a_model(source: ModelSource, model: Path, zoo: Any) -> None:
    """It is refused before transformers reads it, with whatever its config says."""
    shutil.copy(zoo.path("llama_lora") / "adapter_config.json", model)
    _set(model / "adapter_config.json", target_modules=_SLOW)
    assert "has an adapter in its folder" in _refusal(replace(source, path=str(model)))


def test_files_beside_the_weights(source: ModelSource, model: Path, zoo: Any) -> None:
    """Weights in another format, which transformers does not read, are not read either."""
    (model / "consolidated.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    load_backend(replace(source, path=str(model))).close()


@pytest.mark.parametrize(
    "change", [{"r": 10**7}, {"rank_pattern": {"q_proj": 10**9}}, {"r": 0}, {"r": 10**400}]
)
def test_rank_that_no_tensor_has(
    source: ModelSource, adapter: Path, change: dict[str, Any]
) -> None:
    """A rank beyond the file's tensors is refused before it is allocated."""
    _set(adapter / "adapter_config.json", **change)
    assert "rank" in _refusal(source) or "bad value of r" in _refusal(source)


def test_token_that_no_tokenizer_has(source: ModelSource, adapter: Path) -> None:
    """A trained token beyond the tokenizer's is refused before its rows are allocated."""
    _set(adapter / "adapter_config.json", trainable_token_indices=[10**9])
    assert "trains token 1000000000" in _refusal(source)


def test_setting_that_is_not_known(source: ModelSource, adapter: Path) -> None:
    """A setting of a later PEFT is ignored with a warning, unless it is off."""
    _set(adapter / "adapter_config.json", use_later=True, also_later=None, later_list=[])
    [warning] = load_backend(source).warnings
    assert warning.endswith("settings that are not known and ignored: use_later")


def _shard(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (folder / _INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["model.bin", "../llama/model.safetensors", "sub/a.safetensors"])
def test_index_that_names_other_files(source: ModelSource, model: Path, name: str) -> None:
    """An index that leads to a pickle or out of the folder is refused."""
    _shard(model, name)
    (model / "model.safetensors").unlink()
    refusal = _refusal(replace(source, path=str(model)))
    assert f"names the weights file {name!r}" in refusal


def test_pickle_behind_an_index_is_not_read(source: ModelSource, model: Path) -> None:
    """Weights in a pickle are refused also where an index of safetensors names them."""
    weights = load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    _shard(model, "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert "only .safetensors files" in _refusal(replace(source, path=str(model)))


def test_sharded_model_loads(source: ModelSource, model: Path) -> None:
    """A model in shards of its own folder loads, and its identity follows their content."""
    (model / "model.safetensors").rename(model / "part.safetensors")
    shutil.copy(model / "part.safetensors", model / "model.safetensors")
    _shard(model, "part.safetensors")
    (model / "model.safetensors").unlink()
    identities = []
    for _ in range(2):
        backend = load_backend(replace(source, path=str(model)))
        identities.append(backend.identity())
        backend.close()
        weights = load_file(model / "part.safetensors")
        weights["model.norm.weight"] = weights["model.norm.weight"] + 1
        save_file(weights, model / "part.safetensors", {"format": "pt"})
    assert identities[0] != identities[1]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("attn_implementation", "someone/kernel", "may be code on the hub"),
        ("attn_implementation", {"": "kernels-community/x"}, "may be code on the hub"),
        ("attn_implementation", "flash_attention_2", "may be code on the hub"),
        ("transformers_weights", "adapter_model.bin", "names the weights file"),
        ("transformers_weights", "../other/model.safetensors", "names the weights file"),
    ],
)
def test_config_that_leads_elsewhere(
    source: ModelSource, model: Path, key: str, value: str, expected: str
) -> None:
    """A model's config that names kernels on the hub or other weights is refused."""
    _set(model / "config.json", **{key: value})
    assert expected in _refusal(replace(source, path=str(model)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_hidden_layers": 10**9}, "has num_hidden_layers 1000000000"),
        ({"hidden_size": 2**16, "num_attention_heads": 2**10}, "weights, and its files have"),
        ({"vocab_size": 10**9}, "weights, and its files have"),
    ],
)
def test_config_of_a_much_larger_model(
    source: ModelSource, model: Path, changes: dict[str, int], expected: str
) -> None:
    """A config that describes more than its files have is refused before it is allocated."""
    _set(model / "config.json", **changes)
    assert expected in _refusal(replace(source, path=str(model)))


def test_config_of_defaults_alone(source: ModelSource, model: Path) -> None:
    """A config with a type alone describes the type's usual size, of gigabytes."""
    (model / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 8}')
    assert "describes 18812151" in _refusal(replace(source, path=str(model)))


def test_base_with_nan_and_an_adapter(source: ModelSource, model: Path) -> None:
    """NaN in the base's weights is found at load, where fused attention would hide it."""
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    refusal = _refusal(replace(source, path=str(model)))
    assert "the base model has NaN or infinite weights" in refusal


@pytest.mark.parametrize("part", ["modules_to_save", "trainable_tokens_delta"])
def test_nan_in_what_an_adapter_replaces(zoo: Any, part: str) -> None:
    """NaN in a saved module or a trained token fails the tuned view, and the base view works."""
    model = zoo.tuned("llama_head" if part == "modules_to_save" else "llama_tokens")
    with torch.no_grad():
        [own, *_] = [weight for name, weight in model.named_parameters() if part in name]
        own.view(-1)[0] = float("nan")
    backend = HFBackend(model, zoo.tokenizer(), exactness="strict")
    with backend.as_finetuned() as view, pytest.raises(NonFiniteError):
        view.next_token_dist("the cat")
    with backend.as_base() as view:
        assert view.next_token_dist("the cat", top_k=1).token_ids.shape == (1,)


def test_carried_weights_of_another_shape(zoo: Any, copy_of: Copy) -> None:
    """A base weight in the adapter's file that has another shape is refused."""
    folder = copy_of("llama_lora")
    file = folder / "adapter_model.safetensors"
    key = "base_model.model.model.norm.weight"
    save_file({**load_file(file), key: torch.ones(7)}, file)
    refusal = _refusal(replace(zoo.source("llama_lora"), adapter=str(folder)))
    assert "has (7,), not (32,)" in refusal


def test_settings_of_a_tokenizer_alone(source: ModelSource, adapter: Path, zoo: Any) -> None:
    """An adapter with a tokenizer's settings but no vocabulary uses the base's tokenizer."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (zoo.path("llama") / name).exists():
            shutil.copy(zoo.path("llama") / name, adapter / name)
    with load_backend(source).as_finetuned() as view:
        assert view.next_token_dist("the cat").vocab_size == zoo.vocab_size


def test_tokenizer_that_cannot_encode(source: ModelSource, model: Path) -> None:
    """What goes wrong while a loaded model is tried is one sentence as well."""
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"] = {"type": "WordLevel", "vocab": {"zzz": 0}, "unk_token": "[UNK]"}
    path.write_text(json.dumps(tokenizer))
    refusal = _refusal(replace(source, path=str(model)))
    assert "cannot be used with" in refusal
    assert "\n" not in refusal
