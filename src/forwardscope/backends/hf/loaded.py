"""The parts of the identity of a model that another program has loaded.

Unlike the views of our own backend, such a model is one whole: what is in its memory, and
what computes with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.modules import module as modules

from forwardscope.backends.digests import digest_of
from forwardscope.backends.hf import compat
from forwardscope.backends.hf.config_digest import config_digest
from forwardscope.backends.hf.environment import KNOWN_CODE, environment, foreign_code, quantisers
from forwardscope.backends.hf.remembered import remembered, sign
from forwardscope.backends.hf.tensor_digests import digest_of_tensors
from forwardscope.backends.hf.tokenizer_digest import tokenizer_digest
from forwardscope.errors import ModelError

__all__ = ["check_calls", "generation_digest", "parts_of_loaded", "weight_files"]

_WEIGHTS: Final = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


def parts_of_loaded(
    model: Any, tokenizer: Any, folders: Sequence[Path] | None = None
) -> Mapping[str, str]:
    """Return by name all that determines the values of a model of transformers or PEFT.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        folders: Where all its weights came from a moment ago; then their digest is remembered
            for later processes. None if they may have been changed in memory.

    Raises:
        ModelError: The model has code of no installed package, so that no version says what
            it computes, or is in a state that its content does not show.
    """
    check_calls(model)
    plain = compat.unwrapped(model)
    code = foreign_code(model)
    if code is None:
        raise ModelError("the model has modules of no installed package")
    config = [config_digest(plain), *_adapters(model)]
    parts = {
        "model config": digest_of(config),
        "model weights": _weights(model, config, folders),
        "generation config": generation_digest(plain),
        "attention implementation": compat.attention(plain),
        "experts implementation": compat.experts(plain),
        "dtype": str(plain.dtype).removeprefix("torch."),
        "tokenizer": tokenizer_digest(tokenizer),
        "quantisers": quantisers() if compat.is_quantised(plain) else "",
        "other code": code,
        "peft": version("peft") if plain is not model else "",
        **environment(plain.device),
    }
    return {name: part for name, part in parts.items() if part}


def check_calls(model: torch.nn.Module) -> None:
    """Check that a model's calls do what its classes say.

    Raises:
        ModelError: Parts are in training mode, have a hook of a program around their forward,
            or another forward than that of their class.
    """
    if modules._global_forward_pre_hooks or modules._global_forward_hooks:
        raise ModelError("all modules have a hook; remove it")
    for name, part in model.named_modules():
        own = vars(part)
        if part.training:
            raise ModelError(f"{name or 'the model'} is in training mode; call eval()")
        hooks = chain(part._forward_pre_hooks.values(), part._forward_hooks.values())
        if not all(map(_is_known, hooks)):
            raise ModelError(f"{name or 'the model'} has a hook around its forward; remove it")
        if "forward" in own and "_hf_hook" not in own:  # accelerate's moves parts to devices
            raise ModelError(f"the forward of {name or 'the model'} was replaced")


def _is_known(hook: Any) -> bool:
    """Return whether a hook is one of the libraries that compute the model."""
    return str(getattr(hook, "__module__", "")).partition(".")[0] in KNOWN_CODE


def _weights(model: Any, config: Sequence[object], folders: Sequence[Path] | None) -> str:
    def compute() -> str:
        return digest_of_tensors(_tensors(model))

    files = [] if folders is None else [path for folder in folders for path in weight_files(folder)]
    if not files or (signed := sign(files)) is None:
        return compute()
    versions = [version(name) for name in ("torch", "transformers", "peft")]
    key = ["loaded", signed.signature, config, str(model.dtype), versions, quantisers()]
    return remembered(key, compute, rehash=False)


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all tensors of a model, those of its adapters among them."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):  # the state of a quantiser
            raise ModelError(f"the weights have a {type(tensor).__name__}, not only tensors")
        yield name, tensor


def weight_files(folder: Path) -> list[Path]:
    """Return the files below a folder that can hold weights."""
    return sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS)


def _adapters(model: Any) -> list[object]:
    """Return the settings of a model's adapters, and which of them are active."""
    if compat.unwrapped(model) is model:
        return []
    settings = {name: config.to_dict() for name, config in model.peft_config.items()}
    scaling = [
        [name, sorted(layer.scaling.items()), layer.merged, layer.disable_adapters]
        for name, layer in model.named_modules()
        if isinstance(getattr(layer, "scaling", None), dict)
    ]
    return [settings, model.active_adapters, scaling]


def generation_digest(model: Any) -> str:
    """Return the digest of the settings with which a model generates; empty without any."""
    config = getattr(model, "generation_config", None)
    return "" if config is None else digest_of(config.to_dict())
