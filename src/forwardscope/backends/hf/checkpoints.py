"""Check that a model has all its weights, and find their files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import transformers

from forwardscope.backends.hf.load_errors import local_path, some
from forwardscope.errors import ModelError

__all__ = ["check_checkpoint", "check_finite", "weight_files"]


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
    if getattr(model, "peft_config", None):
        raise ModelError(
            f"model {path} has an adapter in its folder, which transformers loads into it; move "
            "adapter_config.json out of the folder"
        )
    if missing:
        also = f", and has {len(unexpected)} others ({some(unexpected)})" if unexpected else ""
        raise ModelError(
            f"model {path} lacks {len(missing)} of its weights ({some(missing)}){also}; without "
            f"them its values would be random. Save it again as {type(model).__name__}"
        )
    if inside := [key for key in unexpected if _is_inside(key, model)]:
        raise ModelError(
            f"model {path} has {len(inside)} weights in its layers that {type(model).__name__} "
            f"does not have ({some(inside)}); check its config.json"
        )
    if unexpected:
        return [
            f"{len(unexpected)} weights of model {path} are not used by {type(model).__name__}: "
            f"{some(unexpected)}"
        ]
    return []


def check_finite(path: str, model: Any) -> None:
    """Check that all weights of a model are finite.

    Finite logits do not prove it: torch's fused attention on the CPU treats a
    query of NaN as a masked one and continues with zeros.

    Args:
        path: Path of the model, for messages.
        model: The model.

    Raises:
        ModelError: A weight is NaN or infinite.
    """
    bad = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if bad:
        raise ModelError(
            f"model {path} has NaN or infinite weights ({some(bad)}); check its training and the "
            "dtype"
        )


def _is_inside(key: str, model: Any) -> bool:
    """Whether a key is in one of the model's own layers, not in a part that the model lacks."""
    head = key.rpartition(".")[0]
    names = {name for name, _ in model.named_modules() if name}
    while head and head not in names:
        head = head.rpartition(".")[0]
    return bool(head) and head != model.base_model_prefix


def weight_files(path: str) -> tuple[Path, ...]:
    """Return the files that a model's weights are read from, sorted by path."""
    local = local_path(path, ModelError, "model")
    if local.is_file():
        return (local,)
    if not local.is_dir():
        try:
            config = transformers.utils.cached_file(path, "config.json", local_files_only=True)
        except OSError:  # not downloaded yet
            return ()
        local = Path(config).parent
    return tuple(sorted((*local.glob("*.safetensors"), *local.glob("*.safetensors.index.json"))))
