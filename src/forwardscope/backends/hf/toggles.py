"""What a view changes on the weights, each as a context manager that undoes it.

Nothing is computed to undo a change: what was there before is put back, so
the weights are the same bit for bit, also after an exception.
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

__all__ = ["Noise", "can_alias", "disabled", "is_finite", "randomized", "scaled"]


def can_alias(model: PeftModel) -> bool:
    """Whether the adapter is plain LoRA, so that scale 0 is the base and scale 1 the tuned model.

    DoRA and other variants renormalise what they are added to, and saved
    modules are swapped whole whatever the scale.
    """
    config = model.peft_config[model.active_adapter]
    swaps = config.modules_to_save or getattr(config, "trainable_token_indices", None)
    return not swaps and not any(layer.lora_variant for layer in _lora_layers(model))


def is_finite(model: PeftModel) -> bool:
    """Whether the LoRA weights that are on now hold finite numbers alone.

    The logits do not always tell: torch's fused attention on the CPU takes a
    query of NaN for a masked one and goes on with zeros.
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
    """Take the adapter off."""
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, flag in trained:  # PEFT sets it where it puts an adapter on again
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
    """Standard Gaussian noise of the shape of a model's LoRA factors, drawn once a seed.

    A calibration matrix opens each null view once a probe. What was drawn last
    stays in memory on the CPU, bounded in bytes: the same numbers, whether
    drawn or remembered. Not safe under threads.

    Args:
        max_bytes: The most that is remembered.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._drawn: OrderedDict[int, list[torch.Tensor]] = OrderedDict()
        self._nbytes = 0

    def of(self, seed: int, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
        """Return one float32 tensor a shape, drawn in their order; not to be changed."""
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
    """Put Gaussian noise in place of both LoRA factors.

    The standard deviation is init_scale * sqrt(rank_scale): the variance of
    the factors' product grows linearly with the rank, so this stands for an
    adapter of `rank_scale` times the rank. Draws are made on the CPU in the
    order of the model's parameters, so a seed means the same on every device.
    Modules and tokens that the adapter saved whole are the base's own meanwhile.
    """
    std = init_scale * math.sqrt(rank_scale)
    factors = [
        parameter
        for name, parameter in model.named_parameters()
        if any(factor in name for factor in _FACTORS)
    ]
    saved: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    try:
        drawn = noise.of(seed, [parameter.shape for parameter in factors])
        for parameter, standard in zip(factors, drawn, strict=True):
            saved.append((parameter, parameter.data))
            parameter.data = (standard * std).to(parameter.device, parameter.dtype)
        for own, original in _saved_whole(model):
            saved.append((own, own.data))
            own.data = original.data
        yield
    finally:
        for parameter, data in reversed(saved):  # tied modules share a parameter, saved twice
            parameter.data = data


_FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")


def _lora_layers(model: PeftModel) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _saved_whole(model: PeftModel) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
    name = model.active_adapter
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            own = module.modules_to_save[name]
            yield from zip(own.parameters(), module.original_module.parameters(), strict=True)
        elif isinstance(module, TrainableTokensLayer):
            yield module.trainable_tokens_delta[name], module.trainable_tokens_original[name]
