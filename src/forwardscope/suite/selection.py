"""Choices beside a suite file: another adapter, some of the probes, a store."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence

from forwardscope.errors import UserError
from forwardscope.suite.spec import CacheSpec, ModelSpec, ServedModelSpec, SuiteSpec
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["choose_probes", "chosen_store", "local_model", "replace_adapter"]


def replace_adapter(
    spec: SuiteSpec, adapter: str | None, name: str | None = None, *, option: str = "--adapter"
) -> SuiteSpec:
    """Return a suite with another adapter; None leaves the suite's.

    Args:
        spec: The suite.
        adapter: Folder or hub id of the adapter; of a server its name.
        name: Its name in results, metrics and spans; by default as `adapter`.
        option: What chose it, for the message.

    Raises:
        UserError: The suite compares with a fully fine-tuned model, or has the files of the
            adapter that a server has.
    """
    if adapter is None:
        return spec
    if isinstance(spec.model, ServedModelSpec):
        return _replace_served(spec, spec.model, adapter, option)
    if spec.model.tuned is not None:
        raise UserError(
            f"{option}: this suite compares with a fully fine-tuned model; replace model.tuned "
            "by model.adapter in the suite"
        )
    model = spec.model.model_copy(update={"adapter": adapter, "adapter_name": name or adapter})
    return spec.model_copy(update={"model": model})


def _replace_served(
    spec: SuiteSpec, model: ServedModelSpec, adapter: str, option: str
) -> SuiteSpec:
    if model.adapter_dir is not None:
        raise UserError(
            f"{option}: this suite has the files of its adapter in model.adapter_dir; change both "
            "keys in the suite"
        )
    return spec.model_copy(update={"model": model.model_copy(update={"adapter": adapter})})


def local_model(spec: SuiteSpec) -> ModelSpec:
    """Return the model of a sweep, which exchanges adapters in its own processes.

    Raises:
        UserError: The suite has a model of a server.
    """
    if isinstance(spec.model, ServedModelSpec):
        raise UserError(
            "a sweep loads adapters on a base in its own processes, and this suite has a model of "
            "a server; use forwardscope run --adapter NAME for each adapter of the server"
        )
    return spec.model


def choose_probes(spec: SuiteSpec, names: Sequence[str], *, option: str = "--probe") -> SuiteSpec:
    """Return a suite with only the named probes, in the suite's order; all without names.

    Args:
        spec: The suite.
        names: Names of probes.
        option: What chose them, for the message.

    Raises:
        UserError: A name is not in the suite.
    """
    known = [probe.name for probe in spec.probes]
    for name in names:
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(known)}"
            raise UserError(
                shown(f"{option}: the suite has no probe {name!r}; {hint}", MAX_SENTENCE)
            )
    chosen = tuple(probe for probe in spec.probes if probe.name in names)
    return spec.model_copy(update={"probes": chosen}) if names else spec


def chosen_store(cache: CacheSpec, option: str | None, *, no_store: bool) -> str | None:
    """Return where the store is: as the option, the suite or the variable says, in this order.

    Args:
        cache: The settings of the suite.
        option: The value of --store.
        no_store: Whether there is --no-store.

    Raises:
        UserError: The options contradict each other, or --store has no value.
    """
    if no_store and option is not None:
        raise UserError("--store and --no-store contradict each other; give one of them")
    if option == "":
        raise UserError("--store needs a path, or default; an unset variable gives none")
    place = option or cache.store or os.environ.get("FORWARDSCOPE_STORE") or None
    return None if no_store else place
