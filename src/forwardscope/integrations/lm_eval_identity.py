"""What determines the answers of a model of lm-evaluation-harness."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forwardscope.backends.views import BASE, FINETUNED
from forwardscope.errors import ModelError
from forwardscope.integrations.tool_numbers import tolerance_of
from forwardscope.text import printable

if TYPE_CHECKING:
    from lm_eval.api.model import LM

__all__ = ["ModelIdentity", "has_weights", "identity_of"]

#: Settings of an `HFLM` that change its answers. How many requests are in a batch does not.
_SETTINGS: Final = (
    "add_bos_token",
    "backend",
    "chat_template_args",
    "enable_thinking",
    "max_gen_toks",
    "max_length",
    "mixed_precision_dtype",
    "prefix_token_id",
    "softmax_dtype",
    "think_end_token",
    "truncation",
)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What determines the answers of a model.

    Attributes:
        view: `ft` for a model with an adapter, else `base`.
        digest: Hash of all that determines the answers; None where it is not known, so that
            no answer may be stored.
        parts: What the digest is made of, by name.
        tolerance: Largest difference of a log-probability between two computations.
        is_hflm: Whether the model is an `HFLM` itself, whose code is known.
        reason: Why there is no digest; None where there is one.
        device: Device of the weights, where it is known.
        dtype: Dtype of the weights, where it is known.
    """

    view: str = BASE
    digest: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = field(default_factory=tolerance_of)
    is_hflm: bool = False
    reason: str | None = None
    device: str = ""
    dtype: str = ""


def identity_of(lm: LM, revision: str | None, *, just_loaded: bool = False) -> ModelIdentity:
    """Return the identity of a model.

    That of an `HFLM` is its content, whatever its user says of it. A class that is derived from
    it, or any other model, can compute anything, so it has the identity that its user gives.

    Args:
        lm: The model.
        revision: What the user says of a model whose content cannot be read; None if nothing.
        just_loaded: Whether its weights are those of its files, so that their digest can be
            remembered for later processes.
    """
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - imports torch

    name = f"{type(lm).__module__}.{type(lm).__qualname__}"
    if type(lm) is HFLM:
        content = _of_hflm(lm, _folders(lm) if just_loaded else None)
        if content.digest is not None or revision is None:
            return content
    if revision is None:
        return ModelIdentity(
            reason=f"nothing says what determines the answers of {printable(name)}; "
            "give --model-revision (in Python revision=) with a version of your model"
        )
    parts = {"model class": name, "model revision": revision, **_harness()}
    return ModelIdentity(digest=_digest(parts), parts=parts)


def has_weights(lm: LM) -> bool:
    """Return whether a model has weights in this process, which a program may change."""
    nn = sys.modules.get("torch.nn")  # imported by what has made a module
    return nn is not None and any(isinstance(value, nn.Module) for value in vars(lm).values())


def _replaced_methods(lm: Any) -> list[str]:
    """Return the methods of a model that an attribute of its own replaces."""
    return sorted(name for name in vars(lm) if inspect.isfunction(getattr(type(lm), name, None)))


def _of_hflm(lm: Any, folders: Sequence[Path] | None) -> ModelIdentity:
    from forwardscope.backends.hf.loaded import parts_of_loaded  # noqa: PLC0415 - imports torch

    try:
        if replaced := _replaced_methods(lm):
            raise ModelError(f"its {replaced[0]} was replaced")
        settings = {f"lm-eval {name}": str(getattr(lm, name)) for name in _SETTINGS}
        content = parts_of_loaded(lm.model, lm.tokenizer, folders)
        parts = {**content, **settings, **_harness()}
        dtype = str(lm.model.dtype).removeprefix("torch.")
        return ModelIdentity(
            view=FINETUNED if lm.peft or lm.delta else BASE,
            digest=_digest(parts),
            parts=parts,
            tolerance=tolerance_of(dtype),
            device=str(lm.device),
            is_hflm=True,
            dtype=dtype,
        )
    except Exception as error:  # noqa: BLE001 - of the harness or of a model's code
        return ModelIdentity(
            reason=f"the content of the model cannot be read: {type(error).__name__}: "
            f"{printable(str(error))[:200]}; give --model-revision (in Python revision=)"
        )


def _folders(lm: Any) -> list[Path] | None:
    """Return the folders that a model's weights came from; None if one is not known."""
    if lm.delta:
        return None
    given = [lm.pretrained, *filter(None, [lm.peft])]
    folders = [Path(one) for one in given if isinstance(one, str)]
    return folders if len(folders) == len(given) and all(map(Path.is_dir, folders)) else None


def _harness() -> dict[str, str]:
    return {"lm-eval": version("lm_eval")}


def _digest(parts: Mapping[str, str]) -> str:
    from forwardscope.backends.digests import digest_of  # noqa: PLC0415 - needs the extra hf

    return digest_of(dict(parts))
