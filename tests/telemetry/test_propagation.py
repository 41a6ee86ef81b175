"""Trace context in environment variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

from forwardscope.telemetry import child_environment, context_from_environment
from forwardscope.testing import InMemoryTelemetry

_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_SPAN_ID = "b7ad6b7169203331"
_PARENT = f"00-{_TRACE_ID}-{_SPAN_ID}-01"

_CHILD = """
import sys
from opentelemetry import context
from forwardscope.telemetry import child_environment, context_from_environment
from forwardscope.testing import InMemoryTelemetry

telemetry = InMemoryTelemetry()
backend = telemetry.instrumentation(trace_path=sys.argv[1])
context.attach(context_from_environment())
backend.cached("op", "base", "prompt", 0, lambda: None)
backend.close()
print(child_environment()["TRACEPARENT"])
"""


def _span_context(context: Context) -> trace.SpanContext:
    return trace.get_current_span(context).get_span_context()


@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize("state", [{}, {"TRACESTATE": "a=1,b=2"}], ids=["no state", "state"])
def test_context_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, flags: str, state: dict[str, str]
) -> None:
    """Ids, flags and state are read from this process's environment and written unchanged."""
    for name in ("TRACEPARENT", "TRACESTATE"):
        monkeypatch.delenv(name, raising=False)
    assert context_from_environment() == Context()
    environ = {"TRACEPARENT": _PARENT[:-2] + flags, **state}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    context = context_from_environment()
    found = _span_context(context)
    assert trace.format_trace_id(found.trace_id) == _TRACE_ID
    assert trace.format_span_id(found.span_id) == _SPAN_ID
    assert (found.is_remote, found.trace_flags.sampled) == (True, flags == "01")
    assert child_environment(context) == environ


def test_current_span(telemetry: InMemoryTelemetry) -> None:
    """It is what a child continues; a missing TRACEPARENT is still an empty context."""
    assert child_environment() == child_environment(Context()) == {}
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine") as span:
        own = span.get_span_context()
        assert child_environment() == {
            "TRACEPARENT": f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        }
        assert child_environment(Context()) == {}
        assert context_from_environment({}) == Context()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "nonsense",
        _PARENT[:-3],
        f"ff-{_TRACE_ID}-{_SPAN_ID}-01",
        f"00-{'0' * 32}-{_SPAN_ID}-01",
        f"00-{_TRACE_ID}-{'0' * 16}-01",
        f"00-{_TRACE_ID[:-1]}g-{_SPAN_ID}-01",
        f"{_PARENT}-more",
        "\udc80",
    ],
)
def test_malformed_traceparent_is_ignored(value: str | None) -> None:
    """A missing or malformed one gives an empty context, also with a TRACESTATE."""
    environ = {"TRACESTATE": "a=1"} | ({} if value is None else {"TRACEPARENT": value})
    context = context_from_environment(environ)
    assert context == Context()
    assert not _span_context(context).is_valid


def test_child_process_continues_the_trace(telemetry: InMemoryTelemetry, tmp_path: Path) -> None:
    """The parent of the child's lookup is the span that started the child."""
    records = tmp_path / "t.jsonl"
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine") as span:
        environment = child_environment()
        child = subprocess.run(
            [sys.executable, "-W", "error", "-c", _CHILD, str(records)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (child.stderr, child.returncode) == ("", 0)
    (record,) = [json.loads(line) for line in records.read_text("ascii").splitlines()]
    own = span.get_span_context()
    assert record["trace_id"] == trace.format_trace_id(own.trace_id)
    assert record["parent_id"] == trace.format_span_id(own.span_id)
    assert child.stdout.strip() == environment["TRACEPARENT"]
