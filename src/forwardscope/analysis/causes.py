"""All misses of a trace by their reasons.

`why.py` explains one miss; the reasons are the same.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from forwardscope.analysis.formatting import count, seconds
from forwardscope.analysis.reuse import NEVER, reuse_distances
from forwardscope.analysis.tables import Column, Table
from forwardscope.analysis.why import Reason
from forwardscope.suite.formats import format_probe
from forwardscope.trace import TraceEvent

__all__ = ["Cause", "cause_lines", "causes_of", "causes_table"]

_WORDS: Final = {
    Reason.FIRST: "first lookup",
    Reason.ELSEWHERE: "seen elsewhere",
    Reason.FAILED: "failed before",
    Reason.EVICTED: "evicted",
    Reason.GONE: "gone",
}
#: What a reason means and what to do about it; `{enough}` is the size that avoids it.
_ADVICE: Final = {
    Reason.FIRST: "a new prompt: only a store, with the values of an earlier run, can answer it",
    Reason.ELSEWHERE: "its prompt was looked up before on another view, or with another op or "
    "top_k, which have other values: only a store can answer it",
    Reason.FAILED: "the previous equal lookup failed and left no value",
    Reason.EVICTED: "removed to make room: max_entries {enough} would have kept them all",
    Reason.GONE: "not in a cache whose max_entries was large enough: check max_bytes, and whether "
    "the cache was cleared",
}
_NO_HITS: Final = "; a run had no hits at all: check whether the cache was enabled"


class _Place(NamedTuple):
    reason: Reason
    probe: str | None
    view_id: str


@dataclass(slots=True)
class Cause:
    """The misses of one probe and view that have one reason.

    Attributes:
        reason: The reason.
        probe: The probe; None outside any.
        view_id: The view.
        misses: Their number, over all runs of the trace.
        wall_ms: Time of their forward passes.
        first: Number of the first of them in the trace, from 1.
        enough: Entries with which the cache would have kept the evicted ones; else 0.
        no_hits: Whether some of the evicted ones are of a run without hits, whose cache may have
            been off.
    """

    reason: Reason
    probe: str | None
    view_id: str
    misses: int = 0
    wall_ms: float = 0.0
    first: int = 0
    enough: int = 0
    no_hits: bool = False

    def add(self, number: int, wall_ms: float, enough: int = 0, *, no_hits: bool = False) -> None:
        """Count a miss."""
        self.first = min(self.first or number, number)
        self.misses += 1
        self.wall_ms += wall_ms
        self.enough = max(self.enough, enough)
        self.no_hits = self.no_hits or no_hits


@dataclass(slots=True)
class _Run:
    """The lookups of one run.

    Attributes:
        prompts: Hashes of the prompts that were looked up.
        ids: Id of each key.
        failed: Ids of the keys whose last lookup failed.
        key_ids: Id of the key of each lookup that did not fail or is in `repeated`.
        hits: Whether each of these lookups was a hit.
        repeated: Misses of what had been computed before: index, number, probe, view, time.
    """

    prompts: set[str] = field(default_factory=set)
    ids: dict[tuple[str, str, str, int], int] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    key_ids: array[int] = field(default_factory=lambda: array("q"))
    hits: bytearray = field(default_factory=bytearray)
    repeated: list[tuple[int, int, str | None, str, float]] = field(default_factory=list)


def causes_of(events: Iterable[TraceEvent]) -> list[Cause]:
    """Return the misses by reason, probe and view, the most first.

    A failed lookup of what had been computed counts as one that came between others. Memory
    grows with the number of distinct lookups, and with 9 bytes for each lookup.

    Args:
        events: The records in file order, read once.
    """
    runs: dict[str | None, _Run] = {}
    causes: dict[_Place, Cause] = {}
    number = 0
    for event in events:
        run = runs.setdefault(event.run_id, _Run())
        number += not event.hit
        reason = _record(run, event, number)
        if reason is not None:
            place = _Place(reason, event.probe, event.view_id)
            causes.setdefault(place, Cause(*place)).add(number, event.wall_ms)
    for run in runs.values():
        no_hits = not any(run.hits)
        for place, miss, wall_ms, enough in _evictions(run):
            cause = causes.setdefault(place, Cause(*place))
            cause.add(miss, wall_ms, enough, no_hits=no_hits)
    order = list(Reason)
    return sorted(causes.values(), key=lambda one: (order.index(one.reason), -one.misses))


def _record(run: _Run, event: TraceEvent, number: int) -> Reason | None:
    """Add a lookup to its run; return the reason of a miss, if it is known already."""
    key = (event.op, event.view_id, event.prompt_hash, event.top_k)
    known, seen = key in run.ids, event.prompt_hash in run.prompts
    key_id = run.ids.setdefault(key, len(run.ids))
    had_failed = key_id in run.failed
    run.prompts.add(event.prompt_hash)
    (run.failed.discard if event.error is None else run.failed.add)(key_id)
    repeated = not event.hit and known and not had_failed
    if repeated:
        place = (event.probe, event.view_id, event.wall_ms)
        run.repeated.append((len(run.hits), number, *place))
    if repeated or event.error is None:  # other failed ones took no room
        run.key_ids.append(key_id)
        run.hits.append(event.hit)
    if event.hit or repeated:
        return None
    if had_failed:
        return Reason.FAILED
    return Reason.ELSEWHERE if seen else Reason.FIRST


def _evictions(run: _Run) -> Iterator[tuple[_Place, int, float, int]]:
    """Yield the misses of what had been computed before, and the size that had kept each."""
    if not run.repeated:
        return
    distances = reuse_distances(np.frombuffer(run.key_ids, dtype=np.int64))
    hits = np.frombuffer(run.hits, dtype=np.bool_) & (distances != NEVER)
    farthest = int(distances[hits].max(initial=NEVER))
    for index, number, probe, view_id, wall_ms in run.repeated:
        distance = int(distances[index])
        evicted = distance > farthest
        reason = Reason.EVICTED if evicted else Reason.GONE
        yield _Place(reason, probe, view_id), number, wall_ms, distance + 1 if evicted else 0


def causes_table(causes: Iterable[Cause]) -> Table:
    """Return a row for each reason, probe and view; `first` is for `trace why --miss`."""
    columns = (
        Column("reason", "reason"),
        Column("probe", "probe"),
        Column("view", "view"),
        Column("misses", "misses", count),
        Column("forward_s", "time", seconds),
        Column("first", "first miss", count),
        Column("enough", "max_entries", count, optional=True, hidden=True),
    )
    rows = [
        (
            _WORDS[one.reason],
            format_probe(one.probe),
            one.view_id,
            one.misses,
            one.wall_ms / 1e3,
            one.first,
            one.enough or None,
        )
        for one in causes
    ]
    return Table("misses", columns, rows)


def cause_lines(causes: Iterable[Cause]) -> Iterator[str]:
    """Yield what each reason means that occurs, and what to do about it."""
    by_reason: defaultdict[Reason, list[Cause]] = defaultdict(list)
    for one in causes:
        by_reason[one.reason].append(one)
    for reason, those in by_reason.items():
        advice = _ADVICE[reason].format(enough=count(max(one.enough for one in those)))
        yield f"{_WORDS[reason]}: {advice}{_NO_HITS * any(one.no_hits for one in those)}"
