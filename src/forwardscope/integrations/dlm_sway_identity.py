"""What determines the values of the views of dlm-sway's backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dlm_sway.backends.two_model import TwoModelDifferential

from forwardscope.backends.views import BASE, FINETUNED
from forwardscope.integrations.dlm_sway_views import sides_of
from forwardscope.integrations.tool_numbers import tolerance_of
from forwardscope.text import printable

__all__ = ["SwayIdentity", "identity_of"]

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
        return tolerance_of(self.dtype)

    def digest(self, view_id: str) -> str | None:
        """Return the identity of a view; None where its values must not be stored."""
        parts = self.parts(view_id)
        if not parts:
            return None
        from forwardscope.backends.digests import digest_of  # noqa: PLC0415 - needs an extra

        return digest_of(dict(parts))


def identity_of(
    backend: Any, made_from: Callable[[Any], Any], revision: str | None
) -> SwayIdentity:
    """Return the identities of the views of a backend; call it while no view is open.

    Those of dlm-sway's Hugging Face backend are its content, whatever its user says of it.
    Another backend can compute anything, so it has the identity that its user gives.

    Args:
        backend: A backend of dlm-sway.
        made_from: Returns the spec of the model that a backend was made from; None if it is
            not known.
        revision: What the user says of models whose content cannot be read; None if nothing.
    """
    sides = [_of_side(side, made_from(side), revision) for side, _ in sides_of(backend)]
    if not isinstance(backend, TwoModelDifferential):
        return sides[0]
    base, tuned = sides

    def parts(view_id: str) -> Mapping[str, str]:
        own = {BASE: base, FINETUNED: tuned}.get(view_id)
        return {} if own is None else own.parts(view_id)

    return SwayIdentity(parts, base.reason or tuned.reason, tuned.device, tuned.dtype)


def _of_side(side: Any, spec: Any, revision: str | None) -> SwayIdentity:
    name = f"{type(side).__module__}.{type(side).__qualname__}"
    if name == "dlm_sway.backends.hf.HuggingFaceDifferentialBackend":
        content = _of_content(side)
        if content.reason is None or revision is None:
            return content
    if revision is None:
        return _unknown(
            f"nothing says what determines the answers of {printable(name)}; "
            "give --model-revision with a version of your model"
        )
    given = {
        "backend class": name,
        "model": "" if spec is None else spec.model_dump_json(),
        "model revision": revision,
        "dlm-sway": version("dlm-sway"),
    }
    return SwayIdentity(lambda view_id: {**given, "view": view_id})


def _of_content(side: Any) -> SwayIdentity:
    from forwardscope.backends.hf.loaded_views import views_of_loaded  # noqa: PLC0415 - torch

    try:
        model, folders = side._peft_model, [Path(side._spec.base), Path(side._adapter_path)]
        parts = views_of_loaded(
            model,
            side._tokenizer,
            f"dlm-sway {version('dlm-sway')}",
            folders if all(map(Path.is_dir, folders)) else None,
        )
        dtype = str(model.dtype).removeprefix("torch.")
        return SwayIdentity(parts, device=str(model.device), dtype=dtype)
    except Exception as error:  # noqa: BLE001 - of another version of dlm-sway, or a model's code
        return _unknown(
            f"the content of the model cannot be read: {type(error).__name__}: "
            f"{printable(str(error))[:200]}; give --model-revision"
        )


def _unknown(reason: str) -> SwayIdentity:
    return SwayIdentity(lambda _: {}, reason)
