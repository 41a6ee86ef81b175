"""Ids of replayed spans, and the forward call that each lookup leads to."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from opentelemetry.trace import SpanContext, TraceFlags

from forwardscope.core.keys import Question
from forwardscope.trace import TraceEvent
from forwardscope.trace.writer import line_of

__all__ = ["ForwardLinks", "SpanIds", "question_of", "trace_id_of"]

_TRACE_ID: Final = re.compile(r"(?!0+$)[0-9a-f]{32}", re.ASCII)
_SPAN_ID: Final = re.compile(r"(?!0+$)[0-9a-f]{16}", re.ASCII)


class SpanIds:
    """Makes span ids; a second replay of the same records gets the same ones."""

    def __init__(self) -> None:
        self._serial = 0

    def new(self, trace_id: int) -> SpanContext:
        """Return the context of a further span of a trace."""
        self._serial += 1
        digest = sha256(f"{trace_id:032x}:{self._serial}".encode()).digest()
        return _context(trace_id, int.from_bytes(digest[:8], "big") or 1)


class ForwardLinks:
    """The forward calls so far: by the ids in their records, and by what they computed.

    Args:
        ids: Makes the ids of their spans.
    """

    def __init__(self, ids: SpanIds) -> None:
        self._ids = ids
        self._recorded: dict[tuple[str, str], SpanContext] = {}
        self._made: set[tuple[str, str]] = set()  # those whose misses were read
        self._latest: dict[Question, SpanContext] = {}

    def of_misses(self, misses: list[TraceEvent], trace_id: int) -> SpanContext:
        """Return the context of a forward call's span."""
        ids = _recorded_ids(misses[0])
        call = self._of_ids(None if ids in self._made else ids, trace_id)
        if ids is not None:
            self._made.add(ids)
        for one in misses:
            if one.error is None:
                self._latest[question_of(one)] = call
        return call

    def of_hit(self, event: TraceEvent, trace_id: int) -> SpanContext | None:
        """Return the forward call of a hit or a coalesced lookup.

        It is the one with the recorded ids, which may come later in the file or be in the
        trace of an earlier run. Without ids it is the latest earlier one that computed
        the same op, view, prompt hash and top_k; None if there is none.
        """
        ids = _recorded_ids(event)
        if ids is None:
            return self._latest.get(question_of(event))
        if ids not in self._recorded and ids[0] != event.trace_id:
            return _context(int(ids[0], 16), int(ids[1], 16))
        return self._of_ids(ids, trace_id)

    def _of_ids(self, ids: tuple[str, str] | None, trace_id: int) -> SpanContext:
        if ids is None:
            return self._ids.new(trace_id)
        if ids not in self._recorded:
            self._recorded[ids] = self._ids.new(trace_id)
        return self._recorded[ids]


def trace_id_of(event: TraceEvent) -> int:
    """Return the run id as a number; if it is not one, a hash of the run's first record."""
    if _TRACE_ID.fullmatch(event.run_id or ""):
        return int(event.run_id or "", 16)
    return int.from_bytes(sha256(line_of(event)).digest()[:16], "big") or 1


def question_of(event: TraceEvent) -> Question:
    """Return what a lookup asked for."""
    return Question(event.op, event.view_id, event.prompt_hash, event.top_k)


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))


def _recorded_ids(event: TraceEvent) -> tuple[str, str] | None:
    """Return the recorded ids of a lookup's forward call, if they are valid."""
    ids = event.pass_trace_id or "", event.pass_span_id or ""
    valid = _TRACE_ID.fullmatch(ids[0]) and _SPAN_ID.fullmatch(ids[1])
    return ids if valid else None
