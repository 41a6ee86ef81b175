"""Names of an adapter that was trained through another class of the same model.

The text part of a vision-language model is `model.language_model` in its
vision-language class and `model` in its text class. An adapter that was trained
through one of them fits the other with these names exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig

__all__ = ["fit_names"]

_PREFIX = "base_model.model."
_PART = "language_model"
_Rename = Callable[[str], str]


def fit_names(
    base: Any, tensors: dict[str, torch.Tensor], config: LoraConfig
) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors with the names of the base model's class.

    Names that fit, or that PEFT converts itself, stay as they are.

    Args:
        base: The base model.
        tensors: The adapter's tensors by key.
        config: The adapter's config; its targets are renamed.
    """
    adapted = [_module(key) for key in tensors if "lora_" in key]
    has_part = any(name.rpartition(".")[2] == _PART for name, _ in base.named_modules())
    named_part = any(_PART in name.split(".") for name in adapted)
    rename: _Rename
    if named_part and not has_part:
        rename = _without_part
    elif has_part and not named_part and not any(map(_has(base), adapted)):
        rename = _with_part
    else:
        return tensors
    found = [name for name in map(rename, adapted) if _has(base)(name)]
    if not found:
        return tensors
    if isinstance(config.target_modules, str) or rename is _with_part:
        config.target_modules = set(found)  # a pattern has the names of the other class
    for patterns in (config.rank_pattern, config.alpha_pattern):
        renamed = {rename(name): value for name, value in patterns.items()}
        patterns.clear()
        patterns.update(renamed)
    return {_PREFIX + rename(key.removeprefix(_PREFIX)): value for key, value in tensors.items()}


def _module(key: str) -> str:
    """Return the name of the module that a LoRA tensor adapts."""
    return re.sub(r"\.lora_.*", "", key.removeprefix(_PREFIX))


def _has(base: Any) -> Callable[[str], bool]:
    names = {name for name, _ in base.named_modules()}
    return names.__contains__


def _without_part(name: str) -> str:
    if name.startswith(f"{_PART}."):  # before transformers 4.52
        return name.removeprefix(f"{_PART}.")
    return name.replace(f".{_PART}.", ".", 1)


def _with_part(name: str) -> str:
    return name.replace("model.", f"model.{_PART}.", 1) if name.startswith("model.") else name
