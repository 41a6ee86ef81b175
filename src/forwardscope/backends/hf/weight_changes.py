"""Context managers that change the weights for a view and undo the change.

Undoing a change restores the saved values, so the weights are the same bit for
bit, also after an exception.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

from forwardscope.backends.hf.carried import own_values
from forwardscope.backends.hf.checkpoints import is_finite
from forwardscope.backends.hf.noise import Noise

__all__ = [
    "change_is_finite",
    "disabled",
    "keeps_variant",
    "null_shape",
    "randomized",
    "refusal",
    "scaled",
    "scalings",
    "state_of",
]


def refusal(model: PeftModel) -> str | None:
    """Return why the adapter can be neither scaled nor randomised, or None where it can."""
    name = model.active_adapter
    for layer in _lora_layers(model):
        variant = _variant(layer, name)
        if variant is not None and variant not in _DORA | _LINEAR:
            return f"it is not known how to scale or randomise the LoRA variant {variant}"
    for module in _saved_modules(model):
        if any(isinstance(part, LoraLayer) for part in module.modules()):
            return "a saved module contains LoRA layers, and its change is not linear in both"
    carried = {id(own) for own, _ in own_values(model)}
    for layer in _lora_layers(model):
        if _variant(layer, name) in _DORA and id(layer.base_layer.weight) in carried:
            return "a layer with DoRA has its own base weight in the adapter's file"
    return None


def change_is_finite(model: PeftModel) -> bool:
    """Whether all that the adapter adds or replaces is finite; True while it is disabled.

    Finite logits do not prove it; see `check_finite`.
    """
    layers = [layer for layer in _lora_layers(model) if not layer.disable_adapters]
    if not layers:
        return True
    own = [
        parameter
        for layer in layers
        for name, parameter in layer.named_parameters()
        if "lora_" in name
    ]
    return all(map(is_finite, [*own, *_replacements(model)]))


def state_of(model: torch.nn.Module) -> tuple[object, ...]:
    """Return everything that a view changes, to compare; equal states compute equal values.

    Weights are represented by their memory, because no view writes to it. Buffers are in
    it only where an adapter replaces them: a model may have others that it replaces
    itself, such as the frequencies of a rotary embedding. A model without an adapter has
    no views of its own, so its state is empty.
    """
    if not isinstance(model, PeftModel):
        return ()
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    wrappers = [
        module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)
    ]
    lora = _lora_layers(model)
    hooked = [module for layer in lora for module in (layer, layer.base_layer)]
    return (
        [tensor.data_ptr() for tensor in (*model.parameters(), *_replacements(model))],
        [part.disable_adapters for part in (*layers, *wrappers)],
        [(dict(layer.scaling), list(layer.lora_variant)) for layer in lora],
        [len(module._forward_hooks) for module in hooked],
    )


@contextmanager
def disabled(model: PeftModel) -> Iterator[None]:
    """Disable the adapter; base weights that its file has values of get their own again."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with ExitStack() as undo, model.disable_adapter():
            for parameter, original in own_values(model):
                _set(parameter, "data", original, undo)
            yield
    finally:
        for parameter, flag in flags:  # PEFT sets them when it enables the adapter again
            parameter.requires_grad_(flag)


@contextmanager
def scaled(model: PeftModel, lam: float) -> Iterator[None]:
    """Multiply everything that the adapter changes by `lam`.

    A weight W that the adapter turns into W' becomes W + lam * (W' - W). With
    DoRA, W' is the normalised weight with its trained magnitude; it is scaled
    in the layer's output, without a copy of W. Saved modules and trained tokens
    are interpolated, which copies their weights while the context is open.
    """
    name = model.active_adapter
    with ExitStack() as undo:
        for layer in _lora_layers(model):
            if _variant(layer, name) in _DORA:
                _scale_output(layer, lam, undo)
            else:
                scaling = {adapter: value * lam for adapter, value in layer.scaling.items()}
                _set(layer, "scaling", scaling, undo)
        for own, original in _replaced_tensors(model):
            if own.is_floating_point():  # others are counters
                scaled_data = torch.lerp(original.to(own).data, own.data, lam)
                _set(own, "data", scaled_data, undo)
        yield


def _scale_output(layer: LoraLayer, lam: float, undo: ExitStack) -> None:
    """Multiply what a layer adds to the output of its base layer by `lam`."""
    base: dict[str, torch.Tensor] = {}

    def keep(_module: object, _inputs: object, output: torch.Tensor) -> None:
        base["output"] = output

    def scale(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return torch.lerp(base.pop("output"), output, lam)

    undo.callback(layer.base_layer.register_forward_hook(keep).remove)
    undo.callback(layer.register_forward_hook(scale).remove)


@contextmanager
def randomized(
    model: PeftModel, seed: int, init_scale: float, rank_scale: float, noise: Noise
) -> Iterator[None]:
    """Replace both LoRA factors with Gaussian noise, and all else of the adapter with the base's.

    The standard deviation is init_scale * sqrt(rank_scale). The variance of the
    factors' product grows linearly with the rank, so this corresponds to an
    adapter of `rank_scale` times the rank. Noise is drawn on the CPU in the
    order of the model's parameters, so a seed gives the same noise on every
    device.

    An adapter that is not trained keeps the base's saved modules and tokens, and
    its biases are 0. Its DoRA magnitudes are the norms of the weights with the
    factors added, as PEFT initialises them, so DoRA's normalisation cancels: the
    layers are computed as plain LoRA. No trained value remains.
    """
    std = init_scale * math.sqrt(rank_scale)
    factors = [parameter for _, parameter in _factors(model)]
    with ExitStack() as undo:
        drawn = noise.draw(seed, [parameter.shape for parameter in factors])
        for parameter, standard in zip(factors, drawn, strict=True):
            values = (standard * std).to(parameter.device, parameter.dtype)
            _set(parameter, "data", values, undo)
        for name, parameter in model.named_parameters():
            if _is_bias(name):
                _set(parameter, "data", torch.zeros_like(parameter.data), undo)
        for own, original in _replaced_tensors(model):
            _set(own, "data", original.data, undo)
        for layer in _lora_layers(model):
            variants = {
                name: variant
                for name, variant in layer.lora_variant.items()
                if _variant(layer, name) not in _DORA
            }
            _set(layer, "lora_variant", variants, undo)
        yield


def null_shape(model: PeftModel) -> list[object]:
    """Return what a null view takes from its adapter, for digests.

    Models with an equal base and an equal shape have equal null views, unless
    `keeps_variant`.
    """
    name = model.active_adapter
    bare = [(key.replace(f".{name}", ""), one) for key, one in _factors(model)]
    biases = [key.replace(f".{name}", "") for key, _ in model.named_parameters() if _is_bias(key)]
    factors = [[key, list(one.shape), str(one.dtype)] for key, one in bare]
    return [factors, biases, scalings(model)]


def keeps_variant(model: PeftModel) -> bool:
    """Whether null views compute a LoRA variant, with its settings and further weights."""
    variants = {_variant(layer, model.active_adapter) for layer in _lora_layers(model)}
    return not variants <= {None, *_DORA}


def scalings(model: PeftModel) -> list[object]:
    """Return the class of each LoRA layer and its scaling, in the order of the modules."""
    name = model.active_adapter
    return [[type(layer).__name__, layer.scaling.get(name)] for layer in _lora_layers(model)]


_FACTORS = ("lora_A.", "lora_B.", "lora_embedding_A.", "lora_embedding_B.")
#: Variants that normalise the weight; their change is not linear in the scaling.
_DORA = frozenset(
    f"Dora{layer}Variant" for layer in ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")
)
#: Variants whose change is the product of scaling and both factors, as with plain LoRA.
_LINEAR = frozenset(
    (
        "ALoraLinearVariant",
        "BdLoraLinearVariant",
        "MiCAEmbeddingVariant",
        "MiCALinearVariant",
        "MontecloraLinearVariant",
        "QALoraLinearVariant",
        "VeloraLinearVariant",
    )
)


def _set(target: object, name: str, value: object, undo: ExitStack) -> None:
    """Set an attribute; undoing sets the old value again."""
    undo.callback(setattr, target, name, getattr(target, name))
    setattr(target, name, value)


def _factors(model: PeftModel) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, one) for name, one in model.named_parameters() if _is_factor(name)]


def _is_factor(name: str) -> bool:
    return any(factor in name for factor in _FACTORS) and not _is_bias(name)


def _is_bias(name: str) -> bool:
    return "lora_B." in name and name.endswith(".bias")


def _lora_layers(model: torch.nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _variant(layer: LoraLayer, adapter: str) -> str | None:
    """Return the class of an adapter's LoRA variant; None for plain LoRA."""
    variant = layer.lora_variant.get(adapter)
    return None if variant is None else type(variant).__name__


def _saved_modules(model: PeftModel) -> Iterator[torch.nn.Module]:
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            yield module.modules_to_save[model.active_adapter]


def _replacements(model: PeftModel) -> Iterator[torch.Tensor]:
    """Yield each tensor that the adapter has in place of one of the base's."""
    yield from (own for own, _ in own_values(model))
    for module in _saved_modules(model):
        yield from (*module.parameters(), *module.buffers())
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            yield module.trainable_tokens_delta[model.active_adapter]


def _replaced_tensors(model: PeftModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each tensor that the adapter replaces the base's with, once, and the base's own."""
    name = model.active_adapter
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = list(own_values(model))
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            own, original = module.modules_to_save[name], module.original_module
            pairs += zip(own.parameters(), original.parameters(), strict=True)
            pairs += zip(own.buffers(), original.buffers(), strict=True)
        elif isinstance(module, TrainableTokensLayer):
            tokens = module.trainable_tokens_delta[name], module.trainable_tokens_original[name]
            pairs.append(tokens)
    return list({id(own): (own, original) for own, original in pairs}.values())  # tied modules
