"""Adapters that PEFT loads have PEFT's values; others are refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.errors import AdapterError

PROMPT = "the cat sat"
WEIGHTS = "adapter_model.safetensors"
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "patch_size": 14}
Make = Callable[..., Path]


@pytest.fixture
def model_folder(zoo: Any, tmp_path: Path) -> Make:
    """Save a random model with the tokenizer of the zoo."""

    def make(config: Any, kind: Any = AutoModelForCausalLM) -> Path:
        torch.manual_seed(0)
        with quiet_transformers():
            kind.from_config(config).save_pretrained(tmp_path / "model")
            zoo.tokenizer().save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return make


def _adapt(base: Any, folder: Path, targets: list[str] | str, **more: Any) -> Any:
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False, **more
    )
    with quiet_transformers():
        tuned = get_peft_model(base, config)
        tuned.save_pretrained(folder)
    return tuned


def _open(model: Path, adapter: Path) -> HFBackend:
    return load_backend(ModelSource(str(model), str(adapter), device="cpu"))


def _message(model: Path, adapter: Path) -> str:
    with pytest.raises(AdapterError) as raised:
        _open(model, adapter)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def _from(folder: Path, kind: Any = AutoModelForCausalLM) -> Any:
    with quiet_transformers():
        return kind.from_pretrained(folder).eval()


@torch.no_grad()
def _alone(model: Any, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits
    return logits[0, -1].log_softmax(-1)


def _check(backend: HFBackend, zoo: Any, tuned: Any, base: Any) -> None:
    """Compare both views with models of their own."""
    ids = zoo.tokenizer()(PROMPT)["input_ids"]
    for opened, model in ((backend.as_finetuned(), tuned), (backend.as_base(), base)):
        with opened as view:
            dist = view.next_token_dist(PROMPT, top_k=10**6)
        got = torch.empty(dist.vocab_size)
        got[torch.from_numpy(np.array(dist.token_ids))] = torch.from_numpy(np.array(dist.logprobs))
        assert torch.allclose(got, _alone(model, ids), atol=1e-4)


def _rename(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({key.replace(old, new): value for key, value in tensors.items()}, folder / WEIGHTS)


def _set_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_factors_of_parameters(zoo: Any, model_folder: Make, tmp_path: Path) -> None:
    """LoRA on the parameters of experts, which are no layers, has PEFT's values at any scale."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    model = model_folder(transformers.Qwen3MoeConfig(vocab_size=zoo.vocab_size, **experts, **SIZES))
    parameters = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapter = tmp_path / "adapter"
    tuned = _adapt(_from(model), adapter, ["q_proj"], target_parameters=parameters)
    backend = _open(model, adapter)
    _check(backend, zoo, tuned, _from(model))
    for layer in tuned.modules():
        if isinstance(layer, LoraLayer):
            layer.scaling = {name: 0.5 * value for name, value in layer.scaling.items()}
    expected = _alone(tuned, zoo.tokenizer()(PROMPT)["input_ids"])
    with backend.as_scaled_adapter(0.5) as view:
        dist = view.next_token_dist(PROMPT, top_k=10**6)
    assert torch.allclose(
        torch.from_numpy(np.array(dist.logprobs)),
        expected[torch.from_numpy(np.array(dist.token_ids))],
        atol=1e-4,
    )


def test_experts_as_transformers_4_saved_them(zoo: Any, model_folder: Make, tmp_path: Path) -> None:
    """Factors for each expert of a mixture give the values of the merged weights."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    model = model_folder(transformers.Qwen3MoeConfig(vocab_size=zoo.vocab_size, **experts, **SIZES))
    adapter = tmp_path / "adapter"
    _adapt(_from(model), adapter, ["q_proj"])
    tensors = load_file(adapter / WEIGHTS)
    for name in (
        f"layers.{layer}.mlp.experts.{expert}.{part}_proj.lora_{factor}"
        for layer in range(2)
        for expert in range(4)
        for part in ("gate", "up", "down")
        for factor in "AB"
    ):
        shape = (4, 32) if name.endswith("A") else (32, 4)
        tensors[f"base_model.model.model.{name}.weight"] = 0.2 * torch.randn(shape)
    (adapter / WEIGHTS).unlink()  # safetensors before 0.8 writes over the memory that it loaded
    save_file(tensors, adapter / WEIGHTS)
    _set_config(adapter, target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"])
    merged = _merge_by_hand(_from(model), tensors)
    _check(_open(model, adapter), zoo, merged, _from(model))


@torch.no_grad()
def _merge_by_hand(model: Any, tensors: dict[str, torch.Tensor]) -> Any:
    def change(name: str) -> torch.Tensor:
        key = f"base_model.model.model.layers.{name}.lora_"
        return 2 * tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"]  # lora_alpha 8, r 4

    for i, layer in enumerate(model.model.layers):
        layer.self_attn.q_proj.weight += change(f"{i}.self_attn.q_proj")
        experts = layer.mlp.experts
        for j in range(4):
            at = f"{i}.mlp.experts.{j}"
            both = [change(f"{at}.gate_proj"), change(f"{at}.up_proj")]
            experts.gate_up_proj[j] += torch.cat(both)
            experts.down_proj[j] += change(f"{at}.down_proj")
    return model


def _gemma(zoo: Any) -> Any:
    return transformers.Gemma3Config(
        text_config={"vocab_size": zoo.vocab_size, "sliding_window": 64, **SIZES},
        vision_config={
            **VISION,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 28,
        },
        mm_tokens_per_image=4,
        image_token_index=290,
        boi_token_index=291,
        eoi_token_index=292,
    )


@pytest.mark.parametrize("saved", [".model.language_model.", ".language_model.model.", ".model."])
def test_names_of_a_vision_language_class(
    zoo: Any, model_folder: Make, tmp_path: Path, saved: str
) -> None:
    """Names of today's class, of the class before transformers 4.52 and of the text class fit."""
    model, adapter = model_folder(_gemma(zoo)), tmp_path / "adapter"
    tuned = _adapt(_from(model), adapter, r".*language_model.*\.(q_proj|v_proj)")
    _rename(adapter, ".model.language_model.", saved)
    if saved == ".model.":
        _set_config(adapter, target_modules=["q_proj", "v_proj"])
    _check(_open(model, adapter), zoo, tuned, _from(model))


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj", "o_proj"], r".*language_model.*\.(q_proj|v_proj)"]
)
def test_text_part_trained_through_a_vision_language_class(
    zoo: Any, model_folder: Make, tmp_path: Path, targets: Any
) -> None:
    """A LoRA of the text part has the values of the vision-language class on text."""
    model = model_folder(_qwen(zoo), AutoModelForImageTextToText)
    tuned = _adapt(_from(model, AutoModelForImageTextToText), tmp_path / "adapter", targets)
    base = _from(model, AutoModelForImageTextToText)
    _check(_open(model, tmp_path / "adapter"), zoo, tuned, base)


def test_vision_part(zoo: Any, model_folder: Make, tmp_path: Path) -> None:
    """A LoRA of the vision part too is refused, because only text is computed."""
    model = model_folder(_qwen(zoo), AutoModelForImageTextToText)
    _adapt(_from(model, AutoModelForImageTextToText), tmp_path / "adapter", ["q_proj", "qkv"])
    assert "also adapts the vision part" in _message(model, tmp_path / "adapter")


def _qwen(zoo: Any) -> Any:
    linear = {f"linear_{name}": 8 for name in ("key_head_dim", "value_head_dim")}
    linear |= {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
    layers = ["linear_attention", "full_attention"]
    return transformers.Qwen3_5Config(
        text_config={"vocab_size": zoo.vocab_size, "layer_types": layers, **linear, **SIZES},
        vision_config={**VISION, "depth": 1, "num_heads": 4, "out_hidden_size": 32},
        image_token_id=290,
        video_token_id=291,
        vision_start_token_id=292,
        vision_end_token_id=293,
    )


def test_adapter_on_an_adapter(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """An adapter that was trained on top of another is refused by its names."""
    folder = copy_of("llama_lora")
    _rename(folder, "base_model.model.", "base_model.model.base_model.model.")
    message = _message(zoo.path("llama"), folder)
    assert "was trained on top of another adapter" in message
    assert "merge_and_unload()" in message


def test_adapter_of_a_classifier(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """An adapter for another task is refused by its task."""
    folder = copy_of("llama_lora")
    _set_config(folder, task_type="SEQ_CLS")
    assert "is for the task SEQ_CLS" in _message(zoo.path("llama"), folder)


def test_replicated_layers(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """An adapter that repeats layers of the base is refused, loaded and in memory."""
    folder = copy_of("llama_lora")
    _set_config(folder, layer_replication=[[0, 2], [1, 2]])
    assert "repeats layers of the base (layer_replication)" in _message(zoo.path("llama"), folder)
    config = LoraConfig(target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]])
    with quiet_transformers():
        model = get_peft_model(zoo.base("llama"), config)
    with pytest.raises(AdapterError, match="layer_replication"):
        HFBackend(model, zoo.tokenizer())


def test_weights_in_a_pickle(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """An adapter with a pickle alone is refused with how to save it again."""
    folder = copy_of("llama_lora")
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    message = _message(zoo.path("llama"), folder)
    assert "adapter_model.bin are a pickle" in message
    assert "save it again with save_pretrained()" in message


def test_whole_model_as_adapter(zoo: Any) -> None:
    """A model's folder in place of an adapter's is named as what it is."""
    assert "it is a whole model, not an adapter" in _message(zoo.path("llama"), zoo.path("llama"))


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("", False),
        ("llama", False),
        ("someone/LLaMA", False),
        ("/elsewhere/llama", False),
        ("someone/other", True),
        ("/elsewhere/checkpoint-500", True),
        ("~nobody-of-that-name/other", True),
        ("some\0one/other", True),
        ("x" * 5000, True),
    ],
)
def test_base_of_another_name(
    zoo: Any, copy_of: Callable[[str], Path], name: str, warned: bool
) -> None:
    """A base of another name than the adapter's is a warning with both names."""
    folder = copy_of("llama_lora")
    _set_config(folder, base_model_name_or_path=name)
    warnings = _open(zoo.path("llama"), folder).warnings
    expected = f"the adapter was trained on {name}, but {zoo.path('llama')} was loaded as its base"
    assert warnings == ([expected] if warned else [])


@pytest.mark.parametrize(("revision", "warned"), [("main", False), ("abc", False), ("v2", True)])
def test_base_of_another_revision(
    zoo: Any, copy_of: Callable[[str], Path], tmp_path: Path, revision: str, warned: bool
) -> None:
    """A snapshot of the hub is compared by name and commit."""
    snapshot = tmp_path / "models--someone--llama" / "snapshots" / "abcdef"
    shutil.copytree(zoo.path("llama"), snapshot)
    folder = copy_of("llama_lora")
    _set_config(folder, base_model_name_or_path="someone/llama", revision=revision)
    expected = "the adapter was trained on revision v2 of someone/llama, but commit abcdef"
    assert [warning.startswith(expected) for warning in _open(snapshot, folder).warnings] == (
        [True] if warned else []
    )


def test_base_that_is_an_adapter(zoo: Any, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    """An adapter on an adapter needs the merged model; its base alone is refused."""
    first, second, base = copy_of("llama_lora"), copy_of("llama_other"), zoo.path("llama")
    _set_config(first, base_model_name_or_path=str(base))
    _set_config(second, base_model_name_or_path=str(first))
    assert f"on top of the adapter {first}" in _message(base, second)
    merged = tmp_path / "merged"
    with quiet_transformers():
        PeftModel.from_pretrained(zoo.base("llama"), first).merge_and_unload().save_pretrained(
            merged
        )
    zoo.tokenizer().save_pretrained(merged)
    [warning] = _open(merged, second).warnings
    assert str(first) in warning
    assert str(merged) in warning
