"""What an answered lookup leaves behind: its count, its line in the trace and its span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from forwardscope.core.batch import Answer, BatchCall
from forwardscope.core.cache import Entry
from forwardscope.core.clock import Clock, TimeOfDay
from forwardscope.core.flight import ForwardPass
from forwardscope.core.histogram import Exemplar
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.ledger import MAX_SERIES, Batch, Ledger
from forwardscope.core.series import Counts, Series
from forwardscope.telemetry.maker import Question
from forwardscope.telemetry.passes import BatchSpan, SpannedPass
from forwardscope.telemetry.spans import NOWHERE, LookupSpans, Place
from forwardscope.trace.record import HitLine, TraceEvent, end_of_line, hit_line
from forwardscope.trace.writer import TraceWriter

__all__ = ["LookupKind", "Records", "question_of"]

_ENDS_NOWHERE = end_of_line(None, None)


class LookupKind:
    """What all lookups of one op, view and top_k have in common while a probe is current.

    Attributes:
        home: The map that it stands in, which says whether it still holds.
        probe: The probe.
        series: Where they are counted.
        hits: The queue of it for hits.
        passes: That for misses.
        line: The line of a hit in the trace.
        end: How it ends where they hang under no span.
    """

    __slots__ = ("end", "hits", "home", "line", "passes", "probe", "series")

    def __init__(self, home: object, probe: str | None, series: Series, line: HitLine) -> None:
        self.home = home
        self.probe = probe
        self.series = series
        self.hits = series.hits
        self.passes = series.passes
        self.line = line
        self.end = line.tail + _ENDS_NOWHERE


class Shown:
    """What a trace and spans say of one entry's hits, made once a kind of them.

    Attributes:
        kind: What they have in common with others.
        middle: The part of their lines that is known beforehand.
        question: What their spans say of the key.
    """

    __slots__ = ("kind", "middle", "question")

    def __init__(self, key: LookupKey, kind: LookupKind, earlier: Shown | None) -> None:
        self.kind = kind
        self.question: Question = question_of(key) if earlier is None else earlier.question
        self.middle = kind.line.middle(self.question[2].encode("ascii"))


class Records:
    """Counts lookups, and shows them where there is a trace or a tracer. Safe under threads.

    Args:
        ledger: Where they are counted.
        spans: Makes their spans.
        trace: Takes their lines.
        clock: What times them.

    Attributes:
        ledger: The same.
        spans: The same.
        kinds: What is the same for all lookups of an (op, view id, top_k); another map once
            the probe or the run is another one.
        traced: Whether lookups have lines.
    """

    def __init__(
        self, ledger: Ledger, spans: LookupSpans, trace: TraceWriter, clock: Clock
    ) -> None:
        self.ledger = ledger
        self.spans = spans
        self.kinds: dict[tuple[str, str, int], LookupKind] = {}
        self._now = clock.perf_counter_ns
        self._probe: str | None = None
        self._run_id: str | None = None
        self._time_ns = clock.time_ns
        self._day = TimeOfDay(clock)
        self._last_end: tuple[Place, bytes] = (NOWHERE, _ENDS_NOWHERE)
        self.trace = trace

    @property
    def trace(self) -> TraceWriter:
        """The trace writer; another can be assigned."""
        return self._trace

    @trace.setter
    def trace(self, writer: TraceWriter) -> None:
        self._trace = writer
        self.traced = writer.enabled
        # one of another kind is given events to make its own of
        self._writes_lines = self.traced and type(writer) is TraceWriter

    def set_probe(self, name: str | None) -> None:
        """Label what is recorded from now on."""
        with self.ledger.lock:
            self._probe = name
            self.kinds = {}

    def set_run_id(self, run_id: str | None) -> None:
        """Mark what is recorded from now on."""
        with self.ledger.lock:
            self._run_id = run_id
            self.kinds = {}

    def kind_of(self, op: str, view_id: str, top_k: int) -> LookupKind:
        """Return what is the same for all such lookups now."""
        kind = self.kinds.get((op, view_id, top_k))
        return self._new_kind(op, view_id, top_k) if kind is None else kind

    def _new_kind(self, op: str, view_id: str, top_k: int) -> LookupKind:
        with self.ledger.lock:
            if len(self.kinds) >= MAX_SERIES:
                self.kinds.clear()
            series = self.ledger.series(self._probe, view_id, op)
            line = HitLine(self._probe, view_id, top_k, op, self._run_id)
            kind = LookupKind(self.kinds, self._probe, series, line)
            self.kinds[op, view_id, top_k] = kind
        return kind

    # -- hits -------------------------------------------------------------------------------

    def show_hit(
        self, key: LookupKey, entry: Entry, kind: LookupKind, start: int, end: int
    ) -> None:
        """Give a hit that was counted its span and its line."""
        shown = entry.shown
        if shown is None or shown.kind is not kind:
            shown = entry.shown = Shown(key, kind, shown)
        place, spans = None, self.spans
        if spans.active:
            place = spans.place()
            spans.answered(shown.question, "hit", start, end, place.context)
        if self._writes_lines:
            end_of_it = kind.end if place is None else kind.line.tail + self._end_at(place)
            line = hit_line(self._day.at(end), shown.middle, end - start, end_of_it)
            self._trace.append(line)
        elif self.traced:
            answer = Answer("hit", end - start)
            self._trace.write(self._event(shown.question, answer, kind.probe, place))

    def write_hits(
        self,
        asked: LookupKey,
        prompts: Sequence[str],
        entries: Sequence[Entry],
        kind: LookupKind,
        spent_ns: int,
    ) -> None:
        """Append the lines of a batch of hits, each with an even share of its time.

        Args:
            asked: A key of the batch, of whatever prompt.
            prompts: All prompts.
            entries: Of each prompt.
            kind: What the hits have in common.
            spent_ns: Wall time of the call in nanoseconds.
        """
        share, (op, view_id, _, top_k) = spent_ns // len(entries), asked
        every: list[Shown] = []
        for entry, prompt in zip(entries, prompts, strict=True):
            shown = entry.shown
            if shown is None or shown.kind is not kind:
                shown = entry.shown = Shown((op, view_id, prompt, top_k), kind, shown)
            every.append(shown)
        if self._writes_lines:
            now, end = self._day.at(self._now()), kind.end
            lines = b"".join([hit_line(now, shown.middle, share, end) for shown in every])
            self._trace.write_lines(lines, len(every))
            return
        answer = Answer("hit", share)
        events = [self._event(shown.question, answer, kind.probe, None) for shown in every]
        self._trace.write_batch(events)

    # -- all else ---------------------------------------------------------------------------

    def answered(self, key: LookupKey, start: int, result: Literal["hit", "coalesced"]) -> None:
        """Record a lookup that waited for another's pass, or found what had just been stored."""
        op, view_id, _, _ = key
        probe = self._probe
        end = self._now()
        count = self.ledger.hit if result == "hit" else self.ledger.coalesced
        count(probe, view_id, op, end - start)
        spans = self.spans
        if not (spans.active or self.traced):
            return
        question = question_of(key)
        place = None
        if spans.active:
            place = spans.place()
            spans.answered(question, result, start, end, place.context)
        if self.traced:
            self._trace.write(self._event(question, Answer(result, end - start), probe, place))

    def miss(self, key: LookupKey, start: int, forward: ForwardPass) -> None:
        """Record a lookup that led a pass, whatever came of it."""
        op, view_id, _, top_k = key
        forward_ns = forward.spent_ns
        exemplar = self._exemplar(forward, forward_ns)
        tokens = forward.token_sums()
        with self.ledger.lock:
            kind = self.kind_of(op, view_id, top_k)
            end = self._now()
            self.ledger.miss(kind.series, end - start, forward_ns, forward.error, exemplar, tokens)
        place = None
        if isinstance(forward, SpannedPass):
            place = Place.of(forward.parent)
            forward.end_lookups(end)
        if self.traced:
            tokens_of_it = forward.tokens[0] if forward.tokens else None
            reused = forward.reused[0] if forward.reused else None
            answer = Answer(
                "miss", forward_ns, tokens=tokens_of_it, reused=reused, error=forward.error
            )
            event = self._event(question_of(key), answer, kind.probe, place, forward.trace_id)
            self._trace.write(event)

    def batch(
        self,
        asked: tuple[str, str],
        call: BatchCall,
        start: int,
        span: BatchSpan | None,
        error: str | None,
    ) -> None:
        """Record a call with several questions.

        Args:
            asked: Op and view id.
            call: The call.
            start: The clock when it began.
            span: Its span, where there is one.
            error: Class of the exception where it failed.
        """
        op, view_id = asked
        probe = self._probe
        lookups = list(call.lookups())
        end = self._now()
        counts = _count(answer for _, answer in lookups)
        counts.scoring_ns = end - start
        counts.forward_ns = call.forward_ns
        self.ledger.add(probe, view_id, op, counts, [self._batch(one) for one in call.forwards])
        if span is None and not self.traced:
            return
        answers = [(question_of(key), answer) for key, answer in lookups]
        place = None
        if span is not None:
            self.spans.end_batch(span, answers, call.forwards, error, end)
            place = Place.of(span.inside)
        if self.traced:
            self._trace.write_batch(
                [self._event(question, answer, probe, place) for question, answer in answers]
            )

    def _batch(self, forward: ForwardPass) -> Batch:
        share = forward.spent_ns // forward.size
        exemplar = self._exemplar(forward, share)
        return Batch(forward.size, share, forward.error, exemplar, forward.token_sums())

    def _exemplar(self, forward: ForwardPass, ns: int) -> Exemplar | None:
        if forward.trace_id is None:
            return None
        return Exemplar(forward.trace_id, ns / 1e9, self._time_ns() / 1e9)

    def _end_at(self, place: Place) -> bytes:
        """Return the end of lines of lookups that hang here."""
        last, end = self._last_end
        if last is not place:
            end = end_of_line(place.trace_id, place.parent_id)
            self._last_end = (place, end)
        return end

    def _event(
        self,
        question: Question,
        answer: Answer,
        probe: str | None,
        place: Place | None,
        trace_id: str | None = None,
    ) -> TraceEvent:
        op, view_id, digest, top_k = question
        parent_id = None
        if place is not None:
            trace_id, parent_id = place.trace_id or trace_id, place.parent_id
        return TraceEvent(
            ts=self._time_ns() / 1e9,
            probe=probe,
            view_id=view_id,
            prompt_hash=digest,
            top_k=top_k,
            op=op,
            wall_ms=answer.wall_ns / 1e6,
            hit=answer.result != "miss",
            result="coalesced" if answer.result == "coalesced" else None,
            batch=answer.batch,
            tokens=answer.tokens,
            tokens_reused=answer.reused or None,
            error=answer.error,
            run_id=self._run_id,
            trace_id=trace_id,
            parent_id=parent_id,
        )


def question_of(key: LookupKey) -> Question:
    """Return what a trace or a span says of a key."""
    op, view_id, prompt, top_k = key
    return op, view_id, prompt_hash(prompt), top_k


def _count(answers: Iterable[Answer]) -> Counts:
    tally = Counter((answer.result, answer.error) for answer in answers)
    return Counts(
        hits=tally["hit", None],
        coalesced=tally["coalesced", None],
        forward_passes=tally["miss", None],
        errors=Counter({error: n for (_, error), n in tally.items() if error is not None}),
    )
