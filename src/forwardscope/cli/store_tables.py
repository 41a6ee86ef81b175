"""What a store has, as tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from forwardscope.analysis.formatting import count
from forwardscope.analysis.tables import Column, Table
from forwardscope.cli.quantities import shown_size
from forwardscope.store.maintenance import Usage

__all__ = ["MAX_LISTED", "identities_table", "models_table"]

#: Identities that are listed.
MAX_LISTED: Final = 20
#: Digits of an identity that are shown; enough to tell identities apart.
_DIGITS: Final = 12
_UNKNOWN: Final = "unknown"


def _when(seconds: float) -> str:
    # a damaged file may have any time
    return datetime.fromtimestamp(min(max(seconds, 0.0), time.time())).strftime("%Y-%m-%d")


_ENTRIES: Final = Column("entries", "entries", count)
_IMPORTED: Final = Column("imported", "imported", count, optional=True)
_BYTES: Final = Column("bytes", "bytes", shown_size)
_LAST_USED: Final = Column("last_used", "last used", _when)


def models_table(found: Mapping[str, Usage]) -> Table:
    """Return what each kind of view takes."""
    groups: dict[tuple[str, str, str], list[Usage]] = {}
    for used in found.values():
        groups.setdefault(_kind(used), []).append(used)
    rows = [
        (
            *kind,
            len(group),
            sum(one.entries for one in group),
            sum(one.imported for one in group),
            sum(one.bytes for one in group),
            max(one.last_used for one in group),
        )
        for kind, group in sorted(groups.items())
    ]
    columns = (
        *(Column("model", "model", paths=True), Column("adapter", "adapter", paths=True)),
        Column("view", "view"),
        *(Column("identities", "identities", count), _ENTRIES, _IMPORTED, _BYTES, _LAST_USED),
    )
    return Table("by model, adapter and view", columns, rows)


def identities_table(found: Mapping[str, Usage]) -> Table:
    """Return what the largest identities take, each with the digits that `prune` needs."""
    rows = []
    for name, used in list(found.items())[:MAX_LISTED]:
        model, adapter, family = _kind(used)
        counts = used.entries, used.bytes, used.last_used
        rows.append((name[:_DIGITS], family, adapter or model, *counts))
    columns = (
        Column("identity", "identity", str),  # not wrapped
        *(Column("view", "view"), Column("of", "adapter or model", paths=True)),
        *(_ENTRIES, _BYTES, _LAST_USED),
    )
    return Table("by view identity, the largest first", columns, rows)


def _kind(used: Usage) -> tuple[str, str, str]:
    """Return model, adapter and view family."""
    if used.info is None:
        return (_UNKNOWN,) * 3
    return used.info.model, used.info.adapter or "", used.info.view_family
