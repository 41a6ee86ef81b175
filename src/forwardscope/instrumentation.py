"""The one door for a backend: cache, ledger and trace behind `cached` and `cached_batch`.

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
from typing import Any, TypeVar

from forwardscope.core.batch import Answer, BatchCall
from forwardscope.core.cache import MISS, DisabledCache, ForwardCache
from forwardscope.core.flight import Flight, Flights, ForwardPass
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.ledger import Counts, Ledger
from forwardscope.trace.record import TraceEvent
from forwardscope.trace.writer import TraceWriter

__all__ = ["BackendInstrumentation"]

T = TypeVar("T")


class BackendInstrumentation:
    """What a backend owns to have its lookups cached, counted and traced.

    Safe under threads. Computes run outside every lock; two threads that miss
    the same key pay one forward pass between them.

    Args:
        cache_maxsize: The most entries to keep.
        trace_path: JSONL file to append one record a lookup to, or None.
        cache_max_bytes: The most bytes to keep, or None for no bound.
        name: Which backend this is, where several are looked at together.
        cache_enabled: False keeps nothing between calls; lookups are counted
            and traced all the same.

    Raises:
        ValueError: A cache bound is not positive.
        OSError: The trace file cannot be opened.

    Attributes:
        cache: The forward cache.
        ledger: The counts behind everything, by series.
        stats: One live object with the totals of the moment it is read.
        trace: The trace writer. Another can be assigned; the one that it
            replaces is its maker's to close.
    """

    def __init__(
        self,
        *,
        cache_maxsize: int = 256,
        trace_path: str | PathLike[str] | None = None,
        cache_max_bytes: int | None = None,
        name: str = "default",
        cache_enabled: bool = True,
    ) -> None:
        make_cache = ForwardCache if cache_enabled else DisabledCache
        self.name = name
        self.cache = make_cache(cache_maxsize, max_bytes=cache_max_bytes)
        self.ledger = Ledger()
        self.stats = self.ledger.live_stats()
        self.trace = TraceWriter(trace_path)
        self._flights = Flights()
        self._probe: str | None = None
        self._run_id: str | None = None

    def set_current_probe(self, name: str | None) -> None:
        """Label the lookups of all threads from now on; None means outside any probe."""
        self._probe = name

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
        """Close the trace; may be called twice. Lookups still work, untraced."""
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
        start = time.perf_counter_ns()
        key = (op, view_id, prompt, top_k)
        value = self.cache.get(key)
        if value is MISS:
            value = self._miss(key, start, compute)
        else:
            self._record_hit(key, start)
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
        start = time.perf_counter_ns()
        keys = [(op, view_id, prompt, top_k) for prompt in prompts]
        call = BatchCall(keys, self.cache, self._flights)
        try:
            return call.answer(compute_misses)
        finally:
            self._record_batch(op, view_id, call, start)

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
                self._record_coalesced(key, start)
                return value

    def _lead(self, key: LookupKey, flight: Flight, start: int, compute: Callable[[], Any]) -> Any:
        value = self.cache.get(key)
        if value is not MISS:  # stored between our look and our claim
            flight.value = value
            self._record_hit(key, start)
            return value
        error: str | None = None
        begin = time.perf_counter_ns()
        forward = ForwardPass()
        try:
            with forward:
                value = compute()
            self.cache.put(key, value, generation=flight.generation)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            spent = time.perf_counter_ns() - begin
            tokens = forward.tokens[0] if forward.tokens else None
            self._record_miss(key, start, Answer("miss", spent, None, tokens, error))
        flight.value = value
        return value

    # -- records ------------------------------------------------------------------------

    def _record_hit(self, key: LookupKey, start: int) -> None:
        op, view_id, _, _ = key
        probe = self._probe
        spent = time.perf_counter_ns() - start
        self.ledger.hit(probe, view_id, op, spent)
        if self.trace.enabled:
            self.trace.write(self._event(key, Answer("hit", spent), probe))

    def _record_coalesced(self, key: LookupKey, start: int) -> None:
        op, view_id, _, _ = key
        probe = self._probe
        spent = time.perf_counter_ns() - start
        self.ledger.coalesced(probe, view_id, op, spent)
        if self.trace.enabled:
            self.trace.write(self._event(key, Answer("coalesced", spent), probe))

    def _record_miss(self, key: LookupKey, start: int, answer: Answer) -> None:
        op, view_id, _, _ = key
        probe = self._probe
        spent = time.perf_counter_ns() - start
        self.ledger.miss(probe, view_id, op, spent, answer.wall_ns, answer.error)
        if self.trace.enabled:
            self.trace.write(self._event(key, answer, probe))

    def _record_batch(self, op: str, view_id: str, call: BatchCall, start: int) -> None:
        probe = self._probe
        lookups = list(call.lookups())
        counts = _count(answer for _, answer in lookups)
        counts.scoring_ns = time.perf_counter_ns() - start
        counts.forward_ns = call.forward_ns
        self.ledger.add(probe, view_id, op, counts, call.batch_sizes)
        if self.trace.enabled:
            self.trace.write_batch([self._event(key, answer, probe) for key, answer in lookups])

    def _event(self, key: LookupKey, answer: Answer, probe: str | None) -> TraceEvent:
        op, view_id, prompt, top_k = key
        return TraceEvent(
            ts=time.time(),
            probe=probe,
            view_id=view_id,
            prompt_hash=prompt_hash(prompt),
            top_k=top_k,
            op=op,
            wall_ms=answer.wall_ns / 1e6,
            hit=answer.result != "miss",
            result="coalesced" if answer.result == "coalesced" else None,
            batch=answer.batch,
            tokens=answer.tokens,
            error=answer.error,
            run_id=self._run_id,
        )


def _count(answers: Iterable[Answer]) -> Counts:
    tally = Counter((answer.result, answer.error) for answer in answers)
    return Counts(
        hits=tally["hit", None],
        coalesced=tally["coalesced", None],
        forward_passes=tally["miss", None],
        errors=Counter({error: n for (_, error), n in tally.items() if error is not None}),
    )
