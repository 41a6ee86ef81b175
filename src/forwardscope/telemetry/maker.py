"""Starting, ending and counting spans, through the OpenTelemetry API alone."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode

from forwardscope.core.clock import Clock
from forwardscope.core.forks import reset_in_children
from forwardscope.core.keys import printable
from forwardscope.telemetry import names
from forwardscope.telemetry.deferred import AnsweredLookup

__all__ = ["LOOKUP", "Outcome", "Question", "SpanMaker", "mark_failed"]

LOOKUP: Final = names.LOOKUP.name
_OP: Final = names.OP.name
_VIEW: Final = names.VIEW.name
_PROMPT_HASH: Final = names.PROMPT_HASH.name
_TOP_K: Final = names.TOP_K.name
_RESULT: Final = names.CACHE_RESULT.name

#: (op, view id, prompt hash, top_k): what a span says of a question.
Question = tuple[str, str, str, int]
#: What became of a span; `pending` is one still to be made or to be delivered.
Outcome = Literal["pending", "ended", "exported", "dropped", "elided"]


class SpanMaker:
    """A tracer, the clock that times its spans, and the count of what became of them.

    Safe under threads.

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
        self._counts: Counter[tuple[str, Outcome]] = Counter()
        self._ended_later = 0  # by the thread that makes spans later, so without the lock
        self._warned = False
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Take a lock that nobody holds."""
        self._lock = threading.Lock()

    @property
    def used(self) -> bool:
        """Whether a recording tracer was ever found."""
        return not isinstance(self._tracer, trace.NoOpTracer)

    def find_tracer(self) -> None:
        """Look whether there is a recording tracer by now."""
        provider = self._provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # none was set so far
            return
        self._tracer = provider.get_tracer(names.TRACER, _version())
        self.active = self.used

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
            parent: The context that it hangs under.
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
        """Start the span of one question."""
        op, view_id, digest, top_k = question
        attributes = {
            _OP: printable(op),
            _VIEW: printable(view_id),
            _PROMPT_HASH: digest,
            _TOP_K: top_k,
            _RESULT: result,
        }
        return self.start(LOOKUP, parent, start_ns, attributes)

    def make_lookup(self, lookup: AnsweredLookup) -> None:
        """Make the span of one that is over; for one thread at a time."""
        question, result, start_ns, end_ns, parent = lookup
        span = self.start_lookup(question, result, start_ns, parent)
        if span is not trace.INVALID_SPAN and span.is_recording():
            try:
                span.end(end_ns + self._epoch_ns)
            except Exception as error:  # noqa: BLE001 - it may be anybody's code
                self.settle(LOOKUP, "dropped")
                self._warn(error)
            else:
                self._ended_later += 1
        else:
            self.end(span, LOOKUP, end_ns)

    def end(self, span: trace.Span, name: str, end_ns: int) -> None:
        """End a span and count it."""
        outcome: Outcome = "ended"
        if span is trace.INVALID_SPAN:
            outcome = "dropped"
        elif not span.is_recording():  # the sampler declined it: on purpose, like one over budget
            outcome = "elided"
        self.settle(name, outcome)
        try:
            span.end(end_ns + self._epoch_ns)
        except Exception as error:  # noqa: BLE001 - it may be anybody's code
            with self._lock:
                self._counts[name, "dropped"] += 1
                self._counts[name, outcome] -= 1
            self._warn(error)

    def settle(self, name: str, outcome: Outcome, n: int = 1) -> None:
        """Count what became of spans."""
        with self._lock:
            self._counts[name, outcome] += n

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

    def outcomes(self) -> Counter[tuple[str, Outcome]]:
        """Return how many spans, by name and outcome, as of one moment."""
        with self._lock:
            counts = +self._counts
        if later := self._ended_later:
            counts[LOOKUP, "ended"] += later
        return counts


def mark_failed(span: trace.Span, error: str) -> None:
    """Set status and `error.type`, without the message, which may quote a prompt."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE.name, error)


@cache
def _version() -> str:
    return version("forwardscope")  # reads a file; asked again at each miss without a tracer
