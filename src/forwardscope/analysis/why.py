"""Reasons of misses, from a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

import msgspec
import numpy as np

from forwardscope.analysis.formatting import count, milliseconds, plural
from forwardscope.analysis.reuse import NEVER, lookups_of, reuse_distances
from forwardscope.core.keys import Question
from forwardscope.suite.formats import format_probe
from forwardscope.trace import TraceEvent

__all__ = ["Miss", "Reason", "explain", "lookup_line", "miss_line", "reason_line"]


#: Other lookups that a miss has.
_MAX_ELSEWHERE: Final = 100


class Reason(StrEnum):
    """The reason of a miss.

    bypassed: no cache was asked.
    first: it is the first lookup of its prompt in its run.
    elsewhere: all earlier lookups of its prompt had another view, op or top_k.
    failed: the forward pass of the previous equal lookup failed.
    evicted: its reuse distance is larger than that of every hit in its run.
    gone: its reuse distance is at most the largest of a hit in its run.
    """

    BYPASSED = "bypassed"
    FIRST = "first"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"
    EVICTED = "evicted"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Miss:
    """A miss and its reason.

    Attributes:
        number: Number of the miss in the trace, from 1.
        event: The record of the lookup.
        reason: The reason.
        elsewhere: Distinct earlier lookups of the prompt with another view, op or top_k;
            at most the first 100.
        distance: Reuse distance: the number of other distinct lookups since the previous
            equal lookup. None if there was none.
        farthest: Largest reuse distance of a hit in the run; the cache had at least one
            entry more than that. None if the run had no hit.
        failure: Class of the exception of the previous equal lookup, if it failed.
        runs_before: Number of other runs in the trace with earlier lookups of the prompt.
    """

    number: int
    event: TraceEvent
    reason: Reason
    elsewhere: Sequence[Question]
    distance: int | None
    farthest: int | None
    failure: str | None
    runs_before: int


@dataclass(frozen=True, slots=True)
class _Record:
    """A record whose prompt has a miss to explain.

    Attributes:
        index: Index among the lookups of its run.
        number: Number of the miss in the trace; None for a hit.
        runs: Number of other runs with earlier lookups of its prompt.
    """

    index: int
    number: int | None
    runs: int
    event: TraceEvent


def explain(
    events: Iterable[TraceEvent], *, number: int | None = None, prompt_hash: str | None = None
) -> Iterator[Miss]:
    """Yield misses with their reasons: the one with a number, or all of a prompt.

    Args:
        events: The records in file order; iterated more than once.
        number: Number of the miss in the trace, from 1.
        prompt_hash: Hash of the prompt, or the beginning of it.
    """
    selected = {
        index: event
        for index, event in enumerate((event for event in events if not event.hit), 1)
        if index == number or (prompt_hash and event.prompt_hash.startswith(prompt_hash))
    }
    for run_id in dict.fromkeys(event.run_id for event in selected.values()):
        yield from _misses_of_run(events, run_id, selected)


def _misses_of_run(
    events: Iterable[TraceEvent], run_id: str | None, selected: dict[int, TraceEvent]
) -> Iterator[Miss]:
    prompts = {event.prompt_hash for event in selected.values()}
    records: list[_Record] = []
    runs: dict[str, set[str | None]] = {prompt: set() for prompt in prompts}
    hits: list[bool] = []

    def records_of_run() -> Iterator[TraceEvent]:
        misses = 0
        for event in events:
            misses += not event.hit
            if event.run_id != run_id:
                if event.prompt_hash in prompts:
                    runs[event.prompt_hash].add(event.run_id)
                continue
            number = None if event.hit else misses
            if event.prompt_hash in prompts:
                records.append(_Record(len(hits), number, len(runs[event.prompt_hash]), event))
            if number in selected:  # a failed or bypassed one needs a reuse distance as well
                event = msgspec.structs.replace(event, error=None, bypassed=None)
            if _took_room(event):
                hits.append(event.hit)
                yield event

    distances = reuse_distances(lookups_of(records_of_run()).key_ids)
    hit_distances = distances[np.asarray(hits, dtype=np.bool_) & (distances != NEVER)]
    farthest = int(hit_distances.max()) if hit_distances.size else None
    latest: dict[str, dict[Question, TraceEvent]] = {prompt: {} for prompt in prompts}
    for record in records:
        earlier = latest[record.event.prompt_hash]
        if record.number in selected:
            distance = int(distances[record.index])
            yield _miss(record, earlier, distance=distance, farthest=farthest)
        earlier |= {} if record.event.bypassed else {_key(record.event): record.event}


def _took_room(event: TraceEvent) -> bool:
    """Return whether a lookup took or renewed a place in the cache."""
    return event.error is None and not event.bypassed


def _miss(
    record: _Record,
    earlier: Mapping[Question, TraceEvent],
    *,
    distance: int,
    farthest: int | None,
) -> Miss:
    key = _key(record.event)
    equal = earlier.get(key)
    failure = equal.error if equal else None
    if record.event.bypassed:
        reason = Reason.BYPASSED
    elif equal is None:
        reason = Reason.ELSEWHERE if earlier else Reason.FIRST
    elif failure is not None:
        reason = Reason.FAILED
    else:
        far = farthest is None or distance > farthest
        reason = Reason.EVICTED if far else Reason.GONE
    return Miss(
        number=record.number or 0,
        event=record.event,
        reason=reason,
        elsewhere=list(islice((other for other in earlier if other != key), _MAX_ELSEWHERE)),
        distance=None if distance == NEVER else distance,
        farthest=farthest,
        failure=failure,
        runs_before=record.runs,
    )


def _key(event: TraceEvent) -> Question:
    return Question(event.op, event.view_id, event.prompt_hash, event.top_k)


def miss_line(miss: Miss) -> str:
    """Return the line that identifies a miss."""
    return lookup_line(f"miss {miss.number}", miss.event)


def lookup_line(what: str, event: TraceEvent) -> str:
    """Return a line that begins with a word and identifies a lookup."""
    probe = format_probe(event.probe)
    lookup = f"{probe} on {event.view_id}, prompt {event.prompt_hash}"
    duration = milliseconds(event.wall_ms)
    return f"{what}: {lookup} ({_op_and_top_k(event.op, event.top_k)}), {duration}"


def reason_line(miss: Miss) -> str:
    """Return the line with the reason."""
    reason = _reason(miss)
    if miss.runs_before:
        runs = plural(miss.runs_before, "other run")
        reason += f"; {runs} looked the prompt up earlier, in another cache"
    return reason


def _reason(miss: Miss) -> str:
    match miss.reason:
        case Reason.BYPASSED:
            return "no cache was asked: each such value, as a sampled text, is computed anew"
        case Reason.FIRST:
            return "first lookup of this prompt"
        case Reason.ELSEWHERE:
            return (
                "first lookup of this prompt with this view, op and top_k; it was looked up "
                f"before on {_other_lookups(miss)}"
            )
        case Reason.FAILED:
            return f"the previous equal lookup failed ({miss.failure}), so nothing was stored"
        case Reason.EVICTED:
            return _evicted(miss)
        case Reason.GONE:
            return (
                f"not in the cache: {_gap(miss)}, but a hit of the run had a gap of "
                f"{count(miss.farthest or 0)}. max_entries is large enough; check max_bytes, and "
                "whether the cache was cleared"
            )


def _evicted(miss: Miss) -> str:
    reason = f"evicted: {_gap(miss)}"
    if miss.farthest is None:
        return f"{reason}, and the run has no hits; check whether the cache was enabled"
    enough = count((miss.distance or 0) + 1)
    return (
        f"{reason}; the longest gap of a hit in the run was {count(miss.farthest)}. max_entries "
        f"{enough} would have kept it"
    )


def _gap(miss: Miss) -> str:
    lookups = plural(miss.distance or 0, "other distinct lookup")
    return f"{lookups} came between this one and the last equal one"


def _other_lookups(miss: Miss) -> str:
    """Return the view of each other lookup, with op and top_k if these differ too."""
    op_and_top_k = (miss.event.op, miss.event.top_k)
    views = [key.view_id for key in miss.elsewhere if (key.op, key.top_k) == op_and_top_k]
    others = [_view_and_op(key) for key in miss.elsewhere if (key.op, key.top_k) != op_and_top_k]
    return ", ".join([*views, *others])


def _view_and_op(key: Question) -> str:
    return f"{key.view_id} ({_op_and_top_k(key.op, key.top_k)})"


def _op_and_top_k(op: str, top_k: int) -> str:
    return f"{op}, top_k {top_k}" if top_k else op
