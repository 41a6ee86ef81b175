"""Starting, ending and counting spans with the OpenTelemetry API."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Literal, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from forwardscope.core.clock import Clock
from forwardscope.core.forks import reset_in_children
from forwardscope.core.keys import Question
from forwardscope.telemetry import names
from forwardscope.text import printable

__all__ = ["LOOKUP", "NO_PARENT", "ParentContext", "SpanFactory", "SpanOutcome", "mark_failed"]

LOOKUP: Final = names.LOOKUP.name
_OP: Final = names.OP.name
_VIEW: Final = names.VIEW.name
_PROMPT_HASH: Final = names.PROMPT_HASH.name
_TOP_K: Final = names.TOP_K.name
_RESULT: Final = names.CACHE_RESULT.name

#: Outcome of a span; a pending span is not made or not delivered so far.
SpanOutcome = Literal["pending", "ended", "exported", "dropped", "elided"]


class ParentContext(NamedTuple):
    """Context with the parent of a lookup's span.

    Attributes:
        context: OpenTelemetry context.
        trace_id: Trace of the parent, 32 hex digits; None without a sampled parent.
        parent_id: Id of the parent, 16 hex digits; None without a sampled parent.
    """

    context: Context
    trace_id: str | None
    parent_id: str | None

    @classmethod
    def of(cls, context: Context) -> ParentContext:
        """Return a context with the ids of its span."""
        found = trace.get_current_span(context).get_span_context()
        trace_id = parent_id = None
        if found.is_valid and found.trace_flags.sampled:
            trace_id = trace.format_trace_id(found.trace_id)
            parent_id = trace.format_span_id(found.span_id)
        return cls(context, trace_id, parent_id)

    @property
    def has_span(self) -> bool:
        """Whether the context has a span, sampled or not."""
        return trace.get_current_span(self.context).get_span_context().is_valid


#: The parent of lookups that have none.
NO_PARENT: Final = ParentContext(Context(), None, None)


class SpanFactory:
    """Starts and ends the spans of one tracer, and counts them by outcome.

    Safe under threads. One reentrant lock guards the counts, so a signal handler
    may read them.

    Args:
        provider: Provider of the tracer; None means the global one.
        clock: Clock of the spans.

    Attributes:
        active: Whether there is a recording tracer.
        clock: Clock of the spans.
        model: Name of the model in forward spans, or None.
    """

    def __init__(self, provider: trace.TracerProvider | None, clock: Clock) -> None:
        self.active = False
        self.clock: Final = clock
        self.model: str | None = None
        self._provider = provider
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._epoch_ns = clock.time_ns() - clock.perf_counter_ns()
        self._counts: Counter[tuple[str, SpanOutcome]] = Counter()
        self._warned = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.RLock()

    def find_tracer(self) -> None:
        """Get the tracer of the provider, and set `active` if it records."""
        provider = self._provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return  # a global provider may be set later
        self._tracer = provider.get_tracer(names.TRACER, _version())
        self.active = not isinstance(self._tracer, trace.NoOpTracer)

    def start(
        self,
        name: str,
        parent: Context,
        start_ns: int,
        attributes: Mapping[str, Any],
        links: Sequence[trace.Link] = (),
    ) -> trace.Span:
        """Start a span.

        If a sampler or processor of the program raises, the span counts as dropped,
        the first such error is a warning, and the lookup goes on.

        Args:
            name: Span name from names.py.
            parent: Context with the parent span.
            start_ns: Start of the span.
            attributes: Attributes at the start.
            links: Links to other spans.
        """
        try:
            return self._tracer.start_span(
                name,
                context=parent,
                attributes=attributes,
                links=links,
                start_time=start_ns + self._epoch_ns,
                record_exception=False,
                set_status_on_exception=False,
            )
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything
            self._warn(error)
            return trace.INVALID_SPAN

    def start_lookup(
        self, question: Question, result: str, start_ns: int, parent: Context
    ) -> trace.Span:
        """Start the span of one lookup."""
        attributes = {
            _OP: printable(question.op),
            _VIEW: printable(question.view_id),
            _PROMPT_HASH: question.prompt_hash,
            _TOP_K: question.top_k,
            _RESULT: result,
        }
        return self.start(LOOKUP, parent, start_ns, attributes)

    def end(self, span: trace.Span, name: str, end_ns: int, error: str | None = None) -> None:
        """End a span and count it; with an error, mark it as failed."""
        outcome: SpanOutcome = "ended"
        if span is trace.INVALID_SPAN:
            outcome = "dropped"
        elif not span.is_recording():  # not sampled
            outcome = "elided"
        try:
            if error is not None:
                mark_failed(span, error)
            span.end(end_ns + self._epoch_ns)
        except Exception as raised:  # noqa: BLE001 - foreign code may raise anything
            outcome = "dropped"
            self._warn(raised)
        self.count(name, outcome)

    def count(self, name: str, outcome: SpanOutcome) -> None:
        """Count a span by its outcome."""
        with self._lock:
            self._counts[name, outcome] += 1

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by name and outcome, as of one moment."""
        with self._lock:
            return +self._counts

    def _warn(self, error: Exception) -> None:
        warn, self._warned = not self._warned, True
        if warn:
            with suppress(
                RuntimeWarning
            ):  # where warnings are errors, no lookup fails for its span
                warnings.warn(
                    f"span not made: {type(error).__name__} in the tracer provider; "
                    "lookups go on, such spans are counted as dropped",
                    RuntimeWarning,
                    stacklevel=2,
                )


def mark_failed(span: trace.Span, error: str) -> None:
    """Set status and `error.type`, but not the message, which may quote a prompt."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE.name, error)


@cache
def _version() -> str:
    return version("forwardscope")  # reads a file
