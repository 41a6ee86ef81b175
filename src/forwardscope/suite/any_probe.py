"""A probe of a suite: one of forwardscope's, or of an installed package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Discriminator, PlainValidator, Tag, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from forwardscope.errors import ProbeError
from forwardscope.probes import (
    PROBES,
    AdapterAblation,
    CompletionPreference,
    DeltaKL,
    NullAdapter,
    PerplexityShift,
    Probe,
    PromptCollapse,
)
from forwardscope.probes.installed import installed_kinds, load_kind
from forwardscope.text import printable

__all__ = ["INVALID_INSTALLED", "AnyProbe", "class_of", "known_kinds"]

#: Error type of a probe of an installed package that is not valid; its context has the `errors`
#: of its settings, if they can be checked.
INVALID_INSTALLED: Final = "invalid_installed_probe"
_INSTALLED: Final = "installed"


def known_kinds() -> list[str]:
    """Return all kinds of probes that a suite can have."""
    return [*PROBES, *sorted(installed_kinds().keys() - PROBES.keys())]


def class_of(kind: str) -> type[Probe]:
    """Return the class of a kind.

    Raises:
        ProbeError: It is of an installed package, and cannot be imported.
        KeyError: It is unknown.
    """
    return PROBES[kind] if kind in PROBES else load_kind(installed_kinds()[kind])


def _branch(value: Any) -> Any:
    """Return the kind of a probe, or that it is of an installed package; None without a kind."""
    if not isinstance(value, Mapping | Probe):
        return next(iter(PROBES))  # whose error says that it is no mapping
    kind = value.get("kind") if isinstance(value, Mapping) else value.kind
    installed = isinstance(kind, str) and kind not in PROBES and kind in installed_kinds()
    return _INSTALLED if installed else kind


def _validate_installed(value: Any) -> Probe:
    if isinstance(value, Probe):
        return value
    try:
        return class_of(value["kind"]).model_validate(value)
    except ProbeError as error:
        reason = str(error)
    except ValidationError as error:
        raise PydanticCustomError(
            INVALID_INSTALLED, "{reason}", {"reason": str(error), "errors": error.errors()}
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever the package's validators do
        reason = f"the settings cannot be checked: {type(error).__name__}"
    raise PydanticCustomError(INVALID_INSTALLED, "{reason}", {"reason": printable(reason)})


AnyProbe = Annotated[
    Annotated[NullAdapter, Tag("null_adapter")]
    | Annotated[DeltaKL, Tag("delta_kl")]
    | Annotated[AdapterAblation, Tag("adapter_ablation")]
    | Annotated[PromptCollapse, Tag("prompt_collapse")]
    | Annotated[PerplexityShift, Tag("perplexity_shift")]
    | Annotated[CompletionPreference, Tag("completion_preference")]
    | Annotated[Probe, PlainValidator(_validate_installed), Tag(_INSTALLED)],
    Discriminator(_branch),
    WithJsonSchema({"type": "object"}),  # suite/schema.py has all kinds
]
