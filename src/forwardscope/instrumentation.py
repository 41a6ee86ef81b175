"""The one door for a backend: cache, ledger, trace and spans behind `cached` and `cached_batch`.

Every scoring method of a view is three lines of glue around one of the two:

    def next_token_dist(self, prompt, *, top_k=256):
        return self._instrumentation.cached(
            "next_token_dist", self.id, prompt, top_k, lambda: self._compute(prompt, top_k)
        )

A lookup must not pay for calls between modules: the quick ways of a hit, of a batch of hits and
of a miss that nobody else asks for stand here whole, beside the general ones. What a lookup
leaves behind is in records.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from os import PathLike
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from forwardscope.core.batch import BatchCall
from forwardscope.core.cache import MISS, DisabledCache, Entry, ForwardCache, Shelf, new_entry
from forwardscope.core.clock import Clock
from forwardscope.core.flight import (
    PASSES,
    ForwardPass,
    forget_threads_in_children,
)
from forwardscope.core.keys import LookupKey
from forwardscope.core.ledger import Ledger
from forwardscope.core.series import QUEUED
from forwardscope.records import Records, question_of
from forwardscope.telemetry.spans import DEFAULT_BUDGET, LookupSpans
from forwardscope.trace.writer import TraceWriter

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

__all__ = ["BackendInstrumentation"]

T = TypeVar("T")

_QUEUED_PASSES = 2 * QUEUED  # each is two numbers


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
        self._records = Records(self.ledger, self.spans, TraceWriter(trace_path), clock)
        self._clock = clock
        self._now = clock.perf_counter_ns
        forget_threads_in_children()

    @property
    def trace(self) -> TraceWriter:
        """The trace writer; see the class."""
        return self._records.trace

    @trace.setter
    def trace(self, writer: TraceWriter) -> None:
        self._records.trace = writer

    def set_current_probe(self, name: str | None) -> None:
        """Label the lookups of all threads from now on; None means outside any probe.

        It also begins a new budget of hit spans.
        """
        self._records.set_probe(name)
        self.spans.probe_began(inside=name is not None)

    def set_run_id(self, run_id: str | None) -> None:
        """Mark the trace records of all threads from now on with a run's id."""
        self._records.set_run_id(run_id)

    def report_tokens(self, tokens: Sequence[int], reused: Sequence[int] = ()) -> None:
        """Tell, from inside a compute, how many tokens each of its prompts has.

        The counts go to the records of this thread's innermost forward pass,
        in the order of its prompts. Outside any pass nothing happens.

        Args:
            tokens: Of each prompt.
            reused: How many of these need not be computed, an earlier prompt
                having begun with the same; may be filled until the compute returns.
        """
        ForwardPass.tell(tokens, reused)

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
        entries = self.cache.shelf.entries
        entry = entries.get(key)
        if entry is None:
            return self._miss(key, start, compute)
        try:  # noqa: SIM105 - where nothing is raised, this alone costs nothing
            entries.move_to_end(key)
        except KeyError:  # evicted since we looked; it is a hit all the same
            pass
        records, kind = self._records, entry.kind
        if kind is None or kind.home is not records.kinds:
            kind = entry.kind = records.kind_of(op, view_id, top_k)
        end = self._now()
        hits = kind.hits
        hits.append(end - start)
        if not len(hits) % QUEUED:
            self.ledger.relieve(kind.series)
        if records.traced or self.spans.active:
            records.show_hit(key, entry, kind, start, end)
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
        self.spans.look(start)
        if not self.spans.active:
            entries = self._all_stored(op, view_id, prompts, top_k, start)
            if entries is not None:
                return [entry.value for entry in entries]
        keys = [(op, view_id, prompt, top_k) for prompt in prompts]
        span = self.spans.batch(op, view_id, top_k, start) if self.spans.active else None

        def forward(indices: list[int]) -> ForwardPass:
            if span is None:
                return ForwardPass(self._clock, len(indices))
            return span.forward([question_of(keys[index]) for index in indices])

        call = BatchCall(keys, self.cache, self._clock, forward)
        error: str | None = None
        try:
            return call.answer(compute_misses)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._records.batch((op, view_id), call, start, span, error)

    # -- the quick ways -----------------------------------------------------------------

    def _all_stored(
        self, op: str, view_id: str, prompts: Sequence[str], top_k: int, start: int
    ) -> list[Entry] | None:
        """Look up all prompts and count them in one step, or return None where one is missing."""
        found, shelf = [], self.cache.shelf
        for prompt in prompts:
            key = (op, view_id, prompt, top_k)
            entry = shelf.entries.get(key)
            if entry is None:
                return None
            try:  # noqa: SIM105 - where nothing is raised, this alone costs nothing
                shelf.entries.move_to_end(key)
            except KeyError:  # evicted since we looked; it is a hit all the same
                pass
            found.append(entry)
        with self.ledger.lock:
            kind = self._records.kind_of(op, view_id, top_k)
            spent = self._now() - start
            counts = kind.series.counts
            counts.hits += len(found)
            counts.scoring_ns += spent
        if self._records.traced and found:
            self._records.write_hits((op, view_id, "", top_k), prompts, found, kind, spent)
        return found

    def _miss(  # noqa: C901 - whole on purpose, as the module's docstring says
        self, key: LookupKey, start: int, compute: Callable[[], T]
    ) -> T:
        """Lead a pass that nobody else asks for; any other miss goes on in `_miss_beside`."""
        cache, now, entry, begun = self.cache, self._now, Entry(), 0
        entry.value, shelf = MISS, cache.shelf  # as `new_entry` makes one
        entry.size = entry.joined = entry.told = entry.kind = entry.shown = None
        under_way, passes = shelf.under_way, PASSES[get_ident()]
        try:
            alone = under_way.setdefault(key, entry) is entry and key not in shelf.entries
            if not alone or start >= self.spans.next_look_ns:
                shelf.release(key, entry)
                return self._miss_beside(key, start, compute)
            passes.append(entry)
            begun = now()
            value = compute()
            done = now()
            del passes[-1]
            entry.value = value
            records, (op, view_id, _, top_k) = self._records, key
            kind = entry.kind = records.kinds.get((op, view_id, top_k))
            if kind is None or entry.told is not None or records.traced:
                forward, begun = ForwardPass.over(begun, done, entry.told), 0
                entry.told = None
                records.miss(key, start, forward)
            else:
                paid = kind.passes
                paid += (done - start, done - begun)
                begun = 0
                if not len(paid) % _QUEUED_PASSES:
                    self.ledger.relieve(kind.series)
            if cache.plain and shelf.entries.setdefault(key, entry) is entry:
                if next(shelf.added) >= cache.maxsize:  # as `store` does
                    shelf.entries.popitem(False)
            else:
                cache.store(shelf, key, entry)
        except BaseException as error:
            # no call before which an interrupt could come; what follows is as `release` does
            if passes[-1:] == [entry]:
                del passes[-1]
            if key in under_way and under_way[key] is entry:
                del under_way[key]
            if entry.joined is not None:
                entry.joined.release()
            self._failed(shelf, key, entry, start, begun, error)
            raise
        del under_way[key]  # likewise
        if entry.joined is not None:
            entry.joined.release()
        return value

    def _failed(
        self,
        shelf: Shelf,
        key: LookupKey,
        entry: Entry,
        start: int,
        begun: int,
        error: BaseException,
    ) -> None:
        if begun:  # it has not been counted
            forward = ForwardPass.over(begun, self._now(), entry.told, type(error).__name__)
            self._records.miss(key, start, forward)
        if isinstance(error, KeyboardInterrupt):
            self.cache.mend(shelf)

    # -- the general way of a miss ------------------------------------------------------

    def _miss_beside(self, key: LookupKey, start: int, compute: Callable[[], T]) -> T:
        """Answer where others ask for the same, inside a pass or outside, or in spans."""
        self.spans.look(start)
        value: Any = MISS
        passes = PASSES[get_ident()]
        depth = len(passes)
        while value is MISS:
            shelf, entry = self.cache.shelf, new_entry()
            try:
                other = shelf.under_way.setdefault(key, entry)
                kept = shelf.entries.get(key)  # it may be stored between our look and our claim
                if kept is None and (other is entry or depth):
                    return self._lead(shelf, key, entry, start, compute)
            finally:
                del passes[depth:]  # where an interrupt kept a pass from taking its mark away
                try:
                    shelf.release(key, entry)
                except KeyboardInterrupt:
                    shelf.release(key, entry)
                    raise
            if kept is not None:
                shelf.refresh(key)
                self._records.answered(key, start, "hit")
                return kept.value  # type: ignore[no-any-return]
            value = self.cache.wait(shelf, key, other)
        self._records.answered(key, start, "coalesced")
        return value  # type: ignore[no-any-return]

    def _lead(
        self, shelf: Shelf, key: LookupKey, entry: Entry, start: int, compute: Callable[[], T]
    ) -> T:
        if self.spans.active:
            forward: ForwardPass = self.spans.forward(question_of(key), start)
        else:
            forward = ForwardPass(self._clock)
        try:
            with forward:
                value = compute()
            entry.value = value
        finally:
            self._records.miss(key, start, forward)
        self.cache.store(shelf, key, entry)
        return value
