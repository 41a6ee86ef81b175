"""Digests of the weights of a base, and separately of its adapter.

Weights are digested as they are in memory, so that a conversion to another dtype, a merge
or a dequantisation at load is in the digest, and how the weights were stored is not. A
quantised model is the exception: some libraries change its state at the first forward
pass, so the digest is that of its files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper

from forwardscope.backends.digests import digest_of
from forwardscope.backends.hf import compat
from forwardscope.backends.hf.carried import own_values
from forwardscope.backends.hf.tensor_digests import Named

__all__ = ["adapter_tensors", "added_rows", "base_tensors", "digest_of_files"]

#: Names of the base's own modules in PEFT's wrappers; the last is a wrapper itself.
_WRAPPED = ("base_layer", "original_module", "token_adapter")


def digest_of_files(paths: Iterable[Path]) -> str:
    """Return the digest of the content of weight files, under whatever names."""
    digests = []
    for path in paths:
        if path.suffix != ".json":  # an index has the names of the files
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digest_of(sorted(digests))


def base_tensors(model: Any, rows: int) -> Iterator[Named]:
    """Yield the weights of a base, as they are without an adapter.

    Args:
        model: The base, wrapped by PEFT or not, with no view's change applied.
        rows: Number of the base's own tokens; rows that were added are left out.
    """
    plain = compat.unwrapped(model)
    embeddings = _embeddings(plain, output=True) if rows < compat.output_rows(plain) else set()
    for key, _, tensor, own in _split(model):
        if own is not None:
            cut = id(tensor) in embeddings
            yield key, own[:rows] if cut else own


def added_rows(model: Any, rows: int, *, output: bool) -> Iterator[Named]:
    """Yield the rows of a base's embeddings that were added to it.

    Args:
        model: As for `base_tensors`.
        rows: Number of the base's own tokens.
        output: Whether to yield those of the output embeddings as well.
    """
    embeddings = _embeddings(compat.unwrapped(model), output)
    for key, _, tensor, own in _split(model):
        if own is not None and id(tensor) in embeddings:
            yield key, own[rows:]


def adapter_tensors(model: PeftModel) -> Iterator[Named]:
    """Yield the weights of an adapter, those in place of the base's among them."""
    carried = {id(parameter) for parameter, _ in own_values(model)}
    for key, name, tensor, own in _split(model):
        if own is None or id(tensor) in carried:
            yield key if own is not None else name, tensor


def _split(model: Any) -> Iterator[tuple[str, str, torch.Tensor, torch.Tensor | None]]:
    """Yield each tensor with its name in the base, its name in the adapter, and the base's value.

    That value is None for a tensor of the adapter.
    """
    plain = compat.unwrapped(model)
    adapter = getattr(model, "active_adapter", "")
    originals = {id(parameter): value for parameter, value in own_values(model)}
    for name, tensor in plain.state_dict(keep_vars=True).items():
        in_base, rest = _names(plain, name)
        in_adapter = ".".join([*in_base, *(part for part in rest if part != adapter)])
        own = None if rest else originals.get(id(tensor), tensor)
        yield ".".join(in_base), in_adapter, tensor, own


def _names(model: Any, name: str) -> tuple[list[str], list[str]]:
    """Return a tensor's name without PEFT's wrappers, split where the adapter's part begins."""
    in_base: list[str] = []
    parts = name.split(".")
    module = model
    for place, part in enumerate(parts):
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            if part not in _WRAPPED:
                return in_base, parts[place:]
        else:
            in_base.append(part)
        module = getattr(module, part, None)
    return in_base, []


def _embeddings(plain: Any, output: bool) -> set[int]:
    """Return the ids of the parameters that have a row for each token."""
    layers = [plain.get_input_embeddings(), *([plain.get_output_embeddings()] if output else [])]
    return {
        id(parameter) for layer in layers for parameter in _below(layer).parameters(recurse=False)
    }


def _below(layer: Any) -> Any:
    """Return the base's own module in PEFT's wrappers."""
    while isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
        layer = next(getattr(layer, name) for name in _WRAPPED if hasattr(layer, name))
    return layer
