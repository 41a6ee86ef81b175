"""Why a lookup was a miss: the reason, and the sentence that states it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from forwardscope.analysis.formatting import OUTSIDE, count, milliseconds
from forwardscope.analysis.reuse import NEVER, lookups_of, reuse_distances
from forwardscope.core.keys import Question
from forwardscope.trace import TraceEvent

__all__ = ["Miss", "Reason", "explain", "miss_line", "reason_line"]


class Reason(StrEnum):
    """Why the cache had no value for a lookup.

    first: the lookup was the first of its prompt in its run.
    elsewhere: earlier lookups of its prompt had another view, op or top_k.
    failed: the previous forward pass for its question failed.
    evicted: its reuse distance is larger than that of every hit in its run.
    gone: its reuse distance is at most the largest of a hit in its run.
    """

    FIRST = "first"
    ELSEWHERE = "elsewhere"
    FAILED = "failed"
    EVICTED = "evicted"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Miss:
    """A lookup that was a miss, and what its trace shows about the reason.

    Attributes:
        number: Number of the miss in the trace, from 1.
        event: The record of the lookup.
        reason: Why it was a miss.
        elsewhere: Other questions of earlier lookups of the prompt, each once.
        distance: Reuse distance: the number of other questions since the previous lookup
            of the same question. None if there was none.
        farthest: Largest reuse distance of a hit in the run; the cache had at least one
            entry more than that. None if the run had no hit.
        failure: Class of the exception of the previous forward pass, if it failed.
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
class _Noted:
    """A record of a prompt whose misses are explained.

    Attributes:
        place: Number of lookups of its run before it.
        number: Number of the miss in the trace; None for a hit.
        runs: Number of other runs with earlier lookups of its prompt.
    """

    place: int
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
    wanted = {
        own: event
        for own, event in enumerate((event for event in events if not event.hit), 1)
        if own == number or (prompt_hash and event.prompt_hash.startswith(prompt_hash))
    }
    for run_id in dict.fromkeys(event.run_id for event in wanted.values()):
        yield from _of_run(events, run_id, wanted)


def _of_run(
    events: Iterable[TraceEvent], run_id: str | None, wanted: dict[int, TraceEvent]
) -> Iterator[Miss]:
    prompts = {event.prompt_hash for event in wanted.values()}
    noted: list[_Noted] = []
    runs: dict[str, set[str | None]] = {prompt: set() for prompt in prompts}
    hits: list[bool] = []

    def of_run() -> Iterator[TraceEvent]:
        misses = 0
        for event in events:
            misses += not event.hit
            if event.run_id != run_id:
                if event.prompt_hash in prompts:
                    runs[event.prompt_hash].add(event.run_id)
                continue
            number = None if event.hit else misses
            if event.prompt_hash in prompts:
                noted.append(_Noted(len(hits), number, len(runs[event.prompt_hash]), event))
            if number in wanted:  # a failed miss needs a reuse distance too
                event = msgspec.structs.replace(event, error=None)
            if event.error is None:
                hits.append(event.hit)
                yield event

    distances = reuse_distances(lookups_of(of_run()).questions)
    reached = distances[np.asarray(hits, dtype=np.bool_) & (distances != NEVER)]
    farthest = int(reached.max()) if reached.size else None
    for place, one in enumerate(noted):
        if one.number in wanted:
            earlier = [two.event for two in noted[:place]]
            yield _miss(
                one,
                [event for event in earlier if event.prompt_hash == one.event.prompt_hash],
                distance=int(distances[one.place]),
                farthest=farthest,
            )


def _miss(
    one: _Noted,
    earlier: Collection[TraceEvent],
    *,
    distance: int,
    farthest: int | None,
) -> Miss:
    own = _question(one.event)
    same = [event for event in earlier if _question(event) == own]
    failure = same[-1].error if same else None
    if not same:
        reason = Reason.ELSEWHERE if earlier else Reason.FIRST
    elif failure is not None:
        reason = Reason.FAILED
    else:
        far = farthest is None or distance > farthest
        reason = Reason.EVICTED if far else Reason.GONE
    return Miss(
        number=one.number or 0,
        event=one.event,
        reason=reason,
        elsewhere=[other for other in dict.fromkeys(map(_question, earlier)) if other != own],
        distance=None if distance == NEVER else distance,
        farthest=farthest,
        failure=failure,
        runs_before=one.runs,
    )


def _question(event: TraceEvent) -> Question:
    return Question(event.op, event.view_id, event.prompt_hash, event.top_k)


def miss_line(miss: Miss) -> str:
    """Return the line that identifies the lookup."""
    event = miss.event
    probe = OUTSIDE if event.probe is None else event.probe
    asked = f"{probe} asked {event.view_id} for {event.prompt_hash}"
    spent = milliseconds(event.wall_ms)
    return f"miss {miss.number}: {asked} ({_kind(event.op, event.top_k)}), {spent}"


def reason_line(miss: Miss) -> str:
    """Return the line that states the reason, with details from the trace."""
    said = _reason(miss)
    if miss.runs_before:
        runs = "run" if miss.runs_before == 1 else "runs"
        said += f"; {miss.runs_before} other {runs} in the file had asked, each with its own cache"
    return said


def _reason(miss: Miss) -> str:
    match miss.reason:
        case Reason.FIRST:
            return "nobody had asked about this prompt before"
        case Reason.ELSEWHERE:
            return f"the first time here; asked before {_elsewhere(miss)}"
        case Reason.FAILED:
            return f"asked before, and that pass failed ({miss.failure}): nothing was kept of it"
        case Reason.EVICTED:
            return _evicted(miss)
        case Reason.GONE:
            return (
                f"asked before, {_ago(miss)}, and hits reached back {count(miss.farthest or 0)}: "
                "not for want of entries; max_bytes may be too small, or the cache was cleared"
            )


def _evicted(miss: Miss) -> str:
    said = f"asked before, {_ago(miss)}, and evicted since"
    if miss.farthest is None:
        return f"{said}: no lookup of its run hit, so see whether its cache was on"
    enough = count((miss.distance or 0) + 1)
    reached = f"no hit of its run reached back farther than {count(miss.farthest)}"
    return f"{said}: {reached}; max_entries {enough} would have kept it"


def _ago(miss: Miss) -> str:
    distance = miss.distance or 0
    return f"{count(distance)} other {'question' if distance == 1 else 'questions'} ago"


def _elsewhere(miss: Miss) -> str:
    """Name the other questions by what differs, which is usually the view alone."""
    own = (miss.event.op, miss.event.top_k)
    views = [one.view_id for one in miss.elsewhere if (one.op, one.top_k) == own]
    kinds = [_view_and_kind(one) for one in miss.elsewhere if (one.op, one.top_k) != own]
    return "of " + ", ".join([*views, *kinds])


def _view_and_kind(question: Question) -> str:
    return f"{question.view_id} ({_kind(question.op, question.top_k)})"


def _kind(op: str, top_k: int) -> str:
    return f"{op}, top_k {top_k}" if top_k else op
