"""Adapters that are exchanged on one base have the values of adapters loaded alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from forwardscope import BackendInstrumentation
from forwardscope.backends.hf import ModelSource, SharedBase, load_backend
from forwardscope.backends.hf.loading import quiet_transformers
from forwardscope.errors import AdapterError, ForwardscopeError

PROMPTS = ["the cat sat on the mat", "hello there", "the weather is together"]
WEIGHTS = "adapter_model.safetensors"
LLAMAS = [
    *("llama_lora", "llama_dora", "llama_head", "resized", "llama_tokens", "own_tokenizer"),
    *("misfit", "llama_embeddings", "llama_bias", "llama_pissa", "not_a_number", "llama_other"),
]
GPT2S = ["gpt2_lora", "gpt2_tied", "gpt2_resized", "gpt2_tokens"]

Values = dict[str, Any]


@pytest.fixture(scope="module")
def adapters(zoo: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return folders of adapters: those of the zoo, and some that change or break more."""
    folder = tmp_path_factory.mktemp("adapters")
    _save_resized(zoo, "llama", ["q_proj"], folder / "resized")
    _save_resized(zoo, "gpt2", ["c_attn"], folder / "gpt2_resized", fan_in_fan_out=True)
    own = Path(shutil.copytree(zoo.path("llama_lora"), folder / "own_tokenizer"))
    tokenizer = zoo.tokenizer()
    tokenizer.add_tokens(["<|call|>"], special_tokens=True)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(own)
    for name, change in {"misfit": _drop_last, "not_a_number": _fill_with_nan}.items():
        broken = Path(shutil.copytree(zoo.path("llama_head"), folder / name))
        save_file(change(load_file(broken / WEIGHTS)), broken / WEIGHTS)
    return lambda name: folder / name if (folder / name).exists() else zoo.path(name)


@pytest.fixture(scope="module")
def alone(zoo: Any, adapters: Callable[[str], Path]) -> Callable[[str, str, str], Values | str]:
    """Return the values of an adapter that is loaded alone, each computed once."""
    known: dict[tuple[str, str, str], Values | str] = {}

    def values(model: str, adapter: str, exactness: Any) -> Values | str:
        if (model, adapter, exactness) not in known:
            source = ModelSource(str(zoo.path(model)), str(adapters(adapter)), device="cpu")
            known[model, adapter, exactness] = _values_or_error(
                lambda: load_backend(source, exactness=exactness)
            )
        return known[model, adapter, exactness]

    return values


def _save_resized(zoo: Any, model: str, targets: list[str], folder: Path, **more: Any) -> None:
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(zoo.path(model))
        torch.manual_seed(3)
        base.resize_token_embeddings(zoo.vocab_size + 7)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=4, init_lora_weights=False, target_modules=targets, **more
        )
        get_peft_model(base, config).save_pretrained(folder)


def _drop_last(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors that fit but for one, so that loading fails when most is attached."""
    return dict(list(tensors.items())[:-1])


def _fill_with_nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(one, float("nan")) for name, one in tensors.items()}


def _values_or_error(open_backend: Callable[[], Any]) -> Values | str:
    try:
        return _values(open_backend())
    except AdapterError as error:
        return str(error)


def _values(backend: Any) -> Values:
    """Return all that views compute, their identities, and what a result says of the backend."""
    views = {
        "ft": backend.as_finetuned,
        "base": backend.as_base,
        "null": lambda: backend.as_null_adapter(3),
        "scaled": lambda: backend.as_scaled_adapter(0.5),
    }
    found = {name: _computed(view) for name, view in views.items()}
    identities = [backend.view_identity(one) for one in ("base", "ft", "null_3", "scaled_0.5")]
    about = (backend.warnings, dict(backend.optimisations), backend.vocab_size, backend.filler(3))
    return {**found, "identities": identities, "identity": backend.identity(), "about": about}


def _computed(open_view: Callable[[], Any]) -> Any:
    try:
        with open_view() as view:
            dists = view.next_token_dist_batch(PROMPTS, top_k=1000)
            rolled = view.rolling_logprob_batch(PROMPTS)
        arrays = [one for each in dists for one in (each.token_ids, each.logprobs)]
        return [array.tobytes() for array in [*arrays, *(one.logprobs for one in rolled)]]
    except ForwardscopeError as error:
        return str(error)


@pytest.mark.parametrize("exactness", ["strict", "fast"])
@pytest.mark.parametrize("names", [LLAMAS, LLAMAS[::-1], GPT2S], ids=["llama", "reversed", "gpt2"])
def test_values_are_those_of_adapters_loaded_alone(
    zoo: Any,
    adapters: Callable[[str], Path],
    alone: Callable[[str, str, str], Values | str],
    names: list[str],
    exactness: Any,
) -> None:
    """Each value, identity, warning and error is the same, bit for bit, whatever came before."""
    model = names[0].partition("_")[0]
    shared = SharedBase(ModelSource(str(zoo.path(model)), device="cpu"), exactness=exactness)
    for name in names:
        found = _values_or_error(
            lambda name=name: shared.open(str(adapters(name)), BackendInstrumentation())
        )
        assert found == alone(model, name, exactness), name
        assert shared.notes == (), name
    shared.close()


def test_base_that_was_written_to_is_loaded_anew(
    zoo: Any, alone: Callable[[str, str, str], Values | str]
) -> None:
    """A write into a weight's memory, which nothing undoes, is found and named."""
    shared = SharedBase(ModelSource(str(zoo.path("llama")), device="cpu"), exactness="strict")
    backend = shared.open(str(zoo.path("llama_lora")), BackendInstrumentation())
    with backend.as_finetuned() as view, _writing_into_norms():
        view.rolling_logprob(PROMPTS[0])
    again = shared.open(str(zoo.path("llama_lora")), BackendInstrumentation())
    assert _values(again) == alone("llama", "llama_lora", "strict")
    [note] = shared.notes
    assert "loaded anew" in note
    assert "norm.weight" in note
    shared.close()


@contextmanager
def _writing_into_norms() -> Iterator[None]:
    def write(module: torch.nn.Module, _: object) -> None:
        if type(module).__name__ == "LlamaRMSNorm":
            module.weight.data.mul_(1.5)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(write)
    try:
        yield
    finally:
        handle.remove()


def test_base_is_loaded_once(zoo: Any) -> None:
    """The steps of loading name the model for the first adapter alone."""
    shared = SharedBase(ModelSource(str(zoo.path("llama")), device="cpu"))
    steps: list[list[str]] = []
    for name in ("llama_lora", "llama_head", "llama_other"):
        steps.append([])
        shared.open(
            str(zoo.path(name)),
            BackendInstrumentation(),
            lambda step, *_: steps[-1].append(step),
        )
    shared.close()
    assert ["loading the model" in own for own in steps] == [True, False, False]


def test_base_is_checked_once(zoo: Any) -> None:
    """After the first adapter half the forward calls of its check are enough."""
    shared = SharedBase(ModelSource(str(zoo.path("llama")), device="cpu"))
    calls = []
    for _ in range(3):
        calls.append(0)
        with _counting_calls(calls):
            shared.open(str(zoo.path("llama_lora")), BackendInstrumentation())
    shared.close()
    assert calls[0] > 0
    assert calls[1:] == [calls[0] // 2] * 2


@contextmanager
def _counting_calls(calls: list[int]) -> Iterator[None]:
    def count(module: torch.nn.Module, _: object) -> None:
        calls[-1] += type(module).__name__ == "LlamaForCausalLM"

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()
