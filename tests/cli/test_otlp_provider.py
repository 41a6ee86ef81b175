"""The tracer provider of the command line."""

from __future__ import annotations

import random

from opentelemetry.sdk.trace import SpanProcessor

from forwardscope.cli.otlp_provider import OwnRandomIds, make_provider


def test_ids_do_not_depend_on_the_seed_of_a_program() -> None:
    """Nor do they change what the program draws."""
    provider = make_provider(SpanProcessor())
    seen, drawn = set(), []
    for _ in range(2):
        random.seed(0)
        with provider.get_tracer("test").start_as_current_span("one") as span:
            seen.add((span.get_span_context().trace_id, span.get_span_context().span_id))
        drawn.append(random.random())  # noqa: S311 - what a program draws
    random.seed(0)
    assert drawn == [random.random()] * 2  # noqa: S311
    assert len(seen) == 2


def test_ids_are_of_the_right_size() -> None:
    """64 bits a span, 128 a trace, never 0."""
    ids = OwnRandomIds()
    assert all(0 < ids.generate_span_id() < 1 << 64 for _ in range(100))
    assert any(ids.generate_trace_id() >= 1 << 64 for _ in range(100))
