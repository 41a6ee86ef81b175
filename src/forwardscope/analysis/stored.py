"""What a store has for the lookups of a trace: why it did not answer a miss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Final

from forwardscope.analysis.formatting import plural
from forwardscope.core.keys import view_family
from forwardscope.store.base import IdentityInfo, Store, StoredRow
from forwardscope.store.keys import question_digest_of_hash
from forwardscope.text import shown
from forwardscope.trace import TraceEvent

__all__ = ["Difference", "InStore", "OtherView", "State", "StoreSearch", "hit_line", "store_lines"]

#: Part of an identity that is in the view's id as well, such as a scale or a seed.
_PARAMETER: Final = "view parameter"
#: Values of parts are shown up to this length, and digests not at all.
_MAX_VALUE: Final = 40
_DIGEST: Final = re.compile(r"[0-9a-f]{32,}")
#: Entries of one question that are compared, and lines about them.
_MAX_ROWS: Final = 10_000
_MAX_LINES: Final = 3


class State(StrEnum):
    """What a store has under a miss's own view identity.

    unknown: the trace has no identity of the view.
    saved: the value of the run itself, so the store did not have it before.
    found: the value of another run, which was stored later or at the same time.
    absent: nothing: the value was evicted, was damaged, or was not stored.
    """

    UNKNOWN = "unknown"
    SAVED = "saved"
    FOUND = "found"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Difference:
    """A part that differs between two identities.

    Attributes:
        part: Name of the part.
        stored: What it is in the identity of a stored value; None if that has no such part.
        here: What it is in the identity of the miss, or None.
    """

    part: str
    stored: str | None
    here: str | None


@dataclass(frozen=True, slots=True)
class OtherView:
    """A value that another run stored for the same question under another view identity.

    Attributes:
        run_id: The run that computed it.
        last_used: Seconds since the epoch, to about a minute.
        model: Name of its model.
        adapter: Name of its adapter; None for views without one.
        differences: The parts that differ; None if the miss's identity is not described.
    """

    run_id: str | None
    last_used: float
    model: str
    adapter: str | None
    differences: Sequence[Difference] | None


@dataclass(frozen=True, slots=True)
class InStore:
    """What a store has for the question of a miss.

    Attributes:
        state: What it has under the view's identity.
        run_id: The run that computed that value; None without one.
        others: Values of other runs for views of the same family, those with the fewest
            differing parts first. Of two of which one differs in more, and in all that the
            other differs in, only the other is here.
        undescribed: Number of values under identities of which nothing is known.
    """

    state: State
    run_id: str | None
    others: Sequence[OtherView]
    undescribed: int


class StoreSearch:
    """Searches a store for the lookups of a trace.

    Args:
        store: The store; only its descriptions are read, no values.

    Raises:
        StoreError: The store cannot be read; also from `find`.
    """

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._infos: Final[Mapping[str, IdentityInfo]] = store.identities()

    def find(self, miss: TraceEvent) -> InStore:
        """Return what the store has for the question of a miss."""
        question = question_digest_of_hash(miss.op, miss.prompt_hash, miss.top_k)
        rows = list(islice(self._store.scan(question=question), _MAX_ROWS))
        own = next((row for row in rows if row.identity == miss.view_identity), None)
        others = [row for row in rows if row is not own and not _is_of_run(row, miss)]
        described = [row for row in others if row.identity in self._infos]
        family = view_family(miss.view_id)
        views = [
            self._other(row, miss)
            for row in described
            if self._infos[row.identity].view_family == family
        ]
        return InStore(
            state=_state(miss, own),
            run_id=None if own is None else own.run_id,
            others=list(_nearest(views)),
            undescribed=len(others) - len(described),
        )

    def _other(self, row: StoredRow, miss: TraceEvent) -> OtherView:
        info, here = self._infos[row.identity], self._infos.get(miss.view_identity or "")
        differences = None if here is None else list(_differences(info.parts, here.parts))
        return OtherView(row.run_id, row.last_used, info.model, info.adapter, differences)


def _is_of_run(row: StoredRow, miss: TraceEvent) -> bool:
    return row.run_id is not None and row.run_id == miss.run_id


def _state(miss: TraceEvent, own: StoredRow | None) -> State:
    if miss.view_identity is None:
        return State.UNKNOWN
    if own is None:
        return State.ABSENT
    return State.SAVED if _is_of_run(own, miss) else State.FOUND


def _differences(stored: Mapping[str, str], here: Mapping[str, str]) -> Iterator[Difference]:
    for part in dict.fromkeys([*stored, *here]):
        if stored.get(part) != here.get(part):
            yield Difference(part, stored.get(part), here.get(part))


def _nearest(views: Iterable[OtherView]) -> Iterator[OtherView]:
    """Yield views in order, without those that differ in all that an earlier one differs in.

    A view with another parameter, such as another scale, is another view by intention, so
    it comes after those that differ in as many parts.
    """
    seen: list[set[str]] = []
    for view in sorted(views, key=_distance):
        parts = _parts(view)
        if not any(earlier <= parts for earlier in seen):
            seen.append(parts)
            yield view


def _distance(view: OtherView) -> tuple[int, bool, float]:
    parts = _parts(view)
    return len(parts), _PARAMETER in parts, -view.last_used


def _parts(view: OtherView) -> set[str]:
    return {one.part for one in view.differences or ()}


def hit_line(hit: TraceEvent) -> str:
    """Return the line that says where the value of a hit in a store came from."""
    origin = f"the store ({hit.tier}), computed by {_run(hit.pass_run_id)}"
    if hit.verified is None:
        return f"from {origin}; not verified in this run"
    if hit.verified:
        return f"from {origin}; verified: computed again, it agreed"
    return f"from {origin}; it did not agree with the value computed again, which was used"


def store_lines(found: InStore) -> Iterator[str]:
    """Yield the lines that say why a store did not answer."""
    yield f"store: {_own(found)}"
    for view in found.others[:_MAX_LINES]:
        yield f"  {_origin(view)} stored it {_differing(view)}"
    if more := found.others[_MAX_LINES:]:
        yield f"  and {plural(len(more), 'further view')} that differ in other parts"
    if found.undescribed:
        yield f"  {plural(found.undescribed, 'value')} of views that are not described"
    if not found.others and not found.undescribed:
        yield "  no other run stored this op, prompt and top_k for a view of this family"


def _own(found: InStore) -> str:
    match found.state:
        case State.UNKNOWN:
            return "the trace has no identity of this view, so the run stored no value of it"
        case State.SAVED:
            return "not found; this run stored the value"
        case State.FOUND:
            return f"not found then; {_run(found.run_id)} has stored the value since"
        case State.ABSENT:
            return "not found, nor is it there now: it was evicted, damaged, or not stored"


def _origin(view: OtherView) -> str:
    model = f"{shown(view.adapter)} on {shown(view.model)}" if view.adapter else shown(view.model)
    return f"{_run(view.run_id)} ({model}, last used {_time(view.last_used)})"


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):  # of a damaged row
        return "at an unknown time"


def _run(run_id: str | None) -> str:
    return "a run without an id" if run_id is None else f"run {shown(run_id)}"


def _differing(view: OtherView) -> str:
    if not view.differences:
        return "for a view of this family; which parts differ is not known"
    ordered = sorted(view.differences, key=lambda one: not _is_readable(one))
    return f"with other {', '.join(map(_difference, ordered))}"


def _difference(one: Difference) -> str:
    """Name a part, with its values where people can read them."""
    if not _is_readable(one):
        return shown(one.part)
    stored, here = (shown(value or "none") for value in _values(one))
    return f"{shown(one.part)} ({stored}; here {here})"


def _is_readable(one: Difference) -> bool:
    stored, here = _values(one)
    readable = all(len(text) <= _MAX_VALUE and not _DIGEST.search(text) for text in (stored, here))
    return readable and stored != here


def _values(one: Difference) -> tuple[str, str]:
    """Return what a part is in both identities, of a list the first item."""
    return (one.stored or "").partition(",")[0], (one.here or "").partition(",")[0]
