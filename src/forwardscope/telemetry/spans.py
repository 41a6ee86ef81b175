"""The spans of a backend's lookups.

A miss is a live span, and so is its forward pass, which is the current span
while the model runs. A hit is over before a span could be started: its two
clock readings are kept, and its span is made later in another thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from forwardscope.core.batch import Answer
from forwardscope.core.clock import Clock
from forwardscope.core.flight import ForwardPass
from forwardscope.telemetry import names
from forwardscope.telemetry.deferred import DeferredSpans
from forwardscope.telemetry.maker import LOOKUP, Outcome, Question, SpanMaker, mark_failed
from forwardscope.telemetry.passes import BatchSpan, SpannedPass

__all__ = ["DEFAULT_BUDGET", "NOWHERE", "LookupSpans", "Place", "SpanDelivery"]

#: Hit spans a probe.
DEFAULT_BUDGET: Final = 2000

_CLOSE_TIMEOUT_S = 5.0
#: How often a miss or a batch looks for a tracer where there is none, in nanoseconds.
_LOOK_EVERY_NS = 100_000_000


class Place(NamedTuple):
    """What a lookup hangs under.

    Attributes:
        context: The OpenTelemetry context.
        trace_id: Its trace, 32 hex digits; None where it is not sampled, so its spans are nowhere.
        parent_id: Its span, 16 hex digits; None likewise.
    """

    context: Context
    trace_id: str | None
    parent_id: str | None

    @classmethod
    def of(cls, context: Context) -> Place:
        """Return the place that a context is."""
        found = trace.get_current_span(context).get_span_context()
        trace_id = parent_id = None
        if found.is_valid and found.trace_flags.sampled:
            trace_id = trace.format_trace_id(found.trace_id)
            parent_id = trace.format_span_id(found.span_id)
        return cls(context, trace_id, parent_id)


#: Under no span at all.
NOWHERE: Final = Place(Context(), None, None)


class SpanDelivery(Protocol):
    """Where a program takes its ended spans, if it wants to account for them."""

    def wait_for_room(self) -> None:
        """Return when more spans can be ended without loss, or when it is too late for that."""
        ...

    def outcomes(self) -> Mapping[tuple[str, Outcome], int]:
        """Return how many spans of a name were exported or dropped, or are pending."""
        ...


class LookupSpans:
    """Makes the spans of one backend's lookups and counts what became of them.

    Without a recording tracer it does nothing: no span, no thread. A global
    tracer provider that is set later is noticed at the next probe, and at a
    miss or a batch within a tenth of a second. Safe under threads.

    Args:
        provider: Whose tracer to use; None means the global one.
        budget: Hit spans a probe (from one `probe_began` to the next); None for
            no limit. What is beyond it is counted as elided.
        clock: What the lookups are timed with.

    Raises:
        ValueError: The budget is negative.

    Attributes:
        active: Whether lookups have spans now.
        next_look_ns: The clock when `look` has something to do again; past while it is active.
        delivery: Where the program accounts for ended spans; None in library
            use, where they go to its own tracer provider and count as ended.
    """

    def __init__(
        self, provider: trace.TracerProvider | None, budget: int | None, clock: Clock
    ) -> None:
        if budget is not None and budget < 0:
            raise ValueError(f"span_budget must be 0 or more, or None for no limit; got {budget}")
        self.active = False
        self.delivery: SpanDelivery | None = None
        self._maker = SpanMaker(provider, clock)
        self._deferred = DeferredSpans(self._maker.make_lookup, self._pace)
        self._outside = NOWHERE.context
        self._last = (self._outside, self._outside, NOWHERE)
        self.next_look_ns = 0
        self._lock = threading.Lock()
        self._budget = budget
        self._left = budget
        self._closed = False
        self.refresh()

    # -- state ------------------------------------------------------------------------------

    @property
    def model(self) -> str | None:
        """What forward spans call the model; can be assigned."""
        return self._maker.model

    @model.setter
    def model(self, name: str | None) -> None:
        self._maker.model = name

    @property
    def used(self) -> bool:
        """Whether lookups have or had spans."""
        return self._maker.used

    def refresh(self) -> None:
        """Look whether there is a recording tracer by now."""
        if not (self.active or self._closed):
            self._maker.find_tracer()
            self.active = self._maker.active
            if self.active:
                self.next_look_ns = 0

    def look(self, now_ns: int) -> None:
        """Look whether there is a recording tracer by now, but not too often: it takes a while.

        Args:
            now_ns: The clock now.
        """
        if now_ns >= self.next_look_ns and not self.active:
            self.next_look_ns = now_ns + _LOOK_EVERY_NS
            self.refresh()

    def probe_began(self, *, inside: bool) -> None:
        """Begin a new budget; lookups of threads without a span of their own hang here now.

        Args:
            inside: False where no probe is current from now on; such lookups
                then have no parent.
        """
        self.refresh()
        if self.active:
            self._outside = otel_context.get_current() if inside else Context()
            self._deferred.nudge()
            with self._lock:
                self._left = self._budget

    def outcomes(self) -> Counter[tuple[str, Outcome]]:
        """Return how many spans, by name and outcome."""
        counts = self._maker.outcomes()
        if pending := self._deferred.pending:
            counts[LOOKUP, "pending"] = pending
        if self.delivery is None:
            return counts
        own = {key: n for key, n in counts.items() if key[1] != "ended"}
        return Counter(own) + Counter(self.delivery.outcomes())

    def elided(self) -> int:
        """Return how many lookups have no span, being beyond the budget or not sampled."""
        return self._maker.outcomes()[LOOKUP, "elided"]

    def flush(self, timeout_s: float) -> bool:
        """Wait until the spans of all lookups so far are made; say whether they are."""
        return self._deferred.flush(timeout_s)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Make what is still to be made and stop; may be called twice."""
        self._closed = True
        self.active = False
        left = self._deferred.close(timeout_s)
        self._maker.settle(LOOKUP, "dropped", left)

    # -- spans around something ---------------------------------------------------------------

    @contextmanager
    def around(self, span: names.Span, attributes: Mapping[str, Any]) -> Iterator[trace.Span]:
        """Make a span the current one while something runs.

        Yields:
            The span, for attributes that are known later; one that does nothing
            where there is no recording tracer.
        """
        self.refresh()
        if not self.active:
            yield trace.INVALID_SPAN
            return
        maker, clock = self._maker, self._maker.clock
        parent = otel_context.get_current()
        live = maker.start(span.name, parent, clock.perf_counter_ns(), attributes)
        try:
            with trace.use_span(live, record_exception=False, set_status_on_exception=False):
                yield live
        except BaseException as error:
            mark_failed(live, type(error).__name__)
            raise
        finally:
            maker.end(live, span.name, clock.perf_counter_ns())

    # -- lookups ------------------------------------------------------------------------------

    def place(self) -> Place:
        """Return what a lookup made here and now hangs under."""
        context = otel_context.get_current()
        last, outside, place = self._last  # one read: the three are of one moment
        if last is not context or outside is not self._outside:
            outside = self._outside
            inside = trace.get_current_span(context).get_span_context().is_valid
            place = Place.of(context if inside else outside)
            self._last = (context, outside, place)
        return place

    def answered(
        self, question: Question, result: str, start_ns: int, end_ns: int, parent: Context
    ) -> None:
        """Remember a lookup that paid no forward pass, to make its span later."""
        if self._left is not None and not self._within_budget():
            self._maker.settle(LOOKUP, "elided")
        elif not self._deferred.offer((question, result, start_ns, end_ns, parent)):
            self._maker.settle(LOOKUP, "dropped")

    def forward(self, question: Question, start_ns: int) -> SpannedPass:
        """Return the forward pass of a single miss."""
        self._deferred.nudge()  # the model is about to leave the interpreter to others
        return SpannedPass(self._maker, [question], start_ns, self.place().context)

    def batch(self, op: str, view_id: str, top_k: int, start_ns: int) -> BatchSpan:
        """Return the span of a call with several questions."""
        self._deferred.nudge()
        return BatchSpan(self._maker, (op, view_id, top_k), start_ns, self.place().context)

    def end_batch(
        self,
        span: BatchSpan,
        answers: Sequence[tuple[Question, Answer]],
        forwards: Sequence[ForwardPass],
        error: str | None,
        end_ns: int,
    ) -> None:
        """End the spans of a call with several questions and of its lookups.

        Args:
            span: Of the call.
            answers: How each lookup was answered.
            forwards: The call's forward passes.
            error: Class of the exception where the call failed.
            end_ns: The clock now.
        """
        for forward in forwards:
            if isinstance(forward, SpannedPass):
                forward.end_lookups(forward.end_ns)
        hits = [(question, answer) for question, answer in answers if answer.result != "miss"]
        if hits and (self._left is None or self._left > 0):
            span.start()
        for question, answer in hits:
            end = answer.start_ns + answer.wall_ns
            self.answered(question, answer.result, answer.start_ns, end, span.inside)
        span.end(len(hits), len(answers) - len(hits), error, end_ns)

    # -- later ----------------------------------------------------------------------------------

    def _within_budget(self) -> bool:
        with self._lock:
            if self._left is None:
                return True
            within = self._left > 0
            self._left -= within
        return within

    def _pace(self) -> None:
        if self.delivery is not None:
            self.delivery.wait_for_room()
