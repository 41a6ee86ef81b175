"""A suite, a receiver of its spans on this machine, and what trace viewers compute from them."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from forwardscope.telemetry import names

#: A suite for `loaded`, with all results of lookups and failed probes.
NIGHTLY = """version: 1
name: nightly
model: {path: some-model, adapter: some-adapter}
cache: {max_entries: 12}
probes:
  - {name: strict, kind: delta_kl, prompts: [a, e], min_mean: 99}
  - {name: raising, kind: delta_kl, prompts: [a, raise]}
  - {name: baseline, kind: null_adapter, runs: 2, sentinel_prompts: [s, t]}
  - {name: change, kind: delta_kl, prompts: [c, b, a, c], min_mean: 0.000001}
  - {name: again, kind: delta_kl, prompts: [a, b, d], min_mean: 0.000001}
  - {name: response, kind: adapter_ablation, prompts: [a, b]}
"""


@dataclass(eq=False)
class Span:
    """A received span.

    Attributes:
        name: Its name.
        id: Its id, 16 hex digits; trace ids are 32.
        trace_id: Its trace.
        parent_id: Its parent; empty for a root.
        start_us: Start, in whole microseconds, as Jaeger stores it.
        end_us: End.
        failed: Whether its status is Error.
        links: (trace id, span id) of each link.
        attributes: Its attributes.
        children: Received children, by start.
    """

    name: str
    id: str
    trace_id: str
    parent_id: str
    start_us: int
    end_us: int
    failed: bool
    links: list[tuple[str, str]]
    attributes: dict[str, Any]
    children: list[Span] = field(default_factory=list, repr=False)

    @property
    def kind(self) -> str:
        """Kind of the span, by its attributes."""
        for attribute, kind in (
            (names.CACHE_RESULT, "lookup"),
            (names.OPERATION, "forward"),
            (names.CASE_NAME, "probe"),
            (names.SUITE_NAME, "suite"),
        ):
            if attribute.name in self.attributes:
                return kind
        return "batch"

    @property
    def duration_us(self) -> int:
        """Its duration."""
        return self.end_us - self.start_us

    @property
    def self_us(self) -> int:
        """The part of its duration in which it has no child."""
        own, free_from = 0, self.start_us
        for child in self.children:
            own += max(0, child.start_us - free_from)
            free_from = max(free_from, child.end_us)
        return own + max(0, self.end_us - free_from)

    def critical_path(self) -> Iterator[tuple[Span, int]]:
        """Yield spans with the microseconds that the end of this one waited for them.

        From the end backwards it is the child that ended last, until that began.
        """
        until = self.end_us
        for child in sorted(self.children, key=lambda one: (-one.end_us, one.start_us)):
            if child.end_us <= until:
                yield self, until - child.end_us
                yield from child.critical_path()
                until = child.start_us
        yield self, until - self.start_us


class Viewer:
    """Stores the spans that arrive. Thread-safe.

    Attributes:
        url: Where to send them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._spans: list[Span] = []

    def take(self, request: bytes) -> None:
        """Store the spans of a request."""
        message = ExportTraceServiceRequest.FromString(request)
        with self._lock:
            for resource in message.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += map(_span, scope.spans)

    def spans(self) -> list[Span]:
        """Return the spans so far by start, with their children."""
        with self._lock:
            spans = sorted(self._spans, key=lambda one: (one.start_us, -one.end_us))
        by_id = {one.id: one for one in spans}
        for one in spans:
            one.children.clear()
        for one in spans:
            if one.parent_id in by_id:
                by_id[one.parent_id].children.append(one)
        return spans


def _span(span: trace_pb2.Span) -> Span:
    assert not span.events
    assert not span.status.message
    return Span(
        name=span.name,
        id=span.span_id.hex(),
        trace_id=span.trace_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_us=span.start_time_unix_nano // 1000,
        end_us=span.end_time_unix_nano // 1000,
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        attributes={
            one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
            for one in span.attributes
        },
    )


@contextmanager
def viewer() -> Iterator[Viewer]:
    """Receive spans on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    seen = Viewer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check_self_times(spans: list[Span]) -> None:
    """Check that the self times of a run sum to it, and that children lie in their parents."""
    (root,) = [one for one in spans if not one.parent_id]
    assert sum(one.self_us for one in spans) == root.duration_us > 0
    for parent in spans:
        for child in parent.children:
            assert parent.start_us <= child.start_us <= child.end_us <= parent.end_us


def _question(span: Span) -> tuple[object, ...]:
    parts = (names.OP, names.VIEW, names.PROMPT_HASH, names.TOP_K)
    return tuple(span.attributes[one.name] for one in parts)


def check_calls(spans: list[Span]) -> Counter[str]:
    """Check that each lookup leads to its own forward call; return the number of each result."""
    calls = {(one.trace_id, one.id): one for one in spans if one.kind == "forward"}
    lookups = [one for one in spans if one.kind == "lookup"]
    found: list[tuple[Span, Span]] = []
    for lookup in lookups:
        below = [(one.trace_id, one.id) for one in lookup.children if one.kind == "forward"]
        (place,) = [*below, *lookup.links]
        found.append((lookup, calls[place]))
    computed = {
        (id(call), _question(lookup))
        for lookup, call in found
        if lookup.attributes[names.CACHE_RESULT.name] == "miss"
    }
    for lookup, call in found:
        assert (id(call), _question(lookup)) in computed
        assert call.attributes[names.VIEW.name] == lookup.attributes[names.VIEW.name]
        assert lookup.failed == call.failed == (lookup.name == "lookup error")
        if lookup.name == "lookup hit":
            assert call.end_us <= lookup.end_us
    assert all(not one.links for one in spans if one.kind != "lookup")
    sizes = Counter(call for call, _ in computed)
    assert all(one.attributes[names.BATCH_SIZE.name] == sizes[id(one)] for one in calls.values())
    return Counter(one.name for one in lookups)


def check_names(spans: list[Span]) -> None:
    """Check that names are few, and have neither λ nor seed nor hash."""
    few = {one.name for one in spans if one.kind not in ("suite", "probe")}
    assert len(few) <= 12
    assert not any(re.search(r"\d", name) for name in few)
    assert all(name.isprintable() and len(name) <= 64 for name in few)
