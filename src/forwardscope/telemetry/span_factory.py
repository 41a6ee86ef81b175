"""Starting, ending and counting spans with the OpenTelemetry API."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from forwardscope.core.clock import Clock
from forwardscope.core.forks import reset_in_children
from forwardscope.core.keys import ADAPTED_FAMILIES, Question, view_family
from forwardscope.telemetry import names
from forwardscope.text import printable

__all__ = [
    "NO_PARENT",
    "CallIds",
    "ForwardNames",
    "ParentContext",
    "SpanFactory",
    "SpanOutcome",
    "batch_attributes",
    "forward_attributes",
    "lookup_attributes",
    "lookup_name",
    "mark_failed",
    "more_attributes",
    "server_attributes",
]

#: View families that have a name of their own in forward spans.
_MAX_FAMILIES: Final = 20
_OP: Final = names.OP.name
_VIEW: Final = names.VIEW.name
_PROMPT_HASH: Final = names.PROMPT_HASH.name
_TOP_K: Final = names.TOP_K.name
_RESULT: Final = names.CACHE_RESULT.name
_OTHER_FORWARD: Final = names.FORWARD.named("other")
_LOOKUP_NAMES: Final = {
    result: names.LOOKUP.named(result) for result in ("hit", "miss", "coalesced", "error")
}

#: Outcome of a span; a pending span is not made or not delivered so far.
SpanOutcome = Literal["pending", "ended", "exported", "dropped", "elided"]


class CallIds(NamedTuple):
    """Ids of a forward call's span, which is sampled.

    Attributes:
        trace_id: Its trace, 32 hex digits.
        span_id: Its id, 16 hex digits.
    """

    trace_id: str
    span_id: str

    @classmethod
    def of(cls, span: trace.Span) -> CallIds | None:
        """Return the ids of a span; None if it is not sampled."""
        found = span.get_span_context()
        if not (found.is_valid and found.trace_flags.sampled):
            return None
        return cls(trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id))

    @classmethod
    def stored(cls, trace_id: str | None, span_id: str | None) -> CallIds | None:
        """Return the ids that a store has; None where it has none."""
        return None if trace_id is None or span_id is None else cls(trace_id, span_id)

    @lru_cache(maxsize=64)  # noqa: B019 - of values; the lookups of a batch share one
    def link(self) -> trace.Link:
        """Return a link to the span."""
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        ids = int(self.trace_id, 16), int(self.span_id, 16)
        return trace.Link(trace.SpanContext(*ids, is_remote=False, trace_flags=flags))


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
        return cls(context, *(CallIds.of(trace.get_current_span(context)) or (None, None)))

    @property
    def has_span(self) -> bool:
        """Whether the context has a span, sampled or not."""
        return trace.get_current_span(self.context).get_span_context().is_valid


#: The parent of lookups that have none.
NO_PARENT: Final = ParentContext(Context(), None, None)


class ForwardNames:
    """The names of forward spans, one a view family; later families share one. Not thread-safe."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of_view(self, view_id: str) -> str:
        """Return the name of the spans of a view's forward calls."""
        family = view_family(view_id)
        if family not in self._names and len(self._names) < _MAX_FAMILIES:
            self._names[family] = names.FORWARD.named(family)
        return self._names.get(family, _OTHER_FORWARD)


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
        adapter: Name of the adapter in those of the views `ft` and `scaled`, or None.
        provider_name: What runs the model, or None.
        server: Host and port of the server that holds the model, or None.
    """

    def __init__(self, provider: trace.TracerProvider | None, clock: Clock) -> None:
        self.active = False
        self.clock: Final = clock
        self.model: str | None = None
        self.adapter: str | None = None
        self.provider_name: str | None = None
        self.server: tuple[str, int] | None = None
        self._provider = provider
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._epoch_ns = clock.time_ns() - clock.perf_counter_ns()
        self._counts: Counter[tuple[str, SpanOutcome]] = Counter()
        self._forward_names = ForwardNames()
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
        self._tracer = provider.get_tracer(names.TRACER, _version(), schema_url=names.SCHEMA_URL)
        self.active = not isinstance(self._tracer, trace.NoOpTracer)

    def start(
        self,
        name: str,
        parent: Context,
        start_ns: int,
        attributes: Mapping[str, Any],
        links: Sequence[trace.Link] = (),
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> trace.Span:
        """Start a span.

        If a sampler or processor of the program raises, the span counts as dropped,
        the first such error is a warning, and the lookup goes on.

        Args:
            name: Name of the span.
            parent: Context with the parent span.
            start_ns: Start of the span.
            attributes: Attributes at the start.
            links: Links to other spans.
            kind: CLIENT for a call of a server.
        """
        try:
            return self._tracer.start_span(
                name,
                context=parent,
                kind=kind,
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
        self,
        question: Question,
        result: str,
        start_ns: int,
        parent: Context,
        call: CallIds | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> trace.Span:
        """Start the span of one lookup, with a link to its forward call.

        Args:
            question: The lookup key, with the prompt's hash.
            result: `hit`, `miss` or `coalesced`.
            start_ns: Start of the lookup.
            parent: Context with the parent span.
            call: The forward call that computed the value.
            more: Attributes that few lookups have; see `more_attributes`.
        """
        attributes = {**lookup_attributes(question, result), **more}
        links = () if call is None else (call.link(),)
        return self.start(lookup_name(result, None), parent, start_ns, attributes, links)

    def start_forward(
        self,
        question: Question,
        size: int,
        start_ns: int,
        parent: Context,
        *,
        verification: bool = False,
    ) -> trace.Span:
        """Start the span of a forward call of `size` prompts, which may verify stored values.

        Its kind is CLIENT if a server holds the model.
        """
        attributes = forward_attributes(question, size, self.model, self.adapter)
        if verification:
            attributes[names.VERIFICATION.name] = True
        if self.provider_name is not None:
            attributes[names.PROVIDER.name] = self.provider_name
        kind = SpanKind.INTERNAL
        if self.server is not None:
            attributes |= server_attributes(*self.server)
            kind = SpanKind.CLIENT
        with self._lock:
            name = self._forward_names.of_view(question.view_id)
        return self.start(name, parent, start_ns, attributes, kind=kind)

    def end(
        self, span: trace.Span, kind: names.Span, end_ns: int, error: str | None = None
    ) -> None:
        """End a span and count it; with an error, mark it as failed."""
        outcome: SpanOutcome = "ended"
        if span is trace.INVALID_SPAN:
            outcome = "dropped"
        elif not span.is_recording():  # not sampled
            outcome = "elided"
        try:
            if error is not None:
                mark_failed(span, error)
                if kind is names.LOOKUP:
                    span.update_name(lookup_name("miss", error))
            span.end(end_ns + self._epoch_ns)
        except Exception as raised:  # noqa: BLE001 - foreign code may raise anything
            outcome = "dropped"
            self._warn(raised)
        self.count(kind, outcome)

    def count(self, kind: names.Span, outcome: SpanOutcome) -> None:
        """Count a span by its outcome."""
        with self._lock:
            self._counts[kind.kind, outcome] += 1

    def outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Return the number of spans by kind and outcome, as of one moment."""
        with self._lock:
            return +self._counts

    def _warn(self, error: Exception) -> None:
        warn, self._warned = not self._warned, True
        if warn:
            with suppress(RuntimeWarning):  # where warnings are errors, no lookup fails
                warnings.warn(
                    f"span not made: {type(error).__name__} in the tracer provider; "
                    "lookups go on, such spans are counted as dropped",
                    RuntimeWarning,
                    stacklevel=2,
                )


def lookup_name(result: str, error: str | None) -> str:
    """Return the name of a lookup's span."""
    return _LOOKUP_NAMES["error" if error is not None else result]


def lookup_attributes(question: Question, result: str) -> dict[str, Any]:
    """Return the attributes of a lookup's span."""
    return {
        _OP: printable(question.op),
        _VIEW: printable(question.view_id),
        _PROMPT_HASH: printable(question.prompt_hash),
        _TOP_K: question.top_k,
        _RESULT: result,
    }


def batch_attributes(op: str, view_id: str, top_k: int) -> dict[str, Any]:
    """Return the attributes of a batch's span at its start."""
    return {_OP: printable(op), _VIEW: printable(view_id), _TOP_K: top_k}


def more_attributes(
    tier: str | None = None, verified: bool | None = None, *, bypassed: bool = False
) -> dict[str, Any]:
    """Return the attributes of a hit that a store answered, or of a lookup that asked no cache."""
    attributes: dict[str, Any] = {} if tier is None else {names.TIER.name: tier}
    if verified is not None:
        attributes[names.VERIFIED.name] = verified
    if bypassed:
        attributes[names.BYPASSED.name] = True
    return attributes


def forward_attributes(
    question: Question, size: int, model: str | None, adapter: str | None
) -> dict[str, Any]:
    """Return the attributes of a forward span of `size` prompts.

    Viewers cut the end of a long model name, so the adapter comes first.
    """
    attributes = {
        names.OPERATION.name: "text_completion",
        _OP: printable(question.op),
        _VIEW: printable(question.view_id),
        names.BATCH_SIZE.name: size,
    }
    if model and adapter and view_family(question.view_id) in ADAPTED_FAMILIES:
        model = f"{adapter} on {model}"
    if model:
        attributes[names.MODEL.name] = model
    return attributes


def server_attributes(address: str, port: int) -> dict[str, Any]:
    """Return the attributes of a forward span whose model a server holds."""
    return {names.SERVER_ADDRESS.name: printable(address), names.SERVER_PORT.name: port}


def mark_failed(span: trace.Span, error: str) -> None:
    """Set status and `error.type`, but not the message, which may quote a prompt."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(names.ERROR_TYPE.name, printable(error))


@cache
def _version() -> str:
    return version("forwardscope")  # reads a file
