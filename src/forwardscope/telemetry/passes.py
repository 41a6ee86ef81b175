"""The spans that live while something is computed: of a miss, its forward pass, its batch."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from forwardscope.core.flight import ForwardPass
from forwardscope.core.keys import printable
from forwardscope.telemetry import names
from forwardscope.telemetry.maker import LOOKUP, Question, SpanMaker, mark_failed

__all__ = ["MAX_LINKS", "BatchSpan", "SpannedPass"]

#: Lookups that a batch's forward span links to, at most.
MAX_LINKS = 128
_FORWARD = names.FORWARD.name


class SpannedPass(ForwardPass):
    """A forward pass with its span and those of the lookups that pay for it.

    A single lookup's forward span hangs under the lookup's; that of a batch
    stands beside them and links to them. It is the current span meanwhile.

    Args:
        maker: Makes the spans.
        questions: What is computed, in order.
        start_ns: The clock when their lookups began.
        parent: The context that the lookups hang under.
        batch: Whether it is a batch.

    Attributes:
        parent: The same.
    """

    def __init__(
        self,
        maker: SpanMaker,
        questions: Sequence[Question],
        start_ns: int,
        parent: Context,
        *,
        batch: bool = False,
    ) -> None:
        super().__init__(maker.clock, len(questions))
        self.parent = parent
        self._maker = maker
        self._questions = questions
        self._batch = batch
        self._lookups = [
            maker.start_lookup(question, "miss", start_ns, parent) for question in questions
        ]

    def __enter__(self) -> ForwardPass:
        inside, links = self.parent, []
        if self._batch:
            links = [trace.Link(one.get_span_context()) for one in self._lookups[:MAX_LINKS]]
        else:
            inside = trace.set_span_in_context(self._lookups[0], inside)
        now = self._maker.clock.perf_counter_ns()
        self._forward = self._maker.start(_FORWARD, inside, now, self._attributes(), links)
        found = self._forward.get_span_context()
        if found.trace_flags.sampled:
            self.trace_id = trace.format_trace_id(found.trace_id)
        self._token = otel_context.attach(trace.set_span_in_context(self._forward, inside))
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
            computed, reused = self.token_sums()
            self._forward.set_attribute(names.INPUT_TOKENS.name, computed + reused)
            if reused:
                self._forward.set_attribute(names.REUSED_TOKENS.name, reused)
        if self.error is not None:
            mark_failed(self._forward, self.error)
        self._maker.end(self._forward, _FORWARD, self.end_ns)

    def end_lookups(self, end_ns: int) -> None:
        """End the spans of the lookups that paid for this pass."""
        for lookup in self._lookups:
            if self.error is not None:
                mark_failed(lookup, self.error)
            self._maker.end(lookup, LOOKUP, end_ns)

    def _attributes(self) -> dict[str, Any]:
        op, view_id, _, _ = self._questions[0]
        attributes: dict[str, Any] = {
            names.OPERATION.name: "score",
            names.OP.name: printable(op),
            names.VIEW.name: printable(view_id),
            names.BATCH_SIZE.name: self.size,
        }
        if self._maker.model is not None:
            attributes[names.MODEL.name] = self._maker.model
        return attributes


class BatchSpan:
    """The span of one call with several questions, started when something hangs under it.

    Args:
        maker: Makes it.
        asked: Op, view id and top_k.
        start_ns: The clock when the call began.
        parent: The context that it hangs under.

    Attributes:
        inside: The context that lookups hang under: its own once it was
            started, before that its parent's.
    """

    def __init__(
        self, maker: SpanMaker, asked: tuple[str, str, int], start_ns: int, parent: Context
    ) -> None:
        self.inside = parent
        self._maker = maker
        self._asked = asked
        self._start_ns = start_ns
        self._span: trace.Span | None = None

    def start(self) -> None:
        """Start it, where it was not."""
        if self._span is None:
            op, view_id, top_k = self._asked
            attributes = {
                names.OP.name: printable(op),
                names.VIEW.name: printable(view_id),
                names.TOP_K.name: top_k,
            }
            self._span = self._maker.start(
                names.LOOKUP_BATCH.name, self.inside, self._start_ns, attributes
            )
            self.inside = trace.set_span_in_context(self._span, self.inside)

    def forward(self, questions: Sequence[Question]) -> SpannedPass:
        """Return the forward pass of what is missing."""
        self.start()
        return SpannedPass(self._maker, questions, self._start_ns, self.inside, batch=True)

    def end(self, hits: int, misses: int, error: str | None, end_ns: int) -> None:
        """End it, where it was started."""
        if self._span is not None:
            self._span.set_attribute(names.BATCH_HITS.name, hits)
            self._span.set_attribute(names.BATCH_MISSES.name, misses)
            if error is not None:
                mark_failed(self._span, error)
            self._maker.end(self._span, names.LOOKUP_BATCH.name, end_ns)
