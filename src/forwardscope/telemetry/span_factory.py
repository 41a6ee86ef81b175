"""Starting, ending and counting spans, through the OpenTelemetry API alone."""

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
from forwardscope.core.keys import Question, printable
from forwardscope.telemetry import names

__all__ = ["LOOKUP", "NO_PARENT", "ParentContext", "SpanFactory", "SpanOutcome", "mark_failed"]

LOOKUP: Final = names.LOOKUP.name
_OP: Final = names.OP.name
_VIEW: Final = names.VIEW.name
_PROMPT_HASH: Final = names.PROMPT_HASH.name
_TOP_K: Final = names.TOP_K.name
_RESULT: Final = names.CACHE_RESULT.name

#: What became of a span; `pending` is one that is still to be made or delivered.
SpanOutcome = Literal["pending", "ended", "exported", "dropped", "elided"]


class ParentContext(NamedTuple):
    """The context whose span is the parent of a lookup's.

    Attributes:
        context: The OpenTelemetry context.
        trace_id: Its trace, 32 hex digits; None without a sampled span.
        parent_id: Its span, 16 hex digits; None likewise.
    """

    context: Context
    trace_id: str | None
    parent_id: str | None

    @classmethod
    def of(cls, context: Context) -> ParentContext:
        """Return a context with its ids."""
        found = trace.get_current_span(context).get_span_context()
        trace_id = parent_id = None
        if found.is_valid and found.trace_flags.sampled:
            trace_id = trace.format_trace_id(found.trace_id)
            parent_id = trace.format_span_id(found.span_id)
        return cls(context, trace_id, parent_id)

    @property
    def has_span(self) -> bool:
        """Whether there is a span, sampled or not."""
        return trace.get_current_span(self.context).get_span_context().is_valid


#: The parent of lookups that have none.
NO_PARENT: Final = ParentContext(Context(), None, None)


class SpanFactory:
    """A tracer, the clock that times its spans, and the count of what became of them.

    Safe under threads. Counts are kept under one reentrant lock, so a signal
    handler may read them.

    Args:
        provider: Whose tracer to use; None means the global one, as soon as
            there is one.
        clock: What spans are timed with.

    Attributes:
        active: Whether there is a recording tracer.
        clock: What spans are timed with.
        model: What forward spans call the model, or None.
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
        """Set `active` where there is a recording tracer by now."""
        provider = self._provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return  # a global provider may still be set
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

        A sampler or processor of the program's that raises costs the span, and
        never the lookup: it is counted as dropped, and warned of once.

        Args:
            name: One of names.py.
            parent: The context whose span is its parent.
            start_ns: The clock when it began.
            attributes: What it carries from the start.
            links: What it links to.
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
        except Exception as error:  # noqa: BLE001 - it may be anybody's code
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
        """End a span, as failed where there is an error, and count it."""
        outcome: SpanOutcome = "ended"
        if span is trace.INVALID_SPAN:
            outcome = "dropped"
        elif not span.is_recording():  # the sampler declined it: on purpose, like one over budget
            outcome = "elided"
        try:
            if error is not None:
                mark_failed(span, error)
            span.end(end_ns + self._epoch_ns)
        except Exception as raised:  # noqa: BLE001 - it may be anybody's code
            outcome = "dropped"
            self._warn(raised)
        self.count(name, outcome)

    def count(self, name: str, outcome: SpanOutcome) -> None:
        """Count what became of a span."""
        with self._lock:
            self._counts[name, outcome] += 1

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by name and outcome, as of one moment."""
        with self._lock:
            return +self._counts

    def _warn(self, error: Exception) -> None:
        warn, self._warned = not self._warned, True
        if warn:
            # where warnings are errors it is still only counted: no lookup fails for its span
            with suppress(RuntimeWarning):
                warnings.warn(
                    f"span not made: {type(error).__name__} in the tracer provider; "
                    "lookups go on, such spans are counted as dropped",
                    RuntimeWarning,
                    stacklevel=2,
                )


def mark_failed(span: trace.Span, error: str) -> None:
    """Set status and `error.type`, without the message, which may quote a prompt."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE.name, error)


@cache
def _version() -> str:
    return version("forwardscope")  # reads a file
