"""Values of adapters with a tokenizer or a vocabulary of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from forwardscope.backends.hf import HFBackend, ModelSource, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.errors import AdapterError, PromptError

PROMPT = "the cat sat"
CHAT = "<|call|>the cat<|end|>"
WEIGHTS = "adapter_model.safetensors"
ALL = 10**6

#: Forms in which PEFT saves a vocabulary that was resized.
RESIZED: dict[str, dict[str, Any]] = {
    "saved modules": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "saved by PEFT": {},
    "LoRA on embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "trained tokens": {"trainable_token_indices": [300, 301]},
}
_GPT2: dict[str, Any] = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
#: The same for a model that ties its embeddings.
RESIZED_TIED: dict[str, dict[str, Any]] = {
    "saved modules": {**_GPT2, "modules_to_save": ["wte"], "ensure_weight_tying": True},
    "saved by PEFT": _GPT2,
    "LoRA on embeddings": {"target_modules": ["wte"]},
    "trained tokens": {**_GPT2, "trainable_token_indices": [300, 301]},
}


@pytest.fixture
def tuned(zoo: Any, tmp_path: Path) -> Callable[..., Path]:
    """Train an adapter on a copy of the base with another vocabulary, and save it."""

    def make(rows: int, model: str = "llama", dtype: Any = torch.float32, **options: Any) -> Path:
        settings = {"r": 4, "init_lora_weights": False, "target_modules": ["q_proj"], **options}
        with quiet_transformers():
            base = AutoModelForCausalLM.from_pretrained(zoo.path(model), dtype=dtype)
            torch.manual_seed(rows)
            base.resize_token_embeddings(rows)
            adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
            with torch.no_grad():
                for name, parameter in adapted.named_parameters():
                    if parameter.requires_grad and "lora_" not in name:
                        parameter.add_(0.1 * torch.randn(parameter.shape))
            adapted.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return make


def _save_tokenizer(zoo: Any, folder: Path, rows: int = 304) -> Any:
    """Save a tokenizer with two tokens more than fit in `rows` - 2 rows."""
    tokenizer = zoo.tokenizer()
    tokenizer.add_tokens([f"<|{i}|>" for i in range(len(tokenizer), rows - 4)])
    tokenizer.add_tokens(["<|call|>", "<|end|>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _load(zoo: Any, adapter: Path, model: str = "llama") -> HFBackend:
    return load_backend(ModelSource(str(zoo.path(model)), str(adapter), device="cpu"))


def _whole(view: Any, prompt: str) -> torch.Tensor:
    """Return a view's log-probabilities by token id."""
    dist = view.next_token_dist(prompt, top_k=ALL)
    whole = torch.full((dist.vocab_size,), torch.nan)
    whole[torch.from_numpy(np.array(dist.token_ids))] = torch.from_numpy(np.array(dist.logprobs))
    return whole


@torch.no_grad()
def _alone(model: Any, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits.float().log_softmax(-1)


def _by_peft(zoo: Any, adapter: Path, rows: int, model: str = "llama") -> Any:
    """Load an adapter as PEFT's guide does: resize the base, then attach."""
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(zoo.path(model))
        torch.manual_seed(99)
        base.resize_token_embeddings(rows)
        with torch.no_grad():  # the added rows of the base are random
            base.get_output_embeddings().weight[zoo.vocab_size :] *= 0.5
        return PeftModel.from_pretrained(base, adapter).eval()


@pytest.mark.parametrize(("model", "forms"), [("llama", RESIZED), ("gpt2", RESIZED_TIED)])
@pytest.mark.parametrize("form", RESIZED)
def test_tuned_view_has_the_resized_vocabulary(
    zoo: Any, tuned: Any, model: str, forms: dict[str, Any], form: str
) -> None:
    """The tuned view has the values of PEFT on a resized base; the base view has the base's."""
    adapter = tuned(304, model, **forms[form])
    tokenizer = _save_tokenizer(zoo, adapter)
    reference = _by_peft(zoo, adapter, 304, model)
    backend = _load(zoo, adapter, model)
    for prompt in (PROMPT, CHAT):
        with backend.as_finetuned() as view:
            expected = _alone(reference, tokenizer(prompt)["input_ids"])
            assert torch.allclose(_whole(view, prompt), expected, atol=1e-4)
    with backend.as_base() as view:
        expected = _alone(zoo.base(model), tokenizer(PROMPT)["input_ids"])
        assert torch.allclose(_whole(view, PROMPT), expected, atol=1e-4)
    with backend.as_finetuned() as view:
        expected = _alone(reference, tokenizer(PROMPT)["input_ids"])
        assert torch.allclose(_whole(view, PROMPT), expected, atol=1e-4)
    assert any("304 tokens and the base's" in warning for warning in backend.warnings)


def test_base_leaves_added_tokens_out(zoo: Any, tuned: Any) -> None:
    """Base and null views predict the base's tokens; the base reads an added token."""
    adapter = tuned(304)
    _save_tokenizer(zoo, adapter)
    values = []
    for _ in range(2):
        backend = _load(zoo, adapter)
        with backend.as_base() as view:
            values.append(_whole(view, CHAT))
            assert values[-1].shape == (zoo.vocab_size,)
            with pytest.raises(PromptError, match="'base' does not predict"):
                view.rolling_logprob(CHAT)
        with backend.as_null_adapter(1) as view:
            assert view.next_token_dist(CHAT).vocab_size == zoo.vocab_size
        with backend.as_scaled_adapter(0.5) as view:
            assert view.next_token_dist(CHAT).vocab_size == 304
        with backend.as_finetuned() as view:
            assert view.rolling_logprob(CHAT).num_tokens == 4
    assert torch.equal(*values)
    assert values[0].isfinite().all()
    assert float(values[0].logsumexp(0)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("form", ["saved modules", "saved by PEFT", "LoRA on embeddings"])
def test_smaller_vocabulary(zoo: Any, tuned: Any, form: str) -> None:
    """An adapter that cut the padding of a vocabulary leaves the base's as it is."""
    with quiet_transformers():
        base = zoo.base("llama")
        base.resize_token_embeddings(320)
        base.save_pretrained(zoo.folder / "padded")
        zoo.tokenizer().save_pretrained(zoo.folder / "padded")
    adapter = tuned(300, "padded", **RESIZED[form])
    backend = _load(zoo, adapter, "padded")
    ids = zoo.tokenizer()(PROMPT)["input_ids"]
    with backend.as_base() as view:
        expected = _alone(zoo.base("padded"), ids)
        assert expected.shape == (320,)
        assert torch.allclose(_whole(view, PROMPT), expected, atol=1e-4)
    with backend.as_finetuned() as view:
        expected = _alone(_by_peft(zoo, adapter, 300, "padded"), ids)
        assert torch.allclose(_whole(view, PROMPT), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_embeddings_of_another_dtype(zoo: Any, tuned: Any, dtype: torch.dtype) -> None:
    """Embeddings saved in half precision are the tuned model's; the base keeps its own."""
    adapter = tuned(zoo.vocab_size, dtype=dtype, **RESIZED["LoRA on embeddings"])
    backend = _load(zoo, adapter)
    ids = zoo.tokenizer()(PROMPT)["input_ids"]
    base, tuned_model = zoo.base("llama"), _by_peft(zoo, adapter, zoo.vocab_size)
    with backend.as_finetuned() as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(tuned_model, ids), atol=1e-4)
    for opened in (backend.as_base(), backend.as_scaled_adapter(0)):
        with opened as view:
            assert torch.allclose(_whole(view, PROMPT), _alone(base, ids), atol=1e-5)


def test_embeddings_that_an_adapter_replaces(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """Trained embeddings in an adapter's file are its own; a scaled view interpolates them."""
    folder = copy_of("llama_embeddings")
    tensors = load_file(folder / WEIGHTS)
    for name in ("lm_head", "model.embed_tokens"):
        tensors[f"base_model.model.{name}.base_layer.weight"] *= 1.5
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    backend, ids = _load(zoo, folder), zoo.tokenizer()(PROMPT)["input_ids"]
    base = zoo.base("llama")
    with quiet_transformers():
        reference = PeftModel.from_pretrained(zoo.base("llama"), folder)
    with backend.as_finetuned() as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(reference, ids), atol=1e-4)
    with backend.as_base() as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(base, ids), atol=1e-5)
    with backend.as_scaled_adapter(1 - 1e-6) as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(reference, ids), atol=1e-3)


def test_scaled_view_of_a_resized_vocabulary(zoo: Any, tuned: Any) -> None:
    """Saved modules are interpolated between the base's rows, not those of the adapter's file."""
    adapter = tuned(304, dtype=torch.bfloat16, **RESIZED["saved modules"])
    saved, reference = load_file(adapter / WEIGHTS), _by_peft(zoo, adapter, 304)
    base, ids = zoo.base("llama"), zoo.tokenizer()(PROMPT)["input_ids"]
    with torch.no_grad():
        for name in ("lm_head", "model.embed_tokens"):
            rows = saved[f"base_model.model.{name}.original_module.weight"].float()
            rows[: zoo.vocab_size] = base.get_submodule(name).weight
            own = reference.base_model.model.get_submodule(name).modules_to_save["default"].weight
            own.copy_(rows.lerp(own, 0.5))
    for module in reference.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] *= 0.5
    with _load(zoo, adapter).as_scaled_adapter(0.5) as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(reference, ids), atol=2e-5)


def test_tied_embeddings_with_two_values(zoo: Any, tuned: Any) -> None:
    """Where an adapter's file has two values of a tied weight, PEFT's is the tuned model's."""
    adapter = tuned(zoo.vocab_size, "gpt2", **_GPT2)
    tensors = load_file(adapter / WEIGHTS)
    weight = zoo.base("gpt2").get_input_embeddings().weight.detach()
    for i, name in enumerate(("transformer.wte", "lm_head")):
        tensors[f"base_model.model.{name}.weight"] = weight * (1.2 + 0.1 * i)
    save_file(tensors, adapter / WEIGHTS, metadata={"format": "pt"})
    backend, ids = _load(zoo, adapter, "gpt2"), zoo.tokenizer()(PROMPT)["input_ids"]
    with quiet_transformers():
        reference = PeftModel.from_pretrained(zoo.base("gpt2"), adapter)
    for opened, model in (
        (backend.as_finetuned(), reference),
        (backend.as_base(), zoo.base("gpt2")),
    ):
        with opened as view:
            assert torch.allclose(_whole(view, PROMPT), _alone(model, ids), atol=1e-4)


def test_tied_embeddings_stay_tied(zoo: Any, tmp_path: Path) -> None:
    """An embedding in an adapter's file is also the output layer of a model that ties both."""
    with quiet_transformers():
        base = zoo.base("gpt2")
        adapted = get_peft_model(
            base, LoraConfig(r=4, target_modules=["wte"], init_lora_weights=False)
        )
        with torch.no_grad():
            adapted.get_input_embeddings().base_layer.weight.mul_(1.5)
        adapted.save_pretrained(tmp_path / "adapter")
        reference = PeftModel.from_pretrained(zoo.base("gpt2"), tmp_path / "adapter")
    backend, ids = _load(zoo, tmp_path / "adapter", "gpt2"), zoo.tokenizer()(PROMPT)["input_ids"]
    with backend.as_finetuned() as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(reference, ids), atol=1e-4)
    with backend.as_base() as view:
        assert torch.allclose(_whole(view, PROMPT), _alone(zoo.base("gpt2"), ids), atol=1e-4)


def test_adapters_tokenizer_is_used(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """Base and tuned read prompts with the tokenizer of the adapter's folder."""
    folder = copy_of("llama_tokens")
    tokenizer = zoo.tokenizer()
    tokenizer.add_tokens(["the cat"])  # id 296 has no embedding
    tokenizer.save_pretrained(folder)
    backend = _load(zoo, folder)
    assert any("1 token without an embedding" in warning for warning in backend.warnings)
    for opened in (backend.as_base(), backend.as_finetuned()):
        with opened as view:
            assert view.rolling_logprob("hello there").num_tokens > 1
            with pytest.raises(PromptError, match=f"has token {zoo.vocab_size} of the tokenizer"):
                view.next_token_dist(PROMPT)


def test_tokenizer_with_other_ids(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """A token of the base under another name is a warning; another vocabulary is an error."""
    folder = copy_of("llama_lora")
    zoo.tokenizer().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text().replace("<eos>", "<end>"))
    [warning] = _load(zoo, folder).warnings
    assert "has other ids for 1 token of the base's: <eos>" in warning
    _save_reversed(zoo, folder)
    with pytest.raises(AdapterError, match="has other ids for most tokens"):
        _load(zoo, folder)


def _save_reversed(zoo: Any, folder: Path) -> None:
    """Save a tokenizer whose ids are those of the base's in reverse order."""
    size = zoo.vocab_size
    vocab = {token: size - 1 - index for token, index in zoo.tokenizer().get_vocab().items()}
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))  # noqa: S106 - no password
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)


def test_malformed_tokenizer(zoo: Any, copy_of: Callable[[str], Path]) -> None:
    """A tokenizer of the adapter that cannot be read is an error that names the folder."""
    folder = copy_of("llama_lora")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(AdapterError, match=f"the tokenizer of adapter {folder} cannot be loaded"):
        _load(zoo, folder)
