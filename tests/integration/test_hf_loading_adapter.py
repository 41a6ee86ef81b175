"""An adapter that cannot be had, or toggled, is one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoHaConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.errors import AdapterError, ModelError
from forwardscope.testing import InMemoryTelemetry

Copy = Callable[[str], Path]
WEIGHTS = "adapter_model.safetensors"


def _message(source: ModelSource) -> str:
    with pytest.raises(AdapterError) as raised:
        load_backend(source)
    message = str(raised.value)
    assert message.strip()
    assert "\n" not in message
    return message


Source = Callable[..., ModelSource]


@pytest.fixture
def with_adapter(zoo: Any) -> Source:
    """A sound model, and an adapter to be found wanting."""

    def source(path: Path | str, model: str = "llama") -> ModelSource:
        return replace(zoo.source(f"{model}_lora"), adapter=str(path))

    return source


def _rewrite_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "adapter",
    ["llama_dora", "llama_head", "llama_tokens", "llama_embeddings", "gpt2_lora", "gpt2_tied"],
)
def test_every_kind_of_lora_loads(zoo: Any, adapter: str) -> None:
    """Plain LoRA, on embeddings too, DoRA, and saved modules and tokens give a working view."""
    with load_backend(zoo.source(adapter)).as_finetuned() as view:
        assert view.next_token_dist("the cat", top_k=3).token_ids.shape == (3,)


def test_forward_spans_name_model_and_adapter(zoo: Any) -> None:
    """A loaded backend has both in its spans, and what runs them; a suite may rename them."""
    telemetry, source = InMemoryTelemetry(), zoo.source("llama_lora")
    backend = load_backend(source, instrumentation=telemetry.instrumentation())
    for view in (backend.as_base(), backend.as_finetuned()):
        with view as opened:
            opened.next_token_dist("the cat", top_k=3)
    backend.close()
    forwards = [one for one in telemetry.spans() if one.name.startswith("forward ")]
    assert {one.name: one.attributes["gen_ai.request.model"] for one in forwards} == {
        "forward base": source.path,
        "forward ft": f"{source.adapter} on {source.path}",
    }
    assert {one.attributes["gen_ai.provider.name"] for one in forwards} == {"huggingface"}


def test_missing_folder(with_adapter: Source, tmp_path: Path) -> None:
    """A path that is not there is named."""
    missing = tmp_path / "missing"
    assert _message(with_adapter(missing)) == f"adapter folder {missing} does not exist"


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/adapter", "/adapter\0"])
def test_path_that_no_file_system_takes(with_adapter: Source, name: str) -> None:
    """A path too long, of an unknown user or with a NUL is said to be wrong."""
    assert "adapter" in _message(with_adapter(name))


def test_hub_id_that_cannot_be_fetched(with_adapter: Source) -> None:
    """A hub id out of reach is named (the hub is off in these tests)."""
    name = "forwardscope-tests/no-such-adapter"
    assert f"adapter {name} is neither a folder nor in the hub's cache" in _message(
        with_adapter(name)
    )


@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS])
def test_missing_file(with_adapter: Source, copy_of: Copy, name: str) -> None:
    """A folder without config or weights names the file that it lacks."""
    folder = copy_of("llama_lora")
    (folder / name).unlink()
    assert f"adapter {folder} has no {name}" in _message(with_adapter(folder))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"peft_type": "NO"}',
        '{"peft_type": "LORA", "r": "x"}',
        '{"peft_type": "LORA", "lora_alpha": NaN}',
        "[" * 100_000,
        '{"peft_type": ["LORA"]}',
    ],
)
def test_malformed_config(with_adapter: Source, copy_of: Copy, config: str) -> None:
    """A config that is no JSON, or none of an adapter, is named by its folder."""
    folder = copy_of("llama_lora")
    (folder / "adapter_config.json").write_text(config)
    assert f"adapter {folder} " in _message(with_adapter(folder))


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5])
def test_truncated_weights(with_adapter: Source, copy_of: Copy, keep: float) -> None:
    """Weights that end early are named by their folder."""
    weights = copy_of("llama_lora") / WEIGHTS
    data = weights.read_bytes()
    weights.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    assert f"adapter {weights.parent} does not fit" in _message(with_adapter(weights.parent))


def test_adapter_of_another_architecture(with_adapter: Source, zoo: Any) -> None:
    """An adapter for modules that the model does not have is said not to fit."""
    folder = zoo.path("gpt2_lora")
    assert f"adapter {folder} does not fit the model" in _message(with_adapter(folder))


def test_adapter_of_another_size(with_adapter: Source, tmp_path: Path) -> None:
    """An adapter trained on a wider model is said not to fit."""
    wide = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=296,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    with quiet_transformers():
        get_peft_model(wide, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    assert f"adapter {tmp_path} does not fit the model" in _message(with_adapter(tmp_path))


@pytest.mark.parametrize("change", ["lacks", "adds"])
def test_tensor_without_counterpart(with_adapter: Source, copy_of: Copy, change: str) -> None:
    """Weights that lack a tensor, or have one too many, are refused by its name."""
    folder = copy_of("llama_lora")
    tensors = load_file(folder / WEIGHTS)
    name = min(tensors)
    tensor = tensors.pop(name) if change == "lacks" else tensors[name].clone()
    if change == "adds":
        name = name.replace("layers.0", "layers.7")
        tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS)
    message = _message(with_adapter(folder))
    has = (
        "lacks 1 tensor of the model" if change == "lacks" else "has 1 tensor that the model lacks"
    )
    assert f"it {has} ({name})" in message


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_adapter_with_biases(with_adapter: Source, copy_of: Copy, bias: str) -> None:
    """An adapter that trains the base's biases is refused, with how to train it."""
    folder = copy_of("llama_bias")
    _rewrite_config(folder, bias=bias)
    message = _message(with_adapter(folder))
    assert f"bias='{bias}'" in message
    assert "train it with bias='none'" in message


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_adapter_that_changes_the_base(with_adapter: Source, copy_of: Copy, init: str) -> None:
    """An adapter that takes something out of the base's weights is refused: its base is lost."""
    folder = copy_of("llama_pissa")
    _rewrite_config(folder, init_lora_weights=init)
    message = _message(with_adapter(folder))
    assert f"initialisation ('{init}') changes the base's own weights" in message
    assert "path_initial_model_for_weight_conversion" in message


@pytest.mark.parametrize("init", ["gaussian", "orthogonal", True, False])
def test_initialisation_beside_the_base(
    zoo: Any, with_adapter: Source, copy_of: Copy, init: str | bool
) -> None:
    """Initialisations that leave the base alone load, and their base view is the base."""
    folder = copy_of("llama_lora")
    _rewrite_config(folder, init_lora_weights=init)
    values = []
    for source in (with_adapter(folder), zoo.source("llama_lora")):
        with load_backend(source).as_base() as view:
            values.append(view.rolling_logprob("the cat sat").logprobs.tolist())
    assert values[0] == values[1]


def test_other_adapter(zoo: Any, with_adapter: Source, tmp_path: Path) -> None:
    """An adapter that is no LoRA is refused by its type, from a folder and in memory."""
    with quiet_transformers():
        model = get_peft_model(zoo.base("llama"), LoHaConfig(target_modules=["q_proj"]))
        model.save_pretrained(tmp_path)
    assert f"adapter {tmp_path} is of type 'LOHA'; only LoRA" in _message(with_adapter(tmp_path))
    with pytest.raises(AdapterError, match="is of type 'LOHA'; only LoRA"):
        HFBackend(model, zoo.tokenizer())


def test_merged_adapter(zoo: Any) -> None:
    """An adapter that is merged into the base cannot be toggled until it is unmerged."""
    model, tokenizer = zoo.tuned("llama_lora"), zoo.tokenizer()
    model.merge_adapter()
    with pytest.raises(AdapterError, match=r"unmerge_adapter\(\)"):
        HFBackend(model, tokenizer)
    model.unmerge_adapter()
    HFBackend(model, tokenizer).close()


def test_several_adapters(zoo: Any) -> None:
    """A null view would draw noise for all of them, so one is required."""
    model = zoo.tuned("llama_lora")
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(AdapterError, match=r"several adapters \(default, other\); delete all but"):
        HFBackend(model, zoo.tokenizer())


@pytest.mark.parametrize("name", ["~nobody/model", "a\0b", 123, ["a"]])
def test_base_name_that_is_no_path(with_adapter: Source, copy_of: Copy, name: Any) -> None:
    """A base's name of any form loads or is refused in one sentence."""
    folder = copy_of("llama_lora")
    _rewrite_config(folder, base_model_name_or_path=name)
    try:
        load_backend(with_adapter(folder)).close()
    except AdapterError as error:
        assert str(folder) in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize("base", ["acme/wide", None])
def test_an_adapter_of_another_base(with_adapter: Source, tmp_path: Path, base: str | None) -> None:
    """One sentence names model and base, and a tensor with both shapes."""
    wide = LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    with quiet_transformers():
        adapted = get_peft_model(LlamaForCausalLM(wide), LoraConfig(r=4, target_modules=["q_proj"]))
        adapted.save_pretrained(tmp_path)
    _rewrite_config(tmp_path, base_model_name_or_path=base)
    source = with_adapter(tmp_path)
    message = _message(source)
    assert message.startswith(f"adapter {tmp_path} does not fit the model {source.path}: its ")
    assert "lora_A.weight has (4, 64), not (4, 32)" in message
    assert message.endswith(f"; it was trained on {base}" if base else "on another model?")


def test_model_and_adapter_swapped(zoo: Any) -> None:
    """The sentence names both."""
    source = zoo.source("llama_lora")
    with pytest.raises(ModelError, match="model and adapter are swapped"):
        load_backend(replace(source, path=source.adapter, adapter=source.path))
