"""The spans of a backend's lookups, made through the OpenTelemetry API alone.

A miss is a live span, and so is its forward pass, which is the current span
while the model runs. A hit is over before a span could be started: its two
clock readings are kept, and its span is made later in another thread.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Literal, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from forwardscope.core.batch import Answer
from forwardscope.core.clock import Clock
from forwardscope.core.flight import ForwardPass
from forwardscope.core.keys import printable
from forwardscope.telemetry import names
from forwardscope.telemetry.deferred import AnsweredLookup, DeferredSpans

__all__ = ["DEFAULT_BUDGET", "LookupSpans", "Outcome", "Question", "SpanDelivery", "SpannedPass"]

#: Hit spans a probe.
DEFAULT_BUDGET: Final = 2000

_LOOKUP: Final = names.LOOKUP.name
_MAX_LINKS = 128
_CLOSE_TIMEOUT_S = 5.0

#: (op, view id, prompt hash, top_k): what a span says of a question.
Question = tuple[str, str, str, int]
#: What became of a span; `pending` is one still to be made or to be delivered.
Outcome = Literal["pending", "ended", "exported", "dropped", "elided"]


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
    tracer provider that is set later is noticed at the next miss, batch or
    probe. Safe under threads.

    Args:
        provider: Whose tracer to use; None means the global one.
        budget: Hit spans a probe (from one `probe_began` to the next); None for
            no limit. What is beyond it is counted as elided.
        clock: What the lookups are timed with.

    Attributes:
        active: Whether there is a recording tracer.
        model: What forward spans call the model, or None.
        delivery: Where the program accounts for ended spans; None in library
            use, where they go to its own tracer provider and count as ended.
    """

    def __init__(
        self, provider: trace.TracerProvider | None, budget: int | None, clock: Clock
    ) -> None:
        if budget is not None and budget < 0:
            raise ValueError(f"span_budget must be 0 or more, or None for no limit; got {budget}")
        self.active = False
        self.model: str | None = None
        self.delivery: SpanDelivery | None = None
        self._provider = provider
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._budget = budget
        self._left = budget
        self._clock = clock
        self._epoch_ns = clock.time_ns() - clock.perf_counter_ns()
        self._outside = Context()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Outcome]] = Counter()
        self._deferred = DeferredSpans(self._make, self._pace)
        self._closed = False
        self.refresh()

    # -- state ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look whether there is a recording tracer by now."""
        if self.active or self._closed:
            return
        provider = self._provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # none was set so far
            return
        tracer = provider.get_tracer(names.TRACER, version("forwardscope"))
        if not isinstance(tracer, trace.NoOpTracer):
            self._tracer = tracer
            self.active = True

    @property
    def used(self) -> bool:
        """Whether there is a recording tracer, or was one before `close`."""
        return not isinstance(self._tracer, trace.NoOpTracer)

    def probe_began(self, inside: bool) -> None:
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
        with self._lock:
            counts = self._counts.copy()
        if self.delivery is None:
            return counts
        own = {key: n for key, n in counts.items() if key[1] != "ended"}
        return Counter(own) + Counter(self.delivery.outcomes())

    def elided(self) -> int:
        """Return how many lookups have no span, being beyond the budget or not sampled."""
        return self._counts[_LOOKUP, "elided"]

    def flush(self, timeout_s: float) -> bool:
        """Wait until the spans of all lookups so far are made; say whether they are."""
        return self._deferred.flush(timeout_s)

    def close(self, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        """Make what is still to be made and stop; may be called twice."""
        self._closed = True
        self.active = False
        left = self._deferred.close(timeout_s)
        self._settle(_LOOKUP, "dropped", "pending", left)

    # -- spans that last ----------------------------------------------------------------------

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
        live = self._start(span.name, otel_context.get_current(), self._now(), attributes)
        try:
            with trace.use_span(live, record_exception=False, set_status_on_exception=False):
                yield live
        except BaseException as error:
            mark_failed(live, type(error).__name__)
            raise
        finally:
            self._end(live, span.name, self._now())

    # -- lookups ------------------------------------------------------------------------------

    def parent(self) -> Context:
        """Return the context that a lookup made here and now hangs under."""
        context = otel_context.get_current()
        if trace.get_current_span(context).get_span_context().is_valid:
            return context
        return self._outside

    def answered(
        self, question: Question, result: str, start_ns: int, end_ns: int, parent: Context
    ) -> None:
        """Remember a lookup that paid no forward pass, to make its span later."""
        if self._within_budget():
            lookup = AnsweredLookup(question, result, start_ns, end_ns, parent)
            if not self._deferred.offer(lookup):
                self._settle(_LOOKUP, "dropped", "pending")

    def forward(self, question: Question, start_ns: int, parent: Context) -> SpannedPass:
        """Return the forward pass of a single miss."""
        return SpannedPass(self, [question], start_ns, parent)

    def batch(self, op: str, view_id: str, top_k: int, start_ns: int) -> BatchSpan:
        """Return the span of a call with several questions; it is made when needed."""
        attributes = {
            names.OP.name: printable(op),
            names.VIEW.name: printable(view_id),
            names.TOP_K.name: top_k,
        }
        return BatchSpan(self, attributes, start_ns)

    @property
    def budget_left(self) -> bool:
        """Whether the next hit would have a span."""
        return self._left is None or self._left > 0

    def _within_budget(self) -> bool:
        with self._lock:
            if self._left is None:
                within = True
            else:
                within = self._left > 0
                self._left -= within
            self._counts[_LOOKUP, "pending" if within else "elided"] += 1
        return within

    # -- making and ending --------------------------------------------------------------------

    def _start(
        self,
        name: str,
        parent: Context,
        start_ns: int,
        attributes: Mapping[str, Any],
        links: Sequence[trace.Link] = (),
    ) -> trace.Span:
        return self._tracer.start_span(
            name,
            context=parent,
            attributes=attributes,
            links=links,
            start_time=start_ns + self._epoch_ns,
            record_exception=False,
            set_status_on_exception=False,
        )

    def _start_lookup(
        self, question: Question, result: str, start_ns: int, parent: Context
    ) -> trace.Span:
        op, view_id, digest, top_k = question
        attributes = {
            names.OP.name: printable(op),
            names.VIEW.name: printable(view_id),
            names.PROMPT_HASH.name: digest,
            names.TOP_K.name: top_k,
            names.CACHE_RESULT.name: result,
        }
        return self._start(_LOOKUP, parent, start_ns, attributes)

    def _end(self, span: trace.Span, name: str, end_ns: int, before: Outcome | None = None) -> None:
        # a span that the sampler declined is on purpose not there, as is one beyond the budget
        self._settle(name, "ended" if span.is_recording() else "elided", before)
        span.end(end_ns + self._epoch_ns)

    def _make(self, lookup: AnsweredLookup) -> None:
        span = self._start_lookup(lookup.question, lookup.result, lookup.start_ns, lookup.parent)
        self._end(span, _LOOKUP, lookup.end_ns, "pending")

    def _pace(self) -> None:
        if self.delivery is not None:
            self.delivery.wait_for_room()

    def _settle(self, name: str, outcome: Outcome, before: Outcome | None, n: int = 1) -> None:
        """Count what became of spans, and that they are no longer what they were `before`."""
        with self._lock:
            self._counts[name, outcome] += n
            if before is not None:
                self._counts[name, before] -= n

    def _now(self) -> int:
        return self._clock.perf_counter_ns()


class SpannedPass(ForwardPass):
    """A forward pass with its span and those of the lookups that pay for it.

    A single lookup's forward span hangs under the lookup's; that of a batch
    stands beside them and links to them.

    Args:
        spans: Makes them.
        questions: What is computed, in order.
        start_ns: The clock when their lookups began.
        parent: The context that the lookups hang under.
        batch: Whether it is a batch.

    Attributes:
        parent: The same.
    """

    __slots__ = ("_batch", "_forward", "_lookups", "_questions", "_spans", "_token", "parent")

    def __init__(
        self,
        spans: LookupSpans,
        questions: Sequence[Question],
        start_ns: int,
        parent: Context,
        *,
        batch: bool = False,
    ) -> None:
        super().__init__(spans._clock, len(questions))
        self._spans = spans
        self.parent = parent
        self._batch = batch
        self._questions = questions
        self._lookups = [
            spans._start_lookup(question, "miss", start_ns, parent) for question in questions
        ]

    def __enter__(self) -> ForwardPass:
        spans, (op, view_id, _, _) = self._spans, self._questions[0]
        parent, links = self.parent, []
        if self._batch:
            links = [trace.Link(one.get_span_context()) for one in self._lookups[:_MAX_LINKS]]
        else:
            parent = trace.set_span_in_context(self._lookups[0], parent)
        attributes = {
            names.OPERATION.name: "score",
            names.OP.name: printable(op),
            names.VIEW.name: printable(view_id),
            names.BATCH_SIZE.name: self.size,
        }
        if spans.model is not None:
            attributes[names.MODEL.name] = spans.model
        self._forward = spans._start(names.FORWARD.name, parent, spans._now(), attributes, links)
        found = self._forward.get_span_context()
        if found.trace_flags.sampled:
            self.trace_id = trace.format_trace_id(found.trace_id)
        self._token = otel_context.attach(trace.set_span_in_context(self._forward, parent))
        spans._deferred.nudge()  # the model is about to leave the interpreter to others
        return super().__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc, traceback)
        otel_context.detach(self._token)
        if self.tokens:
            self._forward.set_attribute(names.INPUT_TOKENS.name, sum(map(int, self.tokens)))
        if self.error is not None:
            mark_failed(self._forward, self.error)
        self._spans._end(self._forward, names.FORWARD.name, self.end_ns)

    def end_lookups(self, end_ns: int) -> None:
        """End the spans of the lookups that paid for this pass."""
        for lookup in self._lookups:
            if self.error is not None:
                mark_failed(lookup, self.error)
            self._spans._end(lookup, _LOOKUP, end_ns)


class BatchSpan:
    """The span of one call with several questions, started when something hangs under it.

    Args:
        spans: Makes it.
        attributes: What is asked.
        start_ns: The clock when the call began.
    """

    def __init__(self, spans: LookupSpans, attributes: Mapping[str, Any], start_ns: int) -> None:
        self._spans = spans
        self._attributes = attributes
        self._start_ns = start_ns
        self._inside = spans.parent()
        self._span: trace.Span | None = None

    def forward(self, questions: Sequence[Question]) -> SpannedPass:
        """Return the forward pass of what is missing."""
        return SpannedPass(self._spans, questions, self._start_ns, self._context(), batch=True)

    def end(
        self,
        answers: Sequence[tuple[Question, Answer]],
        forwards: Sequence[ForwardPass],
        error: str | None,
        end_ns: int,
    ) -> Context:
        """End the spans of the call and of its lookups.

        Args:
            answers: How each lookup was answered.
            forwards: What `forward` returned, in order.
            error: Class of the exception where the call failed.
            end_ns: The clock now.

        Returns:
            The context that its lookups hang under.
        """
        for forward in forwards:
            if isinstance(forward, SpannedPass):
                forward.end_lookups(forward.end_ns)
        hits = [(question, answer) for question, answer in answers if answer.result != "miss"]
        if hits and self._spans.budget_left:
            self._context()
        for question, answer in hits:
            begin = answer.start_ns
            self._spans.answered(
                question, answer.result, begin, begin + answer.wall_ns, self._inside
            )
        if self._span is not None:
            self._span.set_attribute(names.BATCH_HITS.name, len(hits))
            self._span.set_attribute(names.BATCH_MISSES.name, len(answers) - len(hits))
            if error is not None:
                mark_failed(self._span, error)
            self._spans._end(self._span, names.LOOKUP_BATCH.name, end_ns)
        return self._inside

    def _context(self) -> Context:
        """Start the span if need be; return the context inside it."""
        if self._span is None:
            self._span = self._spans._start(
                names.LOOKUP_BATCH.name, self._inside, self._start_ns, self._attributes
            )
            self._inside = trace.set_span_in_context(self._span, self._inside)
        return self._inside


def mark_failed(span: trace.Span, error: str) -> None:
    """Set status and `error.type`, without the message, which may quote a prompt."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE.name, error)


def ids_of(parent: Context, own_trace: str | None = None) -> tuple[str | None, str | None]:
    """Return the ids of the trace and of the span that a lookup hangs under, as hex digits.

    Args:
        parent: The context that it hangs under.
        own_trace: The trace that it began itself, where it hangs under nothing.
    """
    found = trace.get_current_span(parent).get_span_context()
    if not found.is_valid:
        return own_trace, None
    return trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id)
