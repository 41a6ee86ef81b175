"""The one door for a backend: cache, ledger, trace and spans behind `cached` and `cached_batch`.

Every scoring method of a view is three lines of glue around one of the two:

    def next_token_dist(self, prompt, *, top_k=256):
        return self._instrumentation.cached(
            "next_token_dist", self.id, prompt, top_k, lambda: self._compute(prompt, top_k)
        )

It is longer than other modules because a hit must not pay for calls between them: the quick
ways of a hit and of a batch of hits stand here whole, beside the general ones.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from forwardscope.core.batch import Answer, BatchCall
from forwardscope.core.cache import MISS, DisabledCache, Entry, ForwardCache
from forwardscope.core.clock import Clock
from forwardscope.core.flight import Flight, Flights, ForwardPass
from forwardscope.core.histogram import Exemplar
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.ledger import MAX_SERIES, NO_TOKENS, QUEUED, Batch, Counts, Ledger, Series
from forwardscope.telemetry.maker import Question
from forwardscope.telemetry.passes import BatchSpan, SpannedPass
from forwardscope.telemetry.spans import DEFAULT_BUDGET, NOWHERE, LookupSpans, Place
from forwardscope.trace.record import HitLine, TraceEvent, ids_of_line
from forwardscope.trace.writer import TraceWriter

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["BackendInstrumentation"]

T = TypeVar("T")


class BackendInstrumentation:
    """What a backend owns to have its lookups cached, counted, traced and seen as spans.

    Safe under threads. Computes run outside every lock; two threads that miss
    the same key pay one forward pass between them.

    Args:
        cache_maxsize: The most entries to keep.
        trace_path: JSONL file to append one record a lookup to, or None.
        cache_max_bytes: The most bytes to keep, or None for no bound.
        name: Which backend this is, where several are looked at together.
        tracer_provider: Where spans go; None means the global provider, and
            where none is set there are no spans.
        span_budget: Hit spans from one `set_current_probe` to the next; None
            for no limit. Misses and forward passes are always spans.
        cache_enabled: False keeps nothing between calls; lookups are counted
            and traced all the same.
        clock: Where times come from; a test may bring its own.

    Raises:
        ValueError: A cache bound is not positive, or the budget is negative.
        OSError: The trace file cannot be opened.

    Attributes:
        cache: The forward cache.
        ledger: The counts behind everything, by series.
        stats: One live object with the totals of the moment it is read.
        trace: The trace writer. Another can be assigned; the one that it
            replaces is its maker's to close.
        spans: The spans of lookups and what became of them. Lookups hang under
            the span that is current where they are made; in a thread without
            one, under what was current at `set_current_probe`.
    """

    def __init__(
        self,
        *,
        cache_maxsize: int = 256,
        trace_path: str | PathLike[str] | None = None,
        cache_max_bytes: int | None = None,
        name: str = "default",
        tracer_provider: TracerProvider | None = None,
        span_budget: int | None = DEFAULT_BUDGET,
        cache_enabled: bool = True,
        clock: Clock = time,
    ) -> None:
        make_cache = ForwardCache if cache_enabled else DisabledCache
        self.name = name
        self.cache = make_cache(cache_maxsize, max_bytes=cache_max_bytes)
        self.ledger = Ledger(self.cache.lock)
        self.stats = self.ledger.live_stats()
        self.spans = LookupSpans(tracer_provider, span_budget, clock)
        self.trace = TraceWriter(trace_path)
        self._clock = clock
        self._now = clock.perf_counter_ns
        self._lock = self.cache.lock
        self._entries = self.cache.entries
        self._refresh = self.cache.entries.move_to_end
        self._flights = Flights()
        self._under_way = self._flights.under_way
        self._probe: str | None = None
        self._run_id: str | None = None
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._ids: tuple[Place | None, bytes] = (None, ids_of_line(None, None))

    @property
    def trace(self) -> TraceWriter:
        """The trace writer; see the class."""
        return self._trace

    @trace.setter
    def trace(self, writer: TraceWriter) -> None:
        self._trace = writer
        self._traced = writer.enabled
        # one of another kind is given events to make its own of
        self._writes_lines = self._traced and type(writer) is TraceWriter

    def set_current_probe(self, name: str | None) -> None:
        """Label the lookups of all threads from now on; None means outside any probe.

        It also begins a new budget of hit spans.
        """
        with self._lock:
            self._probe = name
            self._series = {}
        self.spans.probe_began(inside=name is not None)

    def set_run_id(self, run_id: str | None) -> None:
        """Mark the trace records of all threads from now on with a run's id."""
        with self._lock:
            self._run_id = run_id
            self._series = {}

    def report_tokens(self, tokens: Sequence[int], reused: Sequence[int] = ()) -> None:
        """Tell, from inside a compute, how many tokens each of its prompts has.

        The counts go to the records of this thread's innermost forward pass,
        in the order of its prompts. Outside any pass nothing happens.

        Args:
            tokens: Of each prompt.
            reused: How many of these need not be computed, an earlier prompt
                having begun with the same; may be filled until the compute returns.
        """
        forward = ForwardPass.current()
        if forward is not None:
            forward.tokens, forward.reused = tokens, reused

    def close(self) -> None:
        """End all spans and close the trace; may be called twice.

        Call it before the tracer provider is shut down. Lookups still work
        after it, without records and spans.
        """
        self.spans.close()
        self.trace.close()

    def cached(self, op: str, view_id: str, prompt: str, top_k: int, compute: Callable[[], T]) -> T:
        """Answer one question from the cache, or with one forward pass.

        A thread that misses a key which another is computing waits for it. If
        that pass fails, its error goes to its own caller and one waiter takes
        over. A thread that is itself inside a compute never waits.

        Args:
            op: What is asked.
            view_id: The view that is asked.
            prompt: The whole prompt; part of the key.
            top_k: Part of the key; 0 where an op has none.
            compute: Runs the forward pass.

        Returns:
            The stored value, or what `compute` gave.

        Raises:
            BaseException: Whatever `compute` raised, unchanged; nothing is
                stored then.
        """
        start = self._now()
        key = (op, view_id, prompt, top_k)
        # No lock: each step is one for Python as well, and a thread that is switched off
        # between two of them keeps no other waiting.
        entry = self._entries.get(key)
        if entry is None:
            return self._miss(key, start, compute)  # type: ignore[no-any-return]
        try:  # noqa: SIM105 - where nothing is raised, this alone costs nothing
            self._refresh(key)
        except KeyError:  # evicted since we looked; it is a hit all the same
            pass
        series = entry.series
        if series is None or series.home is not self._series:
            series = self._series_for(entry, op, view_id, top_k)
        end = self._now()
        queue = series.queue
        queue.append(end - start)
        if not len(queue) % QUEUED:
            self.ledger.relieve(series.counted)
        if self._traced or self.spans.active:
            self._show_hit(key, entry, series, start, end)
        return entry.value  # type: ignore[no-any-return]

    def cached_batch(
        self,
        op: str,
        view_id: str,
        prompts: Sequence[str],
        top_k: int,
        compute_misses: Callable[[list[int]], Sequence[T]],
    ) -> list[T]:
        """Answer several questions of one view, with one forward batch for the misses.

        Hits never enter the batch, and equal prompts are computed once. What
        this call leads is computed before it waits for other threads.

        Args:
            op: What is asked.
            view_id: The view that is asked.
            prompts: The whole prompts.
            top_k: Part of each key; 0 where an op has none.
            compute_misses: Gets the indices of the prompts to compute, in
                order, and returns as many values. Called once for what this
                call leads, and again only for what another thread was
                computing and failed; not at all where nothing is missing.

        Returns:
            The values, in the order of `prompts`.

        Raises:
            RuntimeError: `compute_misses` returned another number of values
                than it was asked for.
            BaseException: Whatever `compute_misses` raised, unchanged. None of
                the batch is stored then.
        """
        start = self._now()
        self.spans.refresh_at(start)
        if not self.spans.active:
            entries = self._all_stored(op, view_id, prompts, top_k, start)
            if entries is not None:
                return [entry.value for entry in entries]
        keys = [(op, view_id, prompt, top_k) for prompt in prompts]
        span = self.spans.batch(op, view_id, top_k, start) if self.spans.active else None

        def forward(indices: list[int]) -> ForwardPass:
            if span is None:
                return ForwardPass(self._clock, len(indices))
            return span.forward([_question(keys[index]) for index in indices])

        call = BatchCall(keys, self.cache, self._flights, self._clock, forward)
        error: str | None = None
        try:
            return call.answer(compute_misses)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._record_batch(op, view_id, call, start, span, error)

    # -- the quick way of a batch -------------------------------------------------------

    def _all_stored(
        self, op: str, view_id: str, prompts: Sequence[str], top_k: int, start: int
    ) -> list[Entry] | None:
        """Look up all prompts in one step and count them, or return None where one is missing."""
        found = []
        entries = self._entries
        with self._lock:
            for prompt in prompts:
                key = (op, view_id, prompt, top_k)
                entry = entries.get(key)
                if entry is None:
                    return None
                entries.move_to_end(key)
                found.append(entry)
            series = self._series_of(op, view_id, top_k)
            spent = self._now() - start
            counts = series.counted.counts
            counts.hits += len(found)
            counts.scoring_ns += spent
        if self._traced and found:
            self._write_hits((op, view_id, "", top_k), prompts, found, series, spent)
        return found

    # -- the way of a single miss -------------------------------------------------------

    def _miss(self, key: LookupKey, start: int, compute: Callable[[], Any]) -> Any:
        while True:
            flight, other = Flight(self.cache.generation), None
            try:
                claimed = self._under_way.setdefault(key, flight) is flight
                entry = self._entries.get(key)
                if entry is None and not claimed:
                    with self._lock:
                        entry = self._entries.get(key)
                        other = self._flights.join(key, flight) if entry is None else None
                if entry is not None:  # stored between our look and our claim
                    self.cache.get(key)
                    self._record_answered(key, start, "hit")
                    return entry.value
                if other is None or ForwardPass.current() is not None:
                    return self._lead(key, flight, start, compute)
            finally:
                if flight.leads:
                    with self._lock:
                        self._flights.land(key, flight)
                flight.wake()
            value = other.wait()
            if value is not MISS:
                self._record_answered(key, start, "coalesced")
                return value

    def _lead(self, key: LookupKey, flight: Flight, start: int, compute: Callable[[], Any]) -> Any:
        self.spans.refresh_at(start)
        if self.spans.active:
            forward: ForwardPass = self.spans.forward(_question(key), start)
        else:
            forward = ForwardPass(self._clock)
        entry = None
        try:
            with forward:
                value = compute()
                entry = self.cache.entry_of(key, value)
            flight.value = value
        finally:
            self._record_miss(key, flight, start, forward, entry)
        return value

    # -- records ------------------------------------------------------------------------

    def _series_of(self, op: str, view_id: str, top_k: int) -> _Series:
        """Return what is the same for all hits of a kind under this probe; the lock is held."""
        series = self._series.get((op, view_id, top_k))
        if series is None:
            if len(self._series) >= MAX_SERIES:
                self._series.clear()
            series = _Series(
                self._series,
                self.ledger.series(self._probe, view_id, op),
                HitLine(self._probe, view_id, top_k, op, self._run_id),
            )
            self._series[op, view_id, top_k] = series
        return series

    def _series_for(self, entry: Entry, op: str, view_id: str, top_k: int) -> _Series:
        with self._lock:
            series = entry.series = self._series_of(op, view_id, top_k)
        return series

    def _show_hit(
        self, key: LookupKey, entry: Entry, series: _Series, start: int, end: int
    ) -> None:
        """Give a hit that was counted its span and its line."""
        spans, place = self.spans, None
        digest = entry.digest or _digest(entry, key[2])
        if spans.active:
            place = spans.place()
            question = (key[0], key[1], digest.decode("ascii"), key[3])
            spans.answered(question, "hit", start, end, place.context)
        if self._writes_lines:
            of_place, ids = self._ids
            if of_place is not place:
                ids = ids_of_line(*(place or NOWHERE)[1:])
                self._ids = (place, ids)
            ts, wall_ms = self._clock.time_ns() / 1e9, (end - start) / 1e6
            self._trace.write_lines(series.line.fill(ts, digest, wall_ms, ids), 1)
        elif self._traced:
            answer = Answer("hit", end - start)
            self._trace.write(self._event(_question(key), answer, self._probe, place))

    def _write_hits(
        self,
        asked: LookupKey,
        prompts: Sequence[str],
        entries: Sequence[Entry],
        series: _Series,
        spent_ns: int,
    ) -> None:
        """Append the lines of a batch of hits, each with an even share of its time."""
        share = spent_ns // len(entries)
        digests = [
            entry.digest or _digest(entry, prompt)
            for entry, prompt in zip(entries, prompts, strict=True)
        ]
        if self._writes_lines:
            ts, wall_ms = self._clock.time_ns() / 1e9, share / 1e6
            fill, ids = series.line.fill, ids_of_line(None, None)
            lines = b"".join([fill(ts, digest, wall_ms, ids) for digest in digests])
            self._trace.write_lines(lines, len(digests))
            return
        op, view_id, _, top_k = asked
        answer, probe = Answer("hit", share), self._probe
        questions = [(op, view_id, digest.decode("ascii"), top_k) for digest in digests]
        self._trace.write_batch([self._event(one, answer, probe, None) for one in questions])

    def _record_answered(
        self, key: LookupKey, start: int, result: Literal["hit", "coalesced"]
    ) -> None:
        op, view_id, _, _ = key
        probe = self._probe
        end = self._clock.perf_counter_ns()
        count = self.ledger.hit if result == "hit" else self.ledger.coalesced
        count(probe, view_id, op, end - start)
        spans, trace = self.spans, self.trace
        if not (spans.active or trace.enabled):
            return
        question = _question(key)
        place = None
        if spans.active:
            place = spans.place()
            spans.answered(question, result, start, end, place.context)
        if trace.enabled:
            trace.write(self._event(question, Answer(result, end - start), probe, place))

    def _record_miss(
        self,
        key: LookupKey,
        flight: Flight,
        start: int,
        forward: ForwardPass,
        entry: Entry | None,
    ) -> None:
        op, view_id, _, top_k = key
        forward_ns = forward.end_ns - forward.start_ns
        exemplar = self._exemplar(forward, forward_ns) if forward.trace_id else None
        told = forward.token_sums() if forward.tokens else NO_TOKENS
        with self._lock:
            if entry is not None:
                self.cache.store(key, entry, flight.generation)
            self._flights.land(key, flight)
            probe, counts = self._probe, self._series_of(op, view_id, top_k).counted.counts
            end = self._now()
            self.ledger.miss(counts, op, end - start, forward_ns, forward.error, exemplar, told)
        place = None
        if isinstance(forward, SpannedPass):
            place = Place.of(forward.parent)
            forward.end_lookups(end)
        if self._traced:
            tokens = forward.tokens[0] if forward.tokens else None
            reused = forward.reused[0] if forward.reused else None
            answer = Answer("miss", forward_ns, start, None, tokens, reused, forward.error)
            event = self._event(_question(key), answer, probe, place, forward.trace_id)
            self.trace.write(event)

    def _record_batch(
        self,
        op: str,
        view_id: str,
        call: BatchCall,
        start: int,
        span: BatchSpan | None,
        error: str | None,
    ) -> None:
        probe = self._probe
        lookups = list(call.lookups())
        end = self._clock.perf_counter_ns()
        counts = _count(answer for _, answer in lookups)
        counts.scoring_ns = end - start
        counts.forward_ns = call.forward_ns
        self.ledger.add(probe, view_id, op, counts, [self._batch(one) for one in call.forwards])
        if span is None and not self.trace.enabled:
            return
        answers = [(_question(key), answer) for key, answer in lookups]
        place = None
        if span is not None:
            self.spans.end_batch(span, answers, call.forwards, error, end)
            place = Place.of(span.inside)
        if self.trace.enabled:
            self.trace.write_batch(
                [self._event(question, answer, probe, place) for question, answer in answers]
            )

    def _batch(self, forward: ForwardPass) -> Batch:
        share = forward.spent_ns // forward.size
        exemplar = self._exemplar(forward, share)
        return Batch(forward.size, share, forward.error, exemplar, forward.token_sums())

    def _exemplar(self, forward: ForwardPass, ns: int) -> Exemplar | None:
        if forward.trace_id is None:
            return None
        return Exemplar(forward.trace_id, ns / 1e9, self._clock.time_ns() / 1e9)

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
            ts=self._clock.time_ns() / 1e9,
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


class _Series:
    """What all hits of one op, view and top_k have in common while a probe is current.

    Attributes:
        home: The map that it stands in, which says whether it still holds.
        counted: Where they are counted.
        queue: Its queue.
        line: Their line in the trace.
    """

    __slots__ = ("counted", "home", "line", "queue")

    def __init__(self, home: object, counted: Series, line: HitLine) -> None:
        self.home = home
        self.counted = counted
        self.queue = counted.queue
        self.line = line


def _digest(entry: Entry, prompt: str) -> bytes:
    entry.digest = prompt_hash(prompt).encode("ascii")
    return entry.digest


def _question(key: LookupKey) -> Question:
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
