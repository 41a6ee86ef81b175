"""Spans of a backend's lookups.

The spans of a single miss, of a batch and of a forward call are live: the forward
span is current while the model runs. Those of other lookups are made later in another
thread, from the clock readings at their start and end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from forwardscope.core.clock import Clock
from forwardscope.core.ledger import Exemplar
from forwardscope.core.single_flight import Flight
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import (
    CallIds,
    ParentContext,
    SpanFactory,
    SpanOutcome,
    batch_attributes,
    lookup_name,
    more_attributes,
)
from forwardscope.telemetry.span_queue import FinishedLookup, SpanQueue

__all__ = ["DEFAULT_BUDGET", "CallSpans", "LookupSpans", "SpanDelivery"]

T = TypeVar("T")

#: Op, view id and top_k of a batch.
BatchKey = tuple[str, str, int]

#: Maximum number of hit spans for each probe.
DEFAULT_BUDGET: Final = 2000

_LOOKUP: Final = names.LOOKUP.kind
_CLOSE_TIMEOUT_S = 5.0
_REFRESH_EVERY_NS = 100_000_000


class SpanDelivery(Protocol):
    """Span exporter that counts spans by outcome."""

    def outcomes(self) -> Mapping[tuple[str, SpanOutcome], int]:
        """Return the number of exported, dropped and pending spans by kind."""
        ...


class LookupSpans:
    """Makes the spans of one backend's lookups, and counts them by outcome.

    Without a recording tracer it makes no span and starts no thread. A global
    tracer provider that is set later is used from the next probe on, or from a miss
    or a batch at most 0.1 seconds later. Safe under threads.

    Args:
        provider: Provider of the tracer; None means the global one.
        budget: Number of hit spans between two calls of `probe_began`; None for no
            limit. Further hits are counted as elided.
        clock: Clock of the lookups.

    Raises:
        ValueError: The budget is negative.

    Attributes:
        active: Whether lookups have spans now.
        queue: Queue of lookups whose spans are not made yet.
        clock: Clock of the lookups.
        delivery: Exporter that counts ended spans; None in library use, where
            spans go to the program's tracer provider and count as ended.
    """

    def __init__(
        self, provider: trace.TracerProvider | None, budget: int | None, clock: Clock
    ) -> None:
        self.active = False
        self.delivery: SpanDelivery | None = None
        self.clock: Final = clock
        self._factory = SpanFactory(provider, clock)
        self.queue: Final = SpanQueue(self._make_finished, budget)
        self._closed = False
        self._next_refresh_ns = 0
        self.refresh()

    def name_model(self, model: str, adapter: str, provider: str | None = None) -> None:
        """Set the names of model and adapter in later forward spans.

        Args:
            model: Name of the model.
            adapter: Name of the adapter, or of the fine-tuned model in its place.
            provider: What runs the model; None leaves it as it is.
        """
        self._factory.model, self._factory.adapter = model, adapter
        self._factory.provider_name = provider or self._factory.provider_name

    def name_server(self, address: str, port: int) -> None:
        """Make later forward spans those of calls of a server, of kind CLIENT."""
        self._factory.server = (address, port)

    def exemplar(self, value: float) -> Exemplar | None:
        """Return a value as an exemplar of now with the current trace; None if none is sampled."""
        ids = CallIds.of(trace.get_current_span()) if self.active else None
        return None if ids is None else Exemplar(ids.trace_id, value, self.clock.time_ns() / 1e9)

    @property
    def used(self) -> bool:
        """Whether lookups have spans, or had them before `close`."""
        return self._factory.active

    def refresh(self) -> None:
        """Get a recording tracer if there was none so far."""
        if not (self.active or self._closed):
            self._factory.find_tracer()
            if self._factory.active:
                self.queue.close_at_exit()
                self.active = True

    def refresh_at(self, now_ns: int) -> None:
        """Call `refresh`, at most ten times a second.

        Args:
            now_ns: Current time of the clock.
        """
        if now_ns >= self._next_refresh_ns and not self.active:
            self._next_refresh_ns = now_ns + _REFRESH_EVERY_NS
            self.refresh()

    def probe_began(self) -> None:
        """Begin a new budget of hit spans."""
        self.refresh()
        self.queue.renew_budget()

    def call(
        self, parent: ParentContext, start_ns: int | None, batch: BatchKey | None
    ) -> CallSpans:
        """Return the live spans of a call of `cached` or `cached_batch`."""
        return CallSpans(self._factory, parent, start_ns, batch)

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by kind and outcome."""
        counts = self._factory.outcomes()
        if self.delivery is not None:
            ended = [key for key in counts if key[1] == "ended"]
            for key in ended:
                del counts[key]
            counts += Counter(self.delivery.outcomes())
        # read after the ended spans, so that no span is counted as both ended and pending
        counts[_LOOKUP, "pending"] += self.queue.pending
        counts[_LOOKUP, "elided"] += self.queue.elided
        counts[_LOOKUP, "dropped"] += self.queue.dropped
        return +counts

    def elided(self) -> int:
        """Return the number of lookups over the budget or not sampled."""
        return self.queue.elided + self._factory.outcomes()[_LOOKUP, "elided"]

    def flush(self, timeout_s: float) -> bool:
        """Wait for the spans of all lookups so far; return whether all are made."""
        return self.queue.flush(timeout_s)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Make the spans of queued lookups and stop; may be called twice."""
        self._closed = True
        self.active = False
        self.queue.close(timeout_s)

    @contextmanager
    def around(
        self, kind: names.Span, detail: str | None, attributes: Mapping[str, Any]
    ) -> Iterator[trace.Span]:
        """Start a span that is current inside a `with` block.

        Args:
            kind: Kind of the span.
            detail: Second part of its name, such as the probe's name.
            attributes: Attributes at the start.

        Yields:
            The span, for further attributes; without a recording tracer, one that
            does nothing.
        """
        live = self.begin(kind, detail, attributes)
        if live is None:
            yield trace.INVALID_SPAN
            return
        error: str | None = None
        try:
            with trace.use_span(live, record_exception=False, set_status_on_exception=False):
                yield live
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self.end(live, kind, error=error)

    def begin(
        self,
        kind: names.Span,
        detail: str | None,
        attributes: Mapping[str, Any],
        start_ns: int | None = None,
    ) -> trace.Span | None:
        """Start a span below the current one; None without a recording tracer.

        Args:
            kind: Kind of the span.
            detail: Second part of its name.
            attributes: Attributes at the start.
            start_ns: Its start, in nanoseconds of the clock; by default now.
        """
        self.refresh()
        if not self.active:
            return None
        began = self._factory.clock.perf_counter_ns() if start_ns is None else start_ns
        parent = otel_context.get_current()
        return self._factory.start(kind.named(detail), parent, began, attributes)

    def end(
        self,
        span: trace.Span,
        kind: names.Span,
        end_ns: int | None = None,
        error: str | None = None,
    ) -> None:
        """End a span that `begin` started, now or at an earlier time, and count it."""
        ended = self._factory.clock.perf_counter_ns() if end_ns is None else end_ns
        self._factory.end(span, kind, ended, error)

    def _make_finished(self, lookup: FinishedLookup) -> None:
        span = self._factory.start_lookup(
            *(lookup.question, lookup.result, lookup.start_ns, lookup.parent, lookup.call),
            more_attributes(lookup.tier, lookup.verified, bypassed=lookup.bypassed),
        )
        self._factory.end(span, names.LOOKUP, lookup.end_ns, lookup.error)


class CallSpans:
    """Live spans of one call of `cached` or `cached_batch`.

    These are the spans of its forward calls, and one that they are part of: of a batch,
    or of a single lookup that is a miss. That one starts when it is needed.

    Args:
        factory: Makes the spans.
        parent: Parent of the lookup, or of the batch.
        start_ns: Start of the call; None if its lookups have other parents. Then the span
            of the batch begins with the first forward call.
        batch: Op, view id and top_k of a batch; None for a single lookup.

    Attributes:
        batch: Op, view id and top_k of a batch; None for a single lookup.
        parent: Parent of the spans of the call's lookups; in a batch, the span of the
            batch once it has started.
        forward_ns: Start of the first forward call; None before.
    """

    def __init__(
        self,
        factory: SpanFactory,
        parent: ParentContext,
        start_ns: int | None,
        batch: BatchKey | None,
    ) -> None:
        self.batch: Final = batch
        self.parent = parent
        self.forward_ns: int | None = None
        self._factory = factory
        self._start_ns = start_ns
        self._whole: trace.Span | None = None
        self._forward: trace.Span = trace.INVALID_SPAN

    @property
    def has_lookup(self) -> bool:
        """Whether the span of a single lookup is live."""
        return self.batch is None and self._whole is not None

    def start_batch(self) -> None:
        """Start the span of the batch, unless it has started."""
        if self.batch is not None and self._whole is None:
            attributes, outer = batch_attributes(*self.batch), self.parent.context
            self._whole = self._factory.start(
                names.BATCH.name, outer, self._start_ns or 0, attributes
            )
            self.parent = ParentContext.of(trace.set_span_in_context(self._whole, outer))

    def start_forward(
        self, flight: Flight, compute: Callable[[], T], *, verification: bool = False
    ) -> Callable[[], T]:
        """Start the span of a forward call.

        Args:
            flight: The call. Its origins are the questions; the ids of its span are set.
            compute: Makes the call.
            verification: Whether it computes values again that a store had.

        Returns:
            A compute that runs with the span as the current one. `Flight.run` calls it
            in a copy of the context, which ends with the call.
        """
        now, questions = self._factory.clock.perf_counter_ns(), flight.origins
        if self._start_ns is None:
            self._start_ns = now
        self.start_batch()
        parent = self.parent.context if self.batch is not None else self._start_lookup(flight)
        self.forward_ns = self.forward_ns or now
        self._forward = self._factory.start_forward(
            questions[0], len(questions), now, parent, verification=verification
        )
        flight.call = CallIds.of(self._forward)
        context = trace.set_span_in_context(self._forward, parent)

        def computed() -> T:
            otel_context.attach(context)
            return compute()

        return computed

    def end_forward(self, flight: Flight) -> None:
        """End the span of a forward call that has ended."""
        counts = [(tokens, reused or 0) for tokens, reused in flight.token_counts() if tokens]
        if counts:
            self._forward.set_attribute(names.INPUT_TOKENS.name, sum(n for n, _ in counts))
            if reused := sum(n for _, n in counts):
                self._forward.set_attribute(names.REUSED_TOKENS.name, reused)
        # the flight has no end where an interrupt came first
        end_ns = flight.end_ns or self._factory.clock.perf_counter_ns()
        self._factory.end(self._forward, names.FORWARD, end_ns, flight.error)

    def end(self, outcomes: Sequence[Any], error: str | None, end_ns: int) -> None:
        """End the span of the single lookup or of the batch.

        Args:
            outcomes: Outcomes of all lookups of the call; empty where the call was
                stopped before it computed. Then the span is discarded.
            error: Class of the exception of a failed batch.
            end_ns: End of the call.
        """
        if not outcomes:
            return
        if self.batch is None:
            if self._whole is not None:
                self._end_lookup(self._whole, outcomes[0], end_ns)
        elif self._whole is None:
            self._factory.count(names.BATCH, "elided")
        else:
            misses = sum(outcome.result == "miss" for outcome in outcomes)
            self._whole.set_attribute(names.BATCH_HITS.name, len(outcomes) - misses)
            self._whole.set_attribute(names.BATCH_MISSES.name, misses)
            self._factory.end(self._whole, names.BATCH, end_ns, error)

    def _start_lookup(self, flight: Flight) -> Context:
        """Start the span of a single lookup; return a context with it."""
        outer = self.parent.context
        more = more_attributes(bypassed=flight.bypass)
        self._whole = self._factory.start_lookup(
            *(flight.origins[0], "miss", self._start_ns or 0, outer), more=more
        )
        return trace.set_span_in_context(self._whole, outer)

    def _end_lookup(self, span: trace.Span, outcome: Any, end_ns: int) -> None:
        """End the span of a single lookup, which is a miss unless a store's value was verified."""
        if outcome.result != "miss":
            span.update_name(lookup_name(outcome.result, None))
            span.set_attribute(names.CACHE_RESULT.name, outcome.result)
            span.set_attributes(more_attributes(outcome.tier, outcome.verified))
            if outcome.call is not None:
                span.add_link(outcome.call.link().context)
        self._factory.end(span, names.LOOKUP, end_ns, outcome.error)
