"""What determines the values of the views of dlm-sway's backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from dlm_sway.backends.two_model import TwoModelDifferential

from forwardscope.backends.views import BASE, FINETUNED
from forwardscope.integrations.dlm_sway_views import sides_of
from forwardscope.text import printable

__all__ = ["SwayIdentity", "identity_of"]

#: Largest difference of a log-probability between two computations, in nats, by dtype.
_TOLERANCE: Final = {"float32": 1e-4, "float16": 0.02}
_COARSE: Final = 0.1

#: Returns by name what determines a view's values; empty where that is not known.
Parts = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class SwayIdentity:
    """The identities of a backend's views.

    Attributes:
        parts: What the identity of a view is made of.
        reason: Why some views have no identity; None if all that are stored have one.
        device: Device of the weights, where it is known.
        dtype: Dtype of the weights, where it is known.
    """

    parts: Parts
    reason: str | None = None
    device: str = ""
    dtype: str = ""

    @property
    def tolerance(self) -> float:
        """Largest difference of a log-probability between two computations, in nats."""
        return _TOLERANCE.get(self.dtype, _COARSE)

    def digest(self, view_id: str) -> str | None:
        """Return the identity of a view; None where its values must not be stored."""
        parts = self.parts(view_id)
        if not parts:
            return None
        from forwardscope.backends.hf.digests import digest_of  # noqa: PLC0415 - needs an extra

        return digest_of(dict(parts))


def identity_of(backend: Any, models: Any, revision: str | None) -> SwayIdentity:
    """Return the identities of the views of a backend; call it while no view is open.

    Those of dlm-sway's Hugging Face backend are its content. Another backend can compute
    anything, so it has the identity that its user gives.

    Args:
        backend: A backend of dlm-sway.
        models: The models of the suite, `base` and `ft`.
        revision: What the user says of models whose content cannot be read; None if nothing.
    """
    sides = [side for side, _ in sides_of(backend)]
    if not isinstance(backend, TwoModelDifferential):
        return _of_side(sides[0], models.ft, revision)
    base, tuned = (
        _of_side(side, model, revision)
        for side, model in zip(sides, (models.base, models.ft), strict=True)
    )

    def parts(view_id: str) -> Mapping[str, str]:
        own = {BASE: base, FINETUNED: tuned}.get(view_id)
        return {} if own is None else own.parts(view_id)

    return SwayIdentity(parts, base.reason or tuned.reason, tuned.device, tuned.dtype)


def _of_side(side: Any, model: Any, revision: str | None) -> SwayIdentity:
    name = f"{type(side).__module__}.{type(side).__qualname__}"
    if revision is not None:
        given = {"backend class": name, "model": model.base, "model revision": revision}
        return SwayIdentity(
            lambda view_id: {
                **given,
                "endpoint": str(model.endpoint),
                "adapter": str(model.adapter),
                "view": view_id,
                "dlm-sway": version("dlm-sway"),
            }
        )
    if name == "dlm_sway.backends.hf.HuggingFaceDifferentialBackend":
        return _of_content(side, model)
    return _unknown(
        f"nothing says what determines the answers of {printable(name)}; "
        "give --model-revision with a version of your model"
    )


def _of_content(side: Any, model: Any) -> SwayIdentity:
    from forwardscope.backends.hf.loaded_views import views_of_loaded  # noqa: PLC0415 - imports torch

    try:
        loaded, tokenizer = side._peft_model, side._tokenizer
        folders = [Path(model.base), Path(model.adapter)]
        return SwayIdentity(
            views_of_loaded(
                loaded,
                tokenizer,
                f"dlm-sway {version('dlm-sway')}",
                folders if all(map(Path.is_dir, folders)) else None,
            ),
            device=str(loaded.device),
            dtype=str(loaded.dtype).removeprefix("torch."),
        )
    except Exception as error:  # noqa: BLE001 - of another version of dlm-sway, or a model's code
        return _unknown(
            f"the content of the model cannot be read: {type(error).__name__}: "
            f"{printable(str(error))[:200]}; give --model-revision"
        )


def _unknown(reason: str) -> SwayIdentity:
    return SwayIdentity(lambda _: {}, reason)
