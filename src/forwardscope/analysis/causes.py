"""All misses of a trace by their reasons.

`why.py` explains one miss; the reasons are the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from forwardscope.analysis.formatting import count, seconds
from forwardscope.analysis.reuse import NEVER, IntArray, reuse_distances
from forwardscope.analysis.tables import Column, Table
from forwardscope.analysis.why import Reason
from forwardscope.suite.formats import format_probe
from forwardscope.trace import TraceEvent

__all__ = ["Cause", "cause_lines", "causes_of", "causes_table"]

_WORDS: Final = {
    Reason.BYPASSED: "bypassed",
    Reason.FIRST: "first lookup",
    Reason.ELSEWHERE: "seen elsewhere",
    Reason.FAILED: "failed before",
    Reason.EVICTED: "evicted",
    Reason.GONE: "gone",
}
#: What a reason means and what to do about it; `{enough}` is the size that avoids it.
_ADVICE: Final = {
    Reason.BYPASSED: "no cache was asked: each such value, as a sampled text, is computed anew",
    Reason.FIRST: "a new prompt: only a store, with the values of an earlier run, can answer it",
    Reason.ELSEWHERE: "its prompt was looked up before on another view, or with another op or "
    "top_k, which have other values: only a store can answer it",
    Reason.FAILED: "the previous equal lookup failed and left no value",
    Reason.EVICTED: "removed to make room: max_entries {enough} would have kept them all",
    Reason.GONE: "not in a cache whose max_entries was large enough: check max_bytes, and whether "
    "the cache was cleared",
}
_NO_HITS: Final = "; a run had no hits at all: check whether the cache was enabled"


BoolArray = npt.NDArray[np.bool_]


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


class _Lookups:
    """What is known of the lookups so far, all runs together: a run is a part of each key."""

    def __init__(self) -> None:
        self.runs: dict[str | None, int] = {}
        self.prompts: set[tuple[int, str]] = set()
        self.ids: dict[tuple[int, str, str, str, int], int] = {}
        self.failed: set[int] = set()
        self.run_ids, self.key_ids = array("q"), array("q")
        self.hits = bytearray()

    def add(self, event: TraceEvent) -> Reason | None:
        """Add a lookup; return the reason of a miss, if that is known without the later ones."""
        if event.bypassed:
            return Reason.BYPASSED
        run = self.runs.setdefault(event.run_id, len(self.runs))
        key = (run, event.op, event.view_id, event.prompt_hash, event.top_k)
        prompt = (run, event.prompt_hash)
        known, seen = key in self.ids, prompt in self.prompts
        key_id = self.ids.setdefault(key, len(self.ids))
        had_failed = key_id in self.failed
        self.prompts.add(prompt)
        (self.failed.discard if event.error is None else self.failed.add)(key_id)
        repeated = not event.hit and known and not had_failed
        if repeated or event.error is None:  # other failed ones took no room
            self.run_ids.append(run)
            self.key_ids.append(key_id)
            self.hits.append(event.hit)
        if not known:
            return Reason.ELSEWHERE if seen else Reason.FIRST
        return Reason.FAILED if had_failed else None

    def distances(self) -> tuple[IntArray, IntArray, BoolArray]:
        """Return each lookup's reuse distance, the farthest of a hit in its run, and if it had any.

        The lookups are those that did not fail, and failed ones of what was computed before.
        """
        runs = np.frombuffer(self.run_ids, dtype=np.int64)
        order = np.argsort(runs, kind="stable")
        distances = np.empty_like(order)
        distances[order] = reuse_distances(np.frombuffer(self.key_ids, dtype=np.int64)[order])
        hits = np.frombuffer(self.hits, dtype=np.bool_)
        farthest = np.full(len(self.runs), NEVER, dtype=np.int64)
        np.maximum.at(farthest, runs[hits], distances[hits])
        any_hit = np.zeros(len(self.runs), dtype=np.bool_)
        any_hit[runs[hits]] = True
        return distances, farthest[runs], any_hit[runs]


def causes_of(events: Iterable[TraceEvent]) -> list[Cause]:
    """Return the misses by reason, probe and view, the most first.

    A failed lookup of what had been computed counts as one that came between others. Memory
    grows with the number of distinct lookups, with 17 bytes for each lookup and 32 for each
    value computed again.

    Args:
        events: The records in file order, read once.
    """
    lookups = _Lookups()
    causes: dict[_Place, Cause] = {}
    places: dict[tuple[str | None, str], int] = {}
    indices, numbers, wheres, times = array("q"), array("q"), array("q"), array("d")
    number = 0
    for event in events:
        reason = lookups.add(event)
        if event.hit:
            continue
        number += 1
        if reason is not None:
            place = _Place(reason, event.probe, event.view_id)
            causes.setdefault(place, Cause(*place)).add(number, event.wall_ms)
            continue
        indices.append(len(lookups.hits) - 1)
        numbers.append(number)
        wheres.append(places.setdefault((event.probe, event.view_id), len(places)))
        times.append(event.wall_ms)
    if indices:
        distances, farthest, any_hit = lookups.distances()
        names = list(places)
        for index, miss, where, time in zip(indices, numbers, wheres, times, strict=True):
            distance, longest = int(distances[index]), int(farthest[index])
            evicted = distance > longest
            place = _Place(Reason.EVICTED if evicted else Reason.GONE, *names[where])
            cause = causes.setdefault(place, Cause(*place))
            enough = distance + 1 if evicted else 0
            cause.add(miss, time, enough, no_hits=not any_hit[index])
    order = list(Reason)
    return sorted(causes.values(), key=lambda one: (order.index(one.reason), -one.misses))


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
    found: dict[Reason, list[Cause]] = {}
    for one in causes:
        found.setdefault(one.reason, []).append(one)
    for reason, those in found.items():
        enough = count(max(one.enough for one in those))
        line = f"{_WORDS[reason]}: {_ADVICE[reason].format(enough=enough)}"
        yield line + _NO_HITS * any(one.no_hits for one in those)
