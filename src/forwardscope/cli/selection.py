"""Options that choose what of a suite is run."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from forwardscope.errors import UserError
from forwardscope.suite.spec import SuiteSpec
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["choose_probes", "replace_adapter"]


def replace_adapter(spec: SuiteSpec, adapter: str | None) -> SuiteSpec:
    """Return a suite with another adapter; None leaves the suite's.

    Raises:
        UserError: The suite compares with a fully fine-tuned model.
    """
    if adapter is None:
        return spec
    if spec.model.tuned is not None:
        raise UserError(
            "--adapter: this suite compares with a fully fine-tuned model; replace model.tuned "
            "by model.adapter in the suite"
        )
    model = spec.model.model_copy(update={"adapter": adapter, "adapter_name": adapter})
    return spec.model_copy(update={"model": model})


def choose_probes(spec: SuiteSpec, names: Sequence[str]) -> SuiteSpec:
    """Return a suite with only the named probes, in the suite's order; all without names.

    Raises:
        UserError: A name is not in the suite.
    """
    known = [probe.name for probe in spec.probes]
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(known)}"
            raise UserError(
                shown(f"--probe: the suite has no probe {name!r}; {hint}", MAX_SENTENCE)
            )
    chosen = tuple(probe for probe in spec.probes if probe.name in names)
    return spec.model_copy(update={"probes": chosen}) if names else spec
