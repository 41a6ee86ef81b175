"""The spans of a backend's lookups.

A miss is a live span, and so is its forward call, which is the current span
while the model runs. A hit is over before a span could be started: its two
clock readings are kept, and its span is made later in another thread.
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
from forwardscope.core.keys import Question, printable
from forwardscope.core.single_flight import Flight
from forwardscope.telemetry import names
from forwardscope.telemetry.hit_span_queue import FinishedLookup, HitSpanQueue
from forwardscope.telemetry.span_factory import (
    LOOKUP,
    ParentContext,
    SpanFactory,
    SpanOutcome,
)

__all__ = ["DEFAULT_BUDGET", "MAX_LINKS", "CallSpans", "ForwardSpan", "LookupSpans", "SpanDelivery"]

T = TypeVar("T")

#: Op, view id and top_k of a batch.
BatchKey = tuple[str, str, int]

#: Hit spans a probe.
DEFAULT_BUDGET: Final = 2000
#: Lookups that a batch's forward span links to, at most.
MAX_LINKS: Final = 128

_FORWARD: Final = names.FORWARD.name
_BATCH: Final = names.LOOKUP_BATCH.name
_CLOSE_TIMEOUT_S = 5.0
_LOOK_EVERY_NS = 100_000_000


class SpanDelivery(Protocol):
    """Where a program delivers its ended spans, if it wants to account for them."""

    def outcomes(self) -> Mapping[tuple[str, SpanOutcome], int]:
        """Return how many spans of a name were exported or dropped, or are pending."""
        ...


class LookupSpans:
    """Makes the spans of one backend's lookups and counts what became of them.

    Without a recording tracer it does nothing: no span, no thread. A global
    tracer provider that is set later is noticed at the next probe, and at a
    miss or a batch within a tenth of a second.
    Safe under threads.

    Args:
        provider: Whose tracer to use; None means the global one.
        budget: Hit spans a probe (from one `probe_began` to the next); None for
            no limit. What is beyond it is counted as elided.
        clock: What the lookups are timed with.

    Raises:
        ValueError: The budget is negative.

    Attributes:
        active: Whether lookups have spans now.
        hits: Where finished lookups wait for their spans.
        delivery: Where the program accounts for ended spans; None in library
            use, where they go to its own tracer provider and count as ended.
    """

    def __init__(
        self, provider: trace.TracerProvider | None, budget: int | None, clock: Clock
    ) -> None:
        self.active = False
        self.delivery: SpanDelivery | None = None
        self._factory = SpanFactory(provider, clock)
        self.hits: Final = HitSpanQueue(self._make_finished, budget)
        self._closed = False
        self._next_look_ns = 0
        self.refresh()

    @property
    def model(self) -> str | None:
        """What forward spans call the model; can be assigned."""
        return self._factory.model

    @model.setter
    def model(self, name: str | None) -> None:
        self._factory.model = name

    @property
    def used(self) -> bool:
        """Whether lookups have or had spans."""
        return self._factory.active

    def refresh(self) -> None:
        """Find a recording tracer, where there was none so far."""
        if not (self.active or self._closed):
            self._factory.find_tracer()
            if self._factory.active:
                self.hits.close_at_exit()
                self.active = True

    def look(self, now_ns: int) -> None:
        """Call `refresh`, at most ten times a second.

        Args:
            now_ns: The clock now.
        """
        if now_ns >= self._next_look_ns and not self.active:
            self._next_look_ns = now_ns + _LOOK_EVERY_NS
            self.refresh()

    def probe_began(self) -> None:
        """Renew the budget of hit spans."""
        self.refresh()
        self.hits.renew_budget()

    def call(self, parent: ParentContext, start_ns: int, batch: BatchKey | None) -> CallSpans:
        """Return the live spans of a call; see `CallSpans`."""
        return CallSpans(self._factory, parent, start_ns, batch)

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by name and outcome."""
        counts = self._factory.outcomes()
        if self.delivery is not None:
            ended = [key for key in counts if key[1] == "ended"]
            for key in ended:
                del counts[key]
            counts += Counter(self.delivery.outcomes())
        # after what is ended, so that a span that is made meanwhile is not counted twice
        counts[LOOKUP, "pending"] += self.hits.pending
        counts[LOOKUP, "elided"] += self.hits.elided
        counts[LOOKUP, "dropped"] += self.hits.dropped
        return +counts

    def elided(self) -> int:
        """Return how many lookups have no span, being beyond the budget or not sampled."""
        return self.hits.elided + self._factory.outcomes()[LOOKUP, "elided"]

    def flush(self, timeout_s: float) -> bool:
        """Wait until the spans of all lookups so far are made; say whether they are."""
        return self.hits.flush(timeout_s)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Make the spans that are still to be made and stop; may be called twice."""
        self._closed = True
        self.active = False
        self.hits.close(timeout_s)

    @contextmanager
    def around(self, span: names.Span, attributes: Mapping[str, Any]) -> Iterator[trace.Span]:
        """Make a span the current one for the length of a block.

        Yields:
            The span, for attributes that are known later; one that does nothing
            where there is no recording tracer.
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
    """The live spans of one call of `cached` or `cached_batch`.

    A single call has those of its miss. A batch has one of its own, started as
    soon as another span needs it as its parent.

    Args:
        factory: Makes them.
        parent: The parent of the lookup, or of the batch.
        start_ns: The clock when the call began.
        batch: Where it is a batch, what its lookups have in common.
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
        """Return the parent of the call's lookups: the batch's span, where it is one.

        Args:
            needed: Whether a lookup has a span; else the batch's is not started for it.
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
            inside = trace.set_span_in_context(self._batch_span, self._parent.context)
            self._parent = ParentContext.of(inside)
        return self._parent

    def forward(self, flight: Flight) -> ForwardSpan:
        """Start the spans of a forward call, and of the misses that it computes.

        Args:
            flight: The call; its origins are the questions, and it gets its trace id.
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
            outcomes: Of all lookups of the call. Without any the call was stopped
                before it computed, and its spans are given up.
            error: Class of the exception where the call failed.
            end_ns: The clock now.
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
    """The span of one forward call, with those of the misses that it computes.

    The span of a single miss is the parent of its forward span; in a batch the
    forward span is beside those of the misses and links to them.

    Args:
        factory: Makes them.
        questions: What is computed, in order.
        start_ns: The clock when the lookups began.
        parent: The context whose span is the lookups' parent.
        batch: Whether it is a batch.

    Attributes:
        trace_id: The trace that has it, 32 hex digits; None where it is not sampled.
        end_ns: The clock when the call ended.
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
        """Return compute with the forward span as the current one, for `Flight.run`."""

        def computed() -> T:
            token = otel_context.attach(self._context)
            try:
                return compute()
            finally:
                otel_context.detach(token)

        return computed

    def end(self, flight: Flight) -> None:
        """End the forward span of a call that has ended."""
        self.end_ns = flight.end_ns or self._factory.clock.perf_counter_ns()  # 0: interrupted before
        self._error = flight.error
        counts = [(known, reused or 0) for known, reused in flight.token_counts() if known]
        if counts:
            self._span.set_attribute(names.INPUT_TOKENS.name, sum(known for known, _ in counts))
            if reused := sum(reused for _, reused in counts):
                self._span.set_attribute(names.REUSED_TOKENS.name, reused)
        self._factory.end(self._span, _FORWARD, self.end_ns, self._error)

    def end_lookups(self, end_ns: int) -> None:
        """End the spans of the misses."""
        for lookup in self._lookups:
            self._factory.end(lookup, LOOKUP, end_ns, self._error)
