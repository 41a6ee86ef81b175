"""A trace goes on in a child process, by way of the environment."""

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


def _told(context: Context) -> trace.SpanContext:
    return trace.get_current_span(context).get_span_context()


def test_a_trace_parent_is_taken_from_the_environment() -> None:
    """Its ids, flags and state are the current span's, which is remote."""
    found = _told(
        context_from_environment({"TRACEPARENT": _PARENT, "TRACESTATE": "a=1,b=2", "PATH": "/"})
    )
    assert trace.format_trace_id(found.trace_id) == _TRACE_ID
    assert trace.format_span_id(found.span_id) == _SPAN_ID
    assert (found.is_remote, found.trace_flags.sampled) == (True, True)
    assert dict(found.trace_state) == {"a": "1", "b": "2"}


def test_one_that_is_not_sampled_stays_so() -> None:
    """The parent's decision goes on with its ids."""
    found = _told(context_from_environment({"TRACEPARENT": _PARENT[:-1] + "0"}))
    assert found.is_valid
    assert not found.trace_flags.sampled


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
def test_what_is_no_trace_parent_is_none(value: str | None) -> None:
    """A missing or malformed one is an empty context, whatever the state says."""
    environ = {"TRACESTATE": "a=1"} | ({} if value is None else {"TRACEPARENT": value})
    context = context_from_environment(environ)
    assert context == Context()
    assert not _told(context).is_valid


def test_this_process_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is the process's own environment, as it is now."""
    monkeypatch.delenv("TRACEPARENT", raising=False)
    monkeypatch.delenv("TRACESTATE", raising=False)
    assert context_from_environment() == Context()
    monkeypatch.setenv("TRACEPARENT", _PARENT)
    assert trace.format_span_id(_told(context_from_environment()).span_id) == _SPAN_ID


def test_the_context_around_does_not_shine_through(telemetry: InMemoryTelemetry) -> None:
    """Inside a span a missing parent still is an empty context, not that span's."""
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine"):
        assert context_from_environment({}) == Context()


@pytest.mark.parametrize("state", [{}, {"TRACESTATE": "a=1,b=2"}], ids=["no state", "state"])
def test_what_was_taken_is_handed_on(state: dict[str, str]) -> None:
    """Out is what was in: the parent, and the state where there is one."""
    environ = {"TRACEPARENT": _PARENT, **state}
    assert child_environment(context_from_environment(environ)) == environ


def test_without_a_span_nothing_is_handed_on() -> None:
    """Neither an empty context nor the outside of any span gives a variable."""
    assert child_environment() == {}
    assert child_environment(Context()) == {}


def test_the_current_span_is_handed_on(telemetry: InMemoryTelemetry) -> None:
    """Without an argument it is the span around the call."""
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine") as span:
        own = span.get_span_context()
        assert child_environment() == {
            "TRACEPARENT": f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        }
        assert child_environment(Context()) == {}


def test_a_child_process_continues_the_trace(telemetry: InMemoryTelemetry, tmp_path: Path) -> None:
    """A lookup of the child is in the parent's trace, under the span that started the child."""
    records = tmp_path / "t.jsonl"
    with telemetry.tracer_provider.get_tracer("test").start_as_current_span("mine") as span:
        handed = child_environment()
        child = subprocess.run(
            [sys.executable, "-W", "error", "-c", _CHILD, str(records)],
            env={**os.environ, **handed},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (child.stderr, child.returncode) == ("", 0)
    (record,) = [json.loads(line) for line in records.read_text("ascii").splitlines()]
    own = span.get_span_context()
    assert record["trace_id"] == trace.format_trace_id(own.trace_id)
    assert record["parent_id"] == trace.format_span_id(own.span_id)
    assert child.stdout.strip() == handed["TRACEPARENT"]
