"""The parts of the identities of views that another program computes of a model with its adapter.

How such a program scales and randomises an adapter is known by its name and version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from peft import PeftModel

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.environment import environment, foreign_code
from forwardscope.backends.hf.loaded import check_calls, generation_digest, weight_files
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.remembered import sign
from forwardscope.backends.hf.view_identity import Reading, ViewParts, parts_of_adapter
from forwardscope.backends.views import FINETUNED
from forwardscope.errors import ModelError

__all__ = ["views_of_loaded"]

_ADAPTED: Final = ("scaled", "null")


def views_of_loaded(
    model: PeftModel, tokenizer: Any, computed_by: str, folders: Sequence[Path] | None = None
) -> Callable[[str], Mapping[str, str]]:
    """Return what determines the values of views that another program computes of a model.

    Args:
        model: A base with its adapter, with no view's change applied.
        tokenizer: Its tokenizer.
        computed_by: Names the program with its version.
        folders: Those of the base and of the adapter, if all weights came from them a moment
            ago; then their digests are remembered for later processes. None if they may have
            been changed in memory.

    Returns:
        By view id its parts by name; empty for a view of which nothing is known.

    Raises:
        ModelError: The model has code of no installed package, or is in a state that its
            content does not show.
    """
    check_calls(model)
    if foreign_code(model) is None:
        raise ModelError("the model has modules of no installed package")
    signed = [None, None] if folders is None else [sign(weight_files(one)) for one in folders]
    reading = Reading(tokenizer, computed_by, rehash=False)
    found = parts_of_adapter(model, Origin(*signed), reading, {}, ())
    common = {
        "generation config": generation_digest(compat.unwrapped(model)),
        **environment(model.device),
    }
    tuned = found.of(FINETUNED)
    views = ViewParts(found.views, {family: {**tuned, "family": family} for family in _ADAPTED})

    def parts_of(view_id: str) -> Mapping[str, str]:
        parts = views.of(view_id)
        return {**parts, **common} if parts else {}

    return parts_of
