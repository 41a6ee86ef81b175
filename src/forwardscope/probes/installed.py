"""Probes of other packages: their entry points in the group `forwardscope.probes`.

An entry point is named as the `kind` of its probe. It is imported where a suite has a
probe of that kind, or where the kinds are listed, and not before. So a suite chooses
among what is installed, and nothing else is imported for it.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from forwardscope.errors import ProbeError
from forwardscope.probes.base import Probe

__all__ = ["GROUP", "installed_kinds", "load_kind"]

GROUP: Final = "forwardscope.probes"


def installed_kinds() -> dict[str, EntryPoint]:
    """Return the entry points of installed packages by the kind of their probe."""
    return dict(_found_in(tuple(sys.path)))


@lru_cache(maxsize=1)  # a search takes milliseconds, and a suite may have many unknown kinds
def _found_in(_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=GROUP)}


def load_kind(found: EntryPoint) -> type[Probe]:
    """Import the class of a probe.

    Raises:
        ProbeError: It cannot be imported, or is no probe of that kind.
    """
    try:
        kind = found.load()
    except (Exception, SystemExit) as error:  # whatever the package does at its import
        raise ProbeError(
            f"the entry point {found.value} cannot be imported: {type(error).__name__}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Probe)):
        raise ProbeError(f"the entry point {found.value} is no subclass of Probe")
    if "kind" not in kind.model_fields or kind.model_fields["kind"].default != found.name:
        raise ProbeError(f"the entry point {found.value} is no probe of kind {found.name!r}")
    return kind
