"""A view changes the weights for its own passes, and leaves them as they were bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from forwardscope.backends import ScoringView
from forwardscope.backends.hf import HFBackend

Open = Callable[..., HFBackend]
Opened = AbstractContextManager[ScoringView]

ADAPTERS = [
    "llama_lora",
    "llama_dora",
    "llama_head",
    "llama_tokens",
    "llama_embeddings",
    "gpt2_lora",
    "gpt2_tied",
    "gpt2_tokens",  # embeddings and head are tied, so their tokens are one parameter
]
VIEWS: dict[str, Callable[[HFBackend], Opened]] = {
    "base": lambda backend: backend.as_base(),
    "ft": lambda backend: backend.as_finetuned(),
    "scaled": lambda backend: backend.as_scaled_adapter(-0.75),
    "null": lambda backend: backend.as_null_adapter(3, init_scale=0.3),
}
adapters = pytest.mark.parametrize("adapter", ADAPTERS)
views = pytest.mark.parametrize("kind", VIEWS)


def _state(model: Any) -> dict[str, Any]:
    """All that a toggle could change: weights, buffers, scalings, flags."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    state: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in tensors}
    state |= {f"{name} is trained": tensor.requires_grad for name, tensor in tensors}
    for name, module in model.named_modules():
        for flag in ("scaling", "disable_adapters", "active_adapters", "training"):
            if hasattr(module, flag):
                state[f"{name} {flag}"] = copy(getattr(module, flag))
    return state


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not _same(one[name], other[name])]


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@contextmanager
def _unchanged(model: Any) -> Iterator[dict[str, Any]]:
    before = _state(model)
    yield before
    assert _differing(before, _state(model)) == []


def _backend(zoo: Any, adapter: str) -> tuple[HFBackend, Any]:
    model = zoo.tuned(adapter)
    return HFBackend(model, zoo.tokenizer()), model


@adapters
@views
def test_weights_are_as_before(zoo: Any, adapter: str, kind: str) -> None:
    """After a view every weight, scaling and flag of the model is what it was."""
    backend, model = _backend(zoo, adapter)
    with _unchanged(model), VIEWS[kind](backend) as view:
        view.next_token_dist("the cat")


@adapters
@views
def test_weights_are_as_before_after_an_exception(zoo: Any, adapter: str, kind: str) -> None:
    """What is raised inside a view passes through, and the weights are put back."""
    backend, model = _backend(zoo, adapter)
    with (
        _unchanged(model),
        pytest.raises(ZeroDivisionError, match="mine"),
        VIEWS[kind](backend) as view,
    ):
        view.next_token_dist("the cat")
        raise ZeroDivisionError("mine")
    with VIEWS[kind](backend) as view:
        assert view.id.startswith(kind)


@adapters
@views
def test_weights_are_as_before_after_a_failed_pass(zoo: Any, adapter: str, kind: str) -> None:
    """A model that raises in its forward pass leaves no changed weight and no entry."""
    backend, model = _backend(zoo, adapter)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with _unchanged(model), VIEWS[kind](backend) as view:
        hook = model.get_output_embeddings().register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            view.next_token_dist("the cat")
        hook.remove()
        assert len(backend.instrumentation.cache) == 0
        assert view.next_token_dist("the cat").token_ids.size == 256


@views
def test_weights_change_at_the_first_miss(zoo: Any, kind: str) -> None:
    """An open view has changed nothing until a question misses the cache."""
    backend, model = _backend(zoo, "llama_head")
    before = _state(model)
    with VIEWS[kind](backend) as view:
        assert _differing(before, _state(model)) == []
        view.next_token_dist("the cat")
        assert (_differing(before, _state(model)) == []) == (kind == "ft")


@views
def test_view_of_known_answers_costs_nothing(zoo: Any, kind: str) -> None:
    """A view whose questions are all in the cache runs no pass and changes no weight."""
    backend, model = _backend(zoo, "llama_lora")
    with VIEWS[kind](backend) as view:
        known = view.next_token_dist("the cat"), view.logprob_of("the cat", " sat")
    before, passes = _state(model), backend.instrumentation.stats.forward_passes
    with VIEWS[kind](backend) as view:
        assert view.next_token_dist("the cat") is known[0]
        assert view.logprob_of_batch([("the cat", " sat")]) == [known[1]]
        assert _differing(before, _state(model)) == []
    assert backend.instrumentation.stats.forward_passes == passes == 2


@pytest.mark.parametrize("adapter", ["llama_lora", "llama_embeddings", "gpt2_lora"])
@pytest.mark.parametrize("lam", [-0.5, 0.25, 1.5])
def test_scale_multiplies_what_the_adapter_adds(zoo: Any, adapter: str, lam: float) -> None:
    """A scaled view is the adapter with its second factor multiplied by hand."""
    backend, model = _backend(zoo, adapter)
    with backend.as_scaled_adapter(lam) as view:
        got = view.rolling_logprob("the cat sat on the mat").logprobs
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                parameter.mul_(lam)
    with HFBackend(model, zoo.tokenizer()).as_finetuned() as view:
        expected = view.rolling_logprob("the cat sat on the mat").logprobs
    assert np.abs(got - expected).max() < 1e-4


@adapters
def test_null_replaces_both_factors(zoo: Any, adapter: str) -> None:
    """In a null view both LoRA factors are noise of the asked spread, and all else is not."""
    backend, model = _backend(zoo, adapter)
    before = _state(model)
    with backend.as_null_adapter(3, init_scale=0.05, rank_scale=4.0) as view:
        view.next_token_dist("the cat")
        during = _state(model)
    factors = [
        name for name in before if "lora_" in name and isinstance(before[name], torch.Tensor)
    ]
    factors = [name for name in factors if "magnitude" not in name]
    changed = _differing(before, during)
    assert set(factors) <= set(changed)
    assert all("lora_" in name or "modules_to_save" in name or "delta" in name for name in changed)
    noise = torch.cat([during[name].flatten() for name in factors])
    assert float(noise.std()) == pytest.approx(0.05 * math.sqrt(4.0), rel=0.1)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)


def test_null_is_given_by_its_seed(zoo: Any) -> None:
    """The same seed gives the same values on another copy, and another seed other ones."""

    def values(seed: int) -> list[float]:
        backend, _ = _backend(zoo, "llama_lora")
        with backend.as_null_adapter(seed, init_scale=0.3) as view:
            return view.rolling_logprob("the cat sat").logprobs.tolist()

    assert values(3) == values(3)
    assert values(3) != values(4)


def test_null_leaves_torchs_generator_alone(open_backend: Open) -> None:
    """A null view draws from a generator of its own."""
    backend = open_backend()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with backend.as_null_adapter(3) as view:
        view.next_token_dist("the cat")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("adapter", ["llama_head", "llama_tokens", "gpt2_tied", "gpt2_tokens"])
def test_saved_modules_of_a_null_view_are_the_bases(zoo: Any, adapter: str) -> None:
    """What an adapter saved whole plays no part in a null view."""
    plain = adapter.partition("_")[0] + "_lora"
    values = []
    for name in (adapter, plain):
        backend, _ = _backend(zoo, name)
        with backend.as_null_adapter(3, init_scale=0.3) as view:
            values.append(view.rolling_logprob("the cat sat on the mat").logprobs)
    assert np.abs(values[0] - values[1]).max() < 1e-5


def test_every_lora_layer_is_scaled_alike(zoo: Any) -> None:
    """Inside a scaled view each layer has its own scaling times the scale."""
    backend, model = _backend(zoo, "llama_lora")
    with backend.as_scaled_adapter(0.5) as view:
        view.next_token_dist("the cat")
        scalings = [m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)]
    assert scalings == [1.0] * 4  # alpha 8 over rank 4, halved
