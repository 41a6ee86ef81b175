"""Check that a model has all its weights, and that they are finite."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import torch

from forwardscope.backends.hf.carried import own_values
from forwardscope.backends.hf.load_errors import some
from forwardscope.errors import ModelError
from forwardscope.text import plural

__all__ = ["check_checkpoint", "check_finite", "is_finite"]

#: Masks and frequencies that a model computes itself.
_CONSTANTS: Final = (
    ".attn.bias",
    ".attention.bias",
    ".self_attn.bias",
    ".masked_bias",
    ".causal_mask",
    ".rotary_emb.inv_freq",
)
#: Parts of the names of an adapter's parameters.
_OF_ADAPTERS: Final = (".lora_", ".modules_to_save.", ".trainable_tokens_")


def check_checkpoint(path: str, model: Any, loaded: Mapping[str, Collection[str]]) -> list[str]:
    """Check that each weight of a model was in its checkpoint; return warnings.

    transformers initialises missing weights at random. Tied weights and keys that
    a model's class declares as harmless are in neither list.

    Args:
        path: Path of the model, for messages.
        model: The model.
        loaded: What transformers found, with `missing_keys` and `unexpected_keys`.

    Raises:
        ModelError: A weight is missing, or the checkpoint has weights in the
            model's layers that the model lacks, so it is of another architecture.
    """
    missing, unexpected = loaded["missing_keys"], loaded["unexpected_keys"]
    if missing:
        also = (
            f", and has {plural(len(unexpected), 'other')} ({some(unexpected)})"
            if unexpected
            else ""
        )
        raise ModelError(
            f"model {path} lacks {len(missing)} of its weights ({some(missing)}){also}; without "
            f"them its values would be random. Save it again as {type(model).__name__}"
        )
    if inside := [key for key in unexpected if _is_inside(key, model) and not _is_mask(key)]:
        raise ModelError(
            f"model {path} has {plural(len(inside), 'weight')} in its layers that "
            f"{type(model).__name__} does not have ({some(inside)}); check its config.json"
        )
    if unexpected:
        return [
            f"{type(model).__name__} does not use {plural(len(unexpected), 'weight')} of model "
            f"{path}: {some(unexpected)}"
        ]
    return []


def check_finite(what: str, model: Any) -> None:
    """Check that all weights of a model are finite, those of its adapter excepted.

    Finite logits do not prove it: torch's fused attention on the CPU treats a
    query of NaN as a masked one and continues with zeros.

    Args:
        what: What the model is, for messages.
        model: The model, wrapped by PEFT or not.

    Raises:
        ModelError: A weight is NaN or infinite.
    """
    carried = {id(own): original for own, original in own_values(model)}
    bad = [
        name
        for name, weight in model.named_parameters()
        if not any(part in name for part in _OF_ADAPTERS)
        and not is_finite(carried.get(id(weight), weight))
    ]
    if bad:
        raise ModelError(
            f"the {what} has NaN or infinite weights ({some(bad)}); check its training and the "
            "dtype"
        )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinity; integers and 8-bit floats count as finite."""
    has_infinity = tensor.is_floating_point() and tensor.element_size() > 1
    return not has_infinity or bool(tensor.isfinite().all())


def _is_mask(key: str) -> bool:
    """Whether a key is a constant that older releases of transformers saved with the weights."""
    return key.endswith(_CONSTANTS)


def _is_inside(key: str, model: Any) -> bool:
    """Whether a key is in one of the model's own layers, not in a part that the model lacks."""
    head = key.rpartition(".")[0]
    names = {name for name, _ in model.named_modules() if name}
    while head and head not in names:
        head = head.rpartition(".")[0]
    return bool(head) and head != model.base_model_prefix
