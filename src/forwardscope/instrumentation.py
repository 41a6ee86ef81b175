"""The one door for a backend: cache, ledger, trace and spans behind `cached` and `cached_batch`.

Every scoring method of a view is three lines of glue around one of the two:

    def next_token_dist(self, prompt, *, top_k=256):
        return self._instrumentation.cached(
            "next_token_dist", self.id, prompt, top_k, lambda: self._compute(prompt, top_k)
        )
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from forwardscope.core.batch import Answer, BatchCall
from forwardscope.core.cache import MISS, DisabledCache, ForwardCache
from forwardscope.core.clock import Clock
from forwardscope.core.flight import Flight, Flights, ForwardPass
from forwardscope.core.histogram import Exemplar
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.ledger import Batch, Counts, Ledger
from forwardscope.telemetry.maker import Question
from forwardscope.telemetry.passes import BatchSpan, SpannedPass
from forwardscope.telemetry.spans import DEFAULT_BUDGET, LookupSpans, ids_of
from forwardscope.trace.record import TraceEvent
from forwardscope.trace.writer import TraceWriter

if TYPE_CHECKING:
    from opentelemetry.context import Context
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
        self.ledger = Ledger()
        self.stats = self.ledger.live_stats()
        self.spans = LookupSpans(tracer_provider, span_budget, clock)
        self.trace = TraceWriter(trace_path)
        self._clock = clock
        self._flights = Flights()
        self._probe: str | None = None
        self._run_id: str | None = None

    def set_current_probe(self, name: str | None) -> None:
        """Label the lookups of all threads from now on; None means outside any probe.

        It also begins a new budget of hit spans.
        """
        self._probe = name
        self.spans.probe_began(inside=name is not None)

    def set_run_id(self, run_id: str | None) -> None:
        """Mark the trace records of all threads from now on with a run's id."""
        self._run_id = run_id

    def report_tokens(self, tokens: Sequence[int]) -> None:
        """Tell, from inside a compute, how many tokens each of its prompts has.

        The counts go to the records of this thread's innermost forward pass,
        in the order of its prompts. Outside any pass nothing happens.
        """
        forward = ForwardPass.current()
        if forward is not None:
            forward.tokens = tokens

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
        start = self._clock.perf_counter_ns()
        key = (op, view_id, prompt, top_k)
        value = self.cache.get(key)
        if value is MISS:
            value = self._miss(key, start, compute)
        else:
            self._record_answered(key, start, "hit")
        return value  # type: ignore[no-any-return]

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
        start = self._clock.perf_counter_ns()
        keys = [(op, view_id, prompt, top_k) for prompt in prompts]
        self.spans.refresh()
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

    # -- the way of a single miss -------------------------------------------------------

    def _miss(self, key: LookupKey, start: int, compute: Callable[[], Any]) -> Any:
        while True:
            flight = Flight(self.cache.generation)
            try:
                other = self._flights.join(key, flight)
                if other is None or ForwardPass.current() is not None:
                    return self._lead(key, flight, start, compute)
            finally:
                self._flights.land(key, flight)
            value = other.wait()
            if value is not MISS:
                self._record_answered(key, start, "coalesced")
                return value

    def _lead(self, key: LookupKey, flight: Flight, start: int, compute: Callable[[], Any]) -> Any:
        value = self.cache.get(key)
        if value is not MISS:  # stored between our look and our claim
            flight.value = value
            self._record_answered(key, start, "hit")
            return value
        forward = self._forward(key, start)
        try:
            with forward:
                value = compute()
                self.cache.put(key, value, generation=flight.generation)
        finally:
            self._record_miss(key, start, forward)
        flight.value = value
        return value

    def _forward(self, key: LookupKey, start: int) -> ForwardPass:
        self.spans.refresh()
        if self.spans.active:
            return self.spans.forward(_question(key), start)
        return ForwardPass(self._clock)

    # -- records ------------------------------------------------------------------------

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
        parent = None
        if spans.active:
            parent = spans.parent()
            spans.answered(question, result, start, end, parent)
        if trace.enabled:
            trace.write(self._event(question, Answer(result, end - start), probe, parent))

    def _record_miss(self, key: LookupKey, start: int, forward: ForwardPass) -> None:
        op, view_id, _, _ = key
        probe = self._probe
        end = self._clock.perf_counter_ns()
        exemplar = self._exemplar(forward, forward.spent_ns)
        self.ledger.miss(probe, view_id, op, end - start, forward.spent_ns, forward.error, exemplar)
        parent = None
        if isinstance(forward, SpannedPass):
            parent = forward.parent
            forward.end_lookups(end)
        if self.trace.enabled:
            tokens = forward.tokens[0] if forward.tokens else None
            answer = Answer("miss", forward.spent_ns, start, None, tokens, forward.error)
            event = self._event(_question(key), answer, probe, parent, forward.trace_id)
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
        parent = None
        if span is not None:
            self.spans.end_batch(span, answers, call.forwards, error, end)
            parent = span.inside
        if self.trace.enabled:
            self.trace.write_batch(
                [self._event(question, answer, probe, parent) for question, answer in answers]
            )

    def _batch(self, forward: ForwardPass) -> Batch:
        share = forward.spent_ns // forward.size
        return Batch(forward.size, share, forward.error, self._exemplar(forward, share))

    def _exemplar(self, forward: ForwardPass, ns: int) -> Exemplar | None:
        if forward.trace_id is None:
            return None
        return Exemplar(forward.trace_id, ns / 1e9, self._clock.time_ns() / 1e9)

    def _event(
        self,
        question: Question,
        answer: Answer,
        probe: str | None,
        parent: Context | None,
        trace_id: str | None = None,
    ) -> TraceEvent:
        op, view_id, digest, top_k = question
        parent_id = None
        if parent is not None:
            trace_id, parent_id = ids_of(parent, trace_id)
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
            error=answer.error,
            run_id=self._run_id,
            trace_id=trace_id,
            parent_id=parent_id,
        )


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
