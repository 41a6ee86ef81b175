"""Attach an adapter to its base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    PeftModelForCausalLM,
    load_peft_weights,
    set_peft_model_state_dict,
)

from forwardscope.backends.hf.adapter_config import check_patterns, check_ranks
from forwardscope.backends.hf.adapter_names import fit_names
from forwardscope.backends.hf.carried import carry
from forwardscope.backends.hf.load_errors import errors_as, some
from forwardscope.backends.hf.vocabulary import (
    Vocabulary,
    adapter_tokenizer,
    fit_vocabulary,
)
from forwardscope.errors import AdapterError
from forwardscope.text import plural, shown

__all__ = ["Attached", "attach"]

_NAME = "default"


@dataclass(frozen=True, slots=True)
class Attached:
    """A model with its adapter.

    Attributes:
        model: The base model with the adapter.
        tokenizer: The tokenizer of both.
        vocabulary: The vocabulary of each.
        warnings: What a reader of the results should know.
    """

    model: PeftModel
    tokenizer: Any
    vocabulary: Vocabulary
    warnings: list[str]


def attach(base: Any, name: str, tokenizer: Any, folder: Path, config: LoraConfig) -> Attached:
    """Attach an adapter to a model, as PEFT loads it.

    Args:
        base: The base model; its modules and vocabulary are changed.
        name: Its name in errors.
        tokenizer: Its tokenizer.
        folder: Folder of the adapter.
        config: The adapter's config.

    Raises:
        AdapterError: The adapter cannot be read, or PEFT finds that a tensor of it is
            missing, has another shape or no counterpart in the model.
    """
    misfit = f"adapter {folder} does not fit the model {name}"
    tokenizer, warnings = adapter_tokenizer(folder, base, tokenizer)
    with errors_as(AdapterError, misfit):
        tensors = load_peft_weights(str(folder), device="cpu")
        check_ranks(config, tensors, f"adapter {folder}")
        tensors = fit_names(base, tensors, config)
        check_patterns(config, base, f"adapter {folder}")
        vocabulary, found = fit_vocabulary(base, tensors, config, tokenizer)
        config.inference_mode = True
        kind = PeftModelForCausalLM if config.task_type == "CAUSAL_LM" else PeftModel
        model = kind(base, config, _NAME)
        wrong = _load(model, tensors)
    if any(wrong):
        raise AdapterError(f"{misfit}: {_reason(*wrong)}; {_trained_on(config)}")
    return Attached(model, tokenizer, vocabulary, [*warnings, *found])


def _load(model: PeftModel, tensors: dict[str, torch.Tensor]) -> tuple[list[str], ...]:
    """Load an adapter's tensors.

    PEFT converts names of older versions first. Values of the base's own parameters are then
    taken out, and only the tuned model gets them.

    Returns:
        Its missing and its unexpected keys, as PEFT finds them, and what has another shape
        than in the model; all empty where the adapter fits.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    values: dict[str, torch.Tensor] = {}
    shapes: list[str] = []

    def take_out(_: object, converted: dict[str, torch.Tensor], *__: object) -> None:
        for key in sorted(own.keys() & converted.keys()):
            given, needed = tuple(converted[key].shape), tuple(own[key].shape)
            if given != needed:  # torch would raise
                shapes.append(f"{_file_key(key)} has {given}, not {needed}")
                del converted[key]
        for key in [key for key in converted if key in own and not _is_adapters(key)]:
            values[key] = converted.pop(key)

    hook = model.register_load_state_dict_pre_hook(take_out)
    try:
        result = set_peft_model_state_dict(model, tensors, adapter_name=_NAME)
    except KeyError as error:  # PEFT looks up the keys of saved modules
        return [_file_key(str(error.args[0]))], [], []
    finally:
        hook.remove()
    for key in own:  # in torch's order, so the last value of a tied parameter is PEFT's
        # an original module is the base's during training, and the tuned model has its own
        if key in values and ".original_module." not in key:
            carry(model, key, values[key])
    if shapes:  # whose keys PEFT then misses
        return [], [], shapes
    missing = [key for key in result.missing_keys if "lora_" in key and _is_adapters(key)]
    unexpected = [
        key for key in result.unexpected_keys if key not in tensors or not _is_copy(key, tensors)
    ]
    return [*map(_file_key, missing)], [*map(_file_key, unexpected)], []


def _file_key(key: str) -> str:
    """Return a key of a PEFT model as it is in an adapter's file."""
    return key.replace(f".{_NAME}", "")


def _trained_on(config: LoraConfig) -> str:
    name = config.base_model_name_or_path
    return f"it was trained on {shown(name)}" if name else "was it trained on another model?"


def _is_adapters(key: str) -> bool:
    """Whether a key of a PEFT model is of the adapter, and not of the base."""
    return f".{_NAME}." in key or key.endswith(f".{_NAME}")


def _is_copy(key: str, tensors: dict[str, torch.Tensor]) -> bool:
    """Whether a key has a second copy of a tensor, as PEFT writes for a resized vocabulary."""
    if ".modules_to_save." in key:
        others = [key.replace(".modules_to_save.", ".")]
    else:  # trained tokens of tied embeddings
        ending = key[key.rfind(".token_adapter.") :] if ".token_adapter." in key else "\n"
        others = [other for other in tensors if other.endswith(ending) and other != key]
    return any(other in tensors and torch.equal(tensors[other], tensors[key]) for other in others)


def _reason(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    nested = [key for key in unexpected if key.count("base_model.model.") > 1]
    vision = [key for key in unexpected if any(part in key for part in ("vision", "visual"))]
    if nested:
        return (
            f"it was trained on top of another adapter (it has {some(nested, 1)}); merge that "
            "adapter into its base with merge_and_unload() and train on the merged model"
        )
    if vision:
        return (
            f"it also adapts the vision part of its model ({some(vision, 1)}), which is not "
            "computed here; only adapters of the text part are supported"
        )
    parts = []
    if shapes:
        parts.append(f"its tensors have other shapes ({some(shapes, 1)})")
    if missing:
        parts.append(f"it lacks {plural(len(missing), 'tensor')} of the model ({some(missing)})")
    if unexpected:
        parts.append(
            f"it has {plural(len(unexpected), 'tensor')} that the model lacks ({some(unexpected)})"
        )
    return " and ".join(parts)
