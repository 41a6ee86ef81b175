"""Context managers that change the weights for a view and undo the change.

Undoing a change restores the saved values, so the weights are the same bit for
bit, also after an exception.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils import ModulesToSaveWrapper

__all__ = ["Noise", "disabled", "is_finite", "is_plain_lora", "randomized", "scaled"]


def is_plain_lora(model: PeftModel) -> bool:
    """Whether scale 0 of the adapter is the base model and scale 1 the fine-tuned model.

    DoRA and other variants renormalise the weights that they are added to.
    Saved modules replace the base's modules at every scale.
    """
    config = model.peft_config[model.active_adapter]
    replaced = config.modules_to_save or getattr(config, "trainable_token_indices", None)
    return not replaced and not any(layer.lora_variant for layer in _lora_layers(model))


def is_finite(model: PeftModel) -> bool:
    """Whether all enabled LoRA weights are finite.

    Finite logits do not prove it: torch's fused attention on the CPU
    treats a query of NaN as a masked one and continues with zeros.
    """
    return all(
        bool(parameter.isfinite().all())
        for layer in _lora_layers(model)
        if not layer.disable_adapters
        for name, parameter in layer.named_parameters()
        if "lora_" in name
    )


@contextmanager
def disabled(model: PeftModel) -> Iterator[None]:
    """Disable the adapter."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, flag in flags:  # PEFT sets them when it enables the adapter again
            parameter.requires_grad_(flag)


@contextmanager
def scaled(model: PeftModel, lam: float) -> Iterator[None]:
    """Multiply the adapter's change by `lam`."""
    saved = [(layer, dict(layer.scaling)) for layer in _lora_layers(model)]
    try:
        for layer, scaling in saved:
            layer.scaling = {name: value * lam for name, value in scaling.items()}
        yield
    finally:
        for layer, scaling in saved:
            layer.scaling = scaling


class Noise:
    """Standard Gaussian noise in the shapes of a model's LoRA factors, drawn once per seed.

    `null_adapter` opens each null view once per calibration, so the most recently
    used draws stay in CPU memory. A seed always gives the same numbers. Not
    thread-safe.

    Args:
        max_bytes: Maximum bytes of stored noise.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._drawn: OrderedDict[int, list[torch.Tensor]] = OrderedDict()
        self._nbytes = 0

    def draw(self, seed: int, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
        """Return one float32 tensor per shape, drawn in order. Callers must not change them."""
        drawn = self._drawn.get(seed)
        if drawn is None:
            generator = torch.Generator(device="cpu").manual_seed(seed)
            drawn = [torch.randn(shape, generator=generator) for shape in shapes]
            self._drawn[seed] = drawn
            self._nbytes += _bytes_of(drawn)
        self._drawn.move_to_end(seed)
        while self._nbytes > self._max_bytes:
            self._nbytes -= _bytes_of(self._drawn.popitem(last=False)[1])
        return drawn


def _bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@contextmanager
def randomized(
    model: PeftModel, seed: int, init_scale: float, rank_scale: float, noise: Noise
) -> Iterator[None]:
    """Replace both LoRA factors with Gaussian noise.

    The standard deviation is init_scale * sqrt(rank_scale). The variance of the
    factors' product grows linearly with the rank, so this corresponds to an
    adapter of `rank_scale` times the rank. Noise is drawn on the CPU in the
    order of the model's parameters, so a seed gives the same noise on every
    device. Modules and tokens that the adapter replaces get the base's values
    again.
    """
    std = init_scale * math.sqrt(rank_scale)
    factors = [
        parameter
        for name, parameter in model.named_parameters()
        if any(factor in name for factor in _FACTORS)
    ]
    saved: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    try:
        drawn = noise.draw(seed, [parameter.shape for parameter in factors])
        for parameter, standard in zip(factors, drawn, strict=True):
            saved.append((parameter, parameter.data))
            parameter.data = (standard * std).to(parameter.device, parameter.dtype)
        for own, original in _replaced_parameters(model):
            saved.append((own, own.data))
            own.data = original.data
        yield
    finally:
        for parameter, data in reversed(saved):  # tied modules save a shared parameter twice
            parameter.data = data


_FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")


def _lora_layers(model: PeftModel) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _replaced_parameters(model: PeftModel) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
    name = model.active_adapter
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            own = module.modules_to_save[name]
            yield from zip(own.parameters(), module.original_module.parameters(), strict=True)
        elif isinstance(module, TrainableTokensLayer):
            yield module.trainable_tokens_delta[name], module.trainable_tokens_original[name]
