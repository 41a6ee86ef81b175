"""Spans of a backend's lookups.

The spans of a miss and of its forward call are live: the forward span is current
while the model runs. The span of a hit is made later in another thread, from the
clock readings at its start and end.
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
from forwardscope.core.keys import Question
from forwardscope.core.single_flight import Flight
from forwardscope.telemetry import names
from forwardscope.telemetry.hit_span_queue import FinishedLookup, HitSpanQueue
from forwardscope.telemetry.span_factory import (
    LOOKUP,
    ParentContext,
    SpanFactory,
    SpanOutcome,
)
from forwardscope.text import printable

__all__ = ["DEFAULT_BUDGET", "MAX_LINKS", "CallSpans", "ForwardSpan", "LookupSpans", "SpanDelivery"]

T = TypeVar("T")

#: Op, view id and top_k of a batch.
BatchKey = tuple[str, str, int]

#: Maximum number of hit spans for each probe.
DEFAULT_BUDGET: Final = 2000
#: Maximum number of links of a batch's forward span.
MAX_LINKS: Final = 128

_FORWARD: Final = names.FORWARD.name
_BATCH: Final = names.LOOKUP_BATCH.name
_CLOSE_TIMEOUT_S = 5.0
_REFRESH_EVERY_NS = 100_000_000


class SpanDelivery(Protocol):
    """Span exporter that counts spans by outcome."""

    def outcomes(self) -> Mapping[tuple[str, SpanOutcome], int]:
        """Return the number of exported, dropped and pending spans by name."""
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
        hits: Queue of hits and coalesced lookups whose spans are not made yet.
        delivery: Exporter that counts ended spans; None in library use, where
            spans go to the program's tracer provider and count as ended.
    """

    def __init__(
        self, provider: trace.TracerProvider | None, budget: int | None, clock: Clock
    ) -> None:
        self.active = False
        self.delivery: SpanDelivery | None = None
        self._factory = SpanFactory(provider, clock)
        self.hits: Final = HitSpanQueue(self._make_finished, budget)
        self._closed = False
        self._next_refresh_ns = 0
        self.refresh()

    @property
    def model(self) -> str | None:
        """Name of the model in forward spans; can be assigned."""
        return self._factory.model

    @model.setter
    def model(self, name: str | None) -> None:
        self._factory.model = name

    @property
    def used(self) -> bool:
        """Whether lookups have spans, or had them before `close`."""
        return self._factory.active

    def refresh(self) -> None:
        """Get a recording tracer if there was none so far."""
        if not (self.active or self._closed):
            self._factory.find_tracer()
            if self._factory.active:
                self.hits.close_at_exit()
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
        self.hits.renew_budget()

    def call(self, parent: ParentContext, start_ns: int, batch: BatchKey | None) -> CallSpans:
        """Return the live spans of a call of `cached` or `cached_batch`."""
        return CallSpans(self._factory, parent, start_ns, batch)

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by name and outcome."""
        counts = self._factory.outcomes()
        if self.delivery is not None:
            ended = [key for key in counts if key[1] == "ended"]
            for key in ended:
                del counts[key]
            counts += Counter(self.delivery.outcomes())
        # read after the ended spans, so that no span is counted as both ended and pending
        counts[LOOKUP, "pending"] += self.hits.pending
        counts[LOOKUP, "elided"] += self.hits.elided
        counts[LOOKUP, "dropped"] += self.hits.dropped
        return +counts

    def elided(self) -> int:
        """Return the number of lookups over the budget or not sampled."""
        return self.hits.elided + self._factory.outcomes()[LOOKUP, "elided"]

    def flush(self, timeout_s: float) -> bool:
        """Wait for the spans of all lookups so far; return whether all are made."""
        return self.hits.flush(timeout_s)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Make the spans of queued lookups and stop; may be called twice."""
        self._closed = True
        self.active = False
        self.hits.close(timeout_s)

    @contextmanager
    def around(self, span: names.Span, attributes: Mapping[str, Any]) -> Iterator[trace.Span]:
        """Start a span that is current inside a `with` block.

        Yields:
            The span, for further attributes; without a recording tracer, one that
            does nothing.
        """
        self.refresh()
        if not self.active:
            yield trace.INVALID_SPAN
            return
        factory, clock = self._factory, self._factory.clock
        parent = otel_context.get_current()
        live = factory.start(span.name, parent, clock.perf_counter_ns(), attributes)
        error: str | None = None
        try:
            with trace.use_span(live, record_exception=False, set_status_on_exception=False):
                yield live
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            factory.end(live, span.name, clock.perf_counter_ns(), error)

    def _make_finished(self, lookup: FinishedLookup) -> None:
        span = self._factory.start_lookup(
            lookup.question, lookup.result, lookup.start_ns, lookup.parent
        )
        self._factory.end(span, LOOKUP, lookup.end_ns)


class CallSpans:
    """Live spans of one call of `cached` or `cached_batch`.

    A batch has a span, which starts when the first child needs it.

    Args:
        factory: Makes the spans.
        parent: Parent of the lookup, or of the batch.
        start_ns: Start of the call.
        batch: Op, view id and top_k of a batch; None for a single lookup.
    """

    def __init__(
        self,
        factory: SpanFactory,
        parent: ParentContext,
        start_ns: int,
        batch: BatchKey | None,
    ) -> None:
        self._factory = factory
        self._parent = parent
        self._start_ns = start_ns
        self._batch = batch
        self._batch_span: trace.Span | None = None
        self._forwards: list[ForwardSpan] = []

    def parent(self, *, needed: bool = True) -> ParentContext:
        """Return the parent of the call's lookups; in a batch, the span of the batch.

        Args:
            needed: Whether to start the span of the batch.
        """
        if self._batch is not None and self._batch_span is None and needed:
            op, view_id, top_k = self._batch
            self._batch_span = self._factory.start(
                _BATCH,
                self._parent.context,
                self._start_ns,
                {
                    names.OP.name: printable(op),
                    names.VIEW.name: printable(view_id),
                    names.TOP_K.name: top_k,
                },
            )
            context = trace.set_span_in_context(self._batch_span, self._parent.context)
            self._parent = ParentContext.of(context)
        return self._parent

    def forward(self, flight: Flight) -> ForwardSpan:
        """Start the spans of a forward call and of its misses.

        Args:
            flight: The call. Its origins are the questions; its trace id is set.
        """
        context = self.parent().context
        batch = self._batch is not None
        span = ForwardSpan(self._factory, flight.origins, self._start_ns, context, batch=batch)
        flight.trace_id = span.trace_id
        self._forwards.append(span)
        return span

    def end(self, outcomes: Sequence[Any], error: str | None, end_ns: int) -> None:
        """End the spans of the misses and of the batch.

        Args:
            outcomes: Outcomes of all lookups of the call; empty where the call was
                stopped before it computed. Then its spans are discarded.
            error: Class of the exception of a failed call.
            end_ns: End of the call.
        """
        if not outcomes:
            return
        for forward in self._forwards:
            forward.end_lookups(end_ns if self._batch is None else forward.end_ns)
        if self._batch_span is not None:
            misses = sum(outcome.result == "miss" for outcome in outcomes)
            self._batch_span.set_attribute(names.BATCH_HITS.name, len(outcomes) - misses)
            self._batch_span.set_attribute(names.BATCH_MISSES.name, misses)
            self._factory.end(self._batch_span, _BATCH, end_ns, error)


class ForwardSpan:
    """Span of one forward call, with the spans of its misses.

    The span of a single miss is the parent of the forward span. In a batch they have
    the same parent, and the forward span links to the misses.

    Args:
        factory: Makes the spans.
        questions: The misses, in order.
        start_ns: Start of the lookups.
        parent: Context with the parent of the lookups.
        batch: Whether the call is a batch.

    Attributes:
        trace_id: Trace of the span, 32 hex digits; None if it is not sampled.
        end_ns: End of the call.
    """

    def __init__(
        self,
        factory: SpanFactory,
        questions: Sequence[Question],
        start_ns: int,
        parent: Context,
        *,
        batch: bool,
    ) -> None:
        self.end_ns = start_ns
        self._factory = factory
        self._error: str | None = None
        self._lookups = [
            factory.start_lookup(question, "miss", start_ns, parent) for question in questions
        ]
        links = []
        if batch:
            links = [trace.Link(one.get_span_context()) for one in self._lookups[:MAX_LINKS]]
        else:
            parent = trace.set_span_in_context(self._lookups[0], parent)
        attributes: dict[str, Any] = {
            names.OPERATION.name: "score",
            names.OP.name: printable(questions[0].op),
            names.VIEW.name: printable(questions[0].view_id),
            names.BATCH_SIZE.name: len(questions),
        }
        if factory.model is not None:
            attributes[names.MODEL.name] = factory.model
        now = factory.clock.perf_counter_ns()
        self._span = factory.start(_FORWARD, parent, now, attributes, links)
        self._context = trace.set_span_in_context(self._span, parent)
        self.trace_id = ParentContext.of(self._context).trace_id

    def wrap(self, compute: Callable[[], T]) -> Callable[[], T]:
        """Return a compute that runs with the forward span as the current one.

        `Flight.run` calls it in a copy of the context, which ends with the call.
        """

        def computed() -> T:
            otel_context.attach(self._context)
            return compute()

        return computed

    def end(self, flight: Flight) -> None:
        """End the forward span when its call has ended."""
        # the flight has no end where an interrupt came first
        self.end_ns = flight.end_ns or self._factory.clock.perf_counter_ns()
        self._error = flight.error
        counts = [(tokens, reused or 0) for tokens, reused in flight.token_counts() if tokens]
        if counts:
            self._span.set_attribute(names.INPUT_TOKENS.name, sum(tokens for tokens, _ in counts))
            if reused := sum(reused for _, reused in counts):
                self._span.set_attribute(names.REUSED_TOKENS.name, reused)
        self._factory.end(self._span, _FORWARD, self.end_ns, self._error)

    def end_lookups(self, end_ns: int) -> None:
        """End the spans of the misses."""
        for lookup in self._lookups:
            self._factory.end(lookup, LOOKUP, end_ns, self._error)
