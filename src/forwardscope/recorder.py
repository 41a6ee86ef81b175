"""Records each lookup in the ledger's counts, in the trace and as a span."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
from opentelemetry import context as otel_context
from opentelemetry.context import Context

from forwardscope.core.clock import Clock
from forwardscope.core.keys import LookupKey, Question, question_of
from forwardscope.core.ledger import Ledger
from forwardscope.core.single_flight import Flight
from forwardscope.store.base import Tier
from forwardscope.store.tier import StoreTier
from forwardscope.telemetry.span_factory import NO_PARENT, CallIds, ParentContext
from forwardscope.telemetry.span_queue import FinishedLookup
from forwardscope.telemetry.spans import CallSpans, LookupSpans
from forwardscope.trace.record import TraceEvent
from forwardscope.trace.writer import TraceWriter

__all__ = ["BatchProbes", "Outcome", "Recorder", "misses_of", "parts_by_probe"]


class BatchProbes(NamedTuple):
    """Whose lookups those of a batch are, where it has prompts of several probes.

    Attributes:
        names: The probe of each prompt.
        parent: Called once for each probe that has outcomes, where lookups have spans: with
            its name, and start and end of its lookups in nanoseconds of the clock. Returns
            the context with the parent of their spans.
    """

    names: Sequence[str]
    parent: Callable[[str, int, int], Context]


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How one lookup ended. Its counts, its trace line and its span are made from it.

    Attributes:
        key: The key that was looked up.
        question: The key with the prompt's hash; None if it is not computed yet.
        result: `hit`, `miss` or `coalesced`.
        start_ns: Start of the lookup's span. The lookups of a batch follow one another.
        end_ns: End of the lookup's span. A miss of a batch ends before it is computed.
        wall_ns: Compute time of a miss, otherwise the time of the lookup, waiting
            included; in a batch an even share.
        call: Ids of the forward call that computed the value or failed to; None if it
            has no sampled span.
        batch: Number of prompts in the forward batch of a miss; None for a single call.
        tier: `disk` or `remote` for a hit that a store answered, else None.
        verified: Whether the stored value agreed with the one that was computed again; None
            where it was not.
        tokens: Number of tokens in a miss's prompt, if the compute reported it.
        reused: Number of these tokens that an earlier prompt's forward pass had computed.
        error: Class of the exception if the compute failed.
        stored_by: Id of the run that computed the value, if a store had it.
        bypassed: Whether the cache was not asked: a miss whose value is not kept.
        probe: Its probe in a batch of several probes; None where it is the current one.
    """

    key: LookupKey
    question: Question | None
    result: Literal["hit", "miss", "coalesced"]
    start_ns: int
    end_ns: int
    wall_ns: int
    call: CallIds | None = None
    batch: int | None = None
    tokens: int | None = None
    reused: int | None = None
    error: str | None = None
    tier: Tier | None = None
    verified: bool | None = None
    stored_by: str | None = None
    bypassed: bool = False
    probe: str | None = None

    @property
    def trace_id(self) -> str | None:
        """Trace with the forward span of a miss, 32 hex digits."""
        return None if self.call is None or self.result != "miss" else self.call.trace_id


def misses_of(flight: Flight, *, batch: bool = False) -> list[Outcome]:
    """Return the outcomes of a forward call; each prompt has an even share of its time.

    A call that was stopped before it began has none.
    """
    if not flight.start_ns:
        return []
    start, entries, error, size = flight.start_ns, flight.entries, flight.error, len(flight.keys)
    end = max(start, flight.end_ns)
    share, batch_size = (end - start) // size, size if batch else None
    outcomes = []
    for key, origin, counts in zip(flight.keys, flight.origins, flight.token_counts(), strict=True):
        failed = None if key in entries else error or KeyboardInterrupt.__name__
        outcomes.append(
            Outcome(
                *(key, origin, "miss", start, end, share, flight.call),
                *(batch_size, *counts, failed),
                bypassed=flight.bypass,
            )
        )
    return outcomes


def parts_by_probe(outcomes: Sequence[Outcome]) -> Iterable[list[Outcome]]:
    """Return the outcomes of each probe in a batch of several, in order."""
    parts: dict[str | None, list[Outcome]] = {}
    for one in outcomes:
        parts.setdefault(one.probe, []).append(one)
    return parts.values()


class Recorder:
    """Records the outcomes of lookups as counts, trace lines and spans.

    Safe under threads: each of the three has its own lock.

    Args:
        ledger: Counts by series.
        spans: Spans of lookups.
        trace: Trace writer.
        clock: Clock of the lookups.
        store_tier: Knows the identities of views; None without a store.

    Attributes:
        run_id: Id of the run for later trace lines, or None.
    """

    def __init__(
        self,
        ledger: Ledger,
        spans: LookupSpans,
        trace: TraceWriter,
        clock: Clock,
        store_tier: StoreTier | None,
    ) -> None:
        self.run_id: str | None = None
        self.trace = trace
        self._ledger = ledger
        self._spans = spans
        self._time_ns = clock.time_ns
        self._tier = store_tier
        self._probe: str | None = None
        self._probe_parent = NO_PARENT
        self._last_parent = (NO_PARENT.context, NO_PARENT, NO_PARENT)

    @property
    def trace(self) -> TraceWriter:
        """The trace writer; another can be assigned."""
        return self._trace

    @trace.setter
    def trace(self, writer: TraceWriter) -> None:
        self._trace = writer
        self._traced = writer.enabled

    @property
    def shows(self) -> bool:
        """Whether lookups have trace lines or spans now."""
        return self._traced or self._spans.active

    @property
    def probe(self) -> str | None:
        """The label of what is recorded now."""
        return self._probe

    def set_probe(self, name: str | None) -> None:
        """Label what is recorded from now on; None means outside any probe.

        The span that is current here is the parent of lookups in threads without one.
        """
        self._probe = name
        inside = self._spans.active and name is not None
        self._probe_parent = ParentContext.of(otel_context.get_current()) if inside else NO_PARENT

    def parent(self) -> ParentContext:
        """Return the parent of the span of a lookup that is made in this thread now."""
        context = otel_context.get_current()
        last, fallback, parent = self._last_parent  # one read: the three belong together
        if last is not context or fallback is not self._probe_parent:
            fallback, parent = self._probe_parent, ParentContext.of(context)
            if not parent.has_span:
                parent = fallback
            self._last_parent = (context, fallback, parent)
        return parent

    def record(
        self,
        outcomes: Sequence[Outcome],
        scoring_ns: int,
        batches: Sequence[int] = (),
        spans: CallSpans | None = None,
        probes: BatchProbes | None = None,
    ) -> None:
        """Record the lookups of one call of `cached` or `cached_batch`.

        Args:
            outcomes: At least one; all of one view and op.
            scoring_ns: Wall time of the call in nanoseconds, hits and waiting included.
            batches: Number of prompts in each call of `compute_misses`.
            spans: The live spans of the call, where it has any.
            probes: Probes of the lookups, if they are not of the current one; those of
                `outcomes` are of one probe.
        """
        op, view_id, _, _ = outcomes[0].key
        has_spans = self._spans.active or spans is not None
        shown = self._traced or has_spans
        probe = self._probe if probes is None else outcomes[0].probe
        ts = self._time_ns() / 1e9 if shown else 0.0
        self._ledger.add((probe, view_id, op), outcomes, scoring_ns, batches, ts)
        if shown:
            parent = self._offer_spans(outcomes, spans, probes) if has_spans else NO_PARENT
            if self._traced:
                self._trace.write_batch([self._event(one, ts, probe, parent) for one in outcomes])

    def _offer_spans(
        self, outcomes: Sequence[Outcome], spans: CallSpans | None, probes: BatchProbes | None
    ) -> ParentContext:
        """Queue the spans of all lookups but a single one whose span is live.

        Misses come first, so that hits do not displace them.

        Returns:
            The parent of the spans.
        """
        queue = self._spans.queue
        if probes is not None:
            first, last = outcomes[0], outcomes[-1]
            context = probes.parent(first.probe or "", first.start_ns, last.end_ns)
            parent = ParentContext.of(context)
        elif spans is None:
            parent = self.parent()
        elif spans.has_lookup:
            return spans.parent
        else:
            if queue.has_budget:
                spans.start_batch()
            parent = spans.parent
        if len(outcomes) > 1:
            outcomes = sorted(outcomes, key=lambda one: one.result != "miss")
        for one in outcomes:
            queue.offer(
                FinishedLookup(
                    one.question or question_of(one.key),
                    *(one.result, one.start_ns, one.end_ns, parent.context, one.call, one.error),
                    *(one.tier, one.verified, one.bypassed),
                )
            )
        return parent

    def _event(
        self, outcome: Outcome, ts: float, probe: str | None, parent: ParentContext
    ) -> TraceEvent:
        op, view_id, digest, top_k = outcome.question or question_of(outcome.key)
        missed = outcome.result == "miss"
        pass_trace_id, pass_span_id = outcome.call or (None, None)
        return TraceEvent(
            *(ts, probe, view_id, digest, top_k, op),
            outcome.wall_ns / 1e6,
            not missed,
            "coalesced" if outcome.result == "coalesced" else None,
            outcome.tier,
            outcome.verified,
            *(outcome.batch, outcome.tokens, outcome.reused or None, outcome.error, self.run_id),
            parent.trace_id or outcome.trace_id,
            parent.parent_id,
            *(pass_trace_id, pass_span_id, outcome.stored_by),
            self._tier.known_identity(view_id) if missed and self._tier is not None else None,
            outcome.bypassed or None,
        )
