"""Why a lookup missed, in sentences."""

from __future__ import annotations

from forwardscope.analysis.recorded import Question
from forwardscope.analysis.shown import OUTSIDE, count, milliseconds
from forwardscope.analysis.why import Miss, Reason

__all__ = ["miss_line", "reason_line"]


def miss_line(miss: Miss) -> str:
    """Return which lookup it was."""
    event = miss.event
    probe = OUTSIDE if event.probe is None else event.probe
    asked = f"{probe} asked {event.view_id} for {event.prompt_hash}"
    spent = milliseconds(event.wall_ms)
    return f"miss {miss.number}: {asked} ({_kind(event.op, event.top_k)}), {spent}"


def reason_line(miss: Miss) -> str:
    """Return why it paid, with what the trace knows."""
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
    """Name other questions by what differs: mostly that is the view alone."""
    own = (miss.event.op, miss.event.top_k)
    views = [view for view, *kind in miss.elsewhere if (kind[0], kind[2]) == own]
    kinds = [_question(one) for one in miss.elsewhere if (one[1], one[3]) != own]
    return "of " + ", ".join([*views, *kinds])


def _question(question: Question) -> str:
    view, op, _, top_k = question
    return f"{view} ({_kind(op, top_k)})"


def _kind(op: str, top_k: int) -> str:
    return f"{op}, top_k {top_k}" if top_k else op
