"""What the peer has not got: spans, metrics and a scrape, beside the libraries they stand on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import worker  # these two are beside this file
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, generate_latest

import suite
from forwardscope import BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.telemetry import names, register

_QUEUE = 1 << 17
#: Lookups from which the cost of one is told.
_COSTED = 2_000


class Counting(SpanExporter):
    """Takes spans and counts them."""

    def __init__(self) -> None:
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count."""
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


@cache
def provider() -> tuple[TracerProvider, Counting]:
    """Return a provider whose queue is long enough to lose nothing, and what counts its spans."""
    made, exporter = TracerProvider(shutdown_on_exit=False), Counting()
    made.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE))
    return made, exporter


@cache
def watched() -> Any:
    """Return the backend with trace, spans and collector."""
    backend = worker.filled(**sinks())
    register(backend, CollectorRegistry())
    return backend


def sinks() -> dict[str, Any]:
    """Return the settings of a backend with a trace and a span for each lookup."""
    return {
        "trace_path": Path(worker._FOLDER.name, "watched.jsonl"),
        "tracer_provider": provider()[0],
        "span_budget": None,
    }


def watched_hits(n: int) -> dict[str, Any]:
    """Ask with everything on: the caller's CPU time, and the whole process's with the flush."""
    backend, (made, exporter) = watched(), provider()
    backend.spans.flush(60)
    made.force_flush()
    before, start = exporter.taken, time.process_time_ns()
    said = worker.ask(backend, n, time.thread_time_ns)
    backend.spans.flush(60)
    made.force_flush()
    spent = (time.process_time_ns() - start) / n
    return said | {"process_ns": spent, "spans": exporter.taken - before, "n": n}


def watched_misses(n: int) -> dict[str, Any]:
    """Ask what is not known, of a compute that returns at once, with everything on."""
    backend, (made, exporter) = BackendInstrumentation(**sinks()), provider()
    register(backend, CollectorRegistry())
    before, start = exporter.taken, time.process_time_ns()
    for number in range(n):
        backend.cached("next_token_dist", "ft", f"Nobody asked before: {number}", 256, float)
    made.force_flush()
    spent = (time.process_time_ns() - start) / n
    backend.close()  # a lookup's span and its forward pass's
    return {"process_ns": spent, "spans": (exporter.taken - before) // 2, "n": n}


def share(n: int) -> dict[str, Any]:
    """Run the suite with everything on; what its lookups cost themselves, in percent of it."""
    ran = suite.ours(n, **sinks())
    hits, misses = ran["lookups"]
    spent = hits * watched_hits(_COSTED)["process_ns"]
    spent += misses * watched_misses(_COSTED)["process_ns"]
    return {"percent": 100 * spent / ran["ns"]}


def bare_spans(n: int) -> dict[str, Any]:
    """Make as many spans with the SDK alone, of the same attributes, and flush them."""
    made, exporter = provider()
    tracer = made.get_tracer("bare")
    attributes = {
        names.OP.name: "next_token_dist",
        names.VIEW.name: "ft",
        names.PROMPT_HASH.name: prompt_hash("prompt"),
        names.TOP_K.name: 256,
        names.CACHE_RESULT.name: "hit",
    }
    made.force_flush()
    before, start = exporter.taken, time.process_time_ns()
    for _ in range(n):
        tracer.start_span(names.LOOKUP.name, attributes=attributes).end()
    made.force_flush()
    spent = (time.process_time_ns() - start) / n
    return {"process_ns": spent, "spans": exporter.taken - before, "n": n}


@cache
def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    """Return a backend's registry of about 1,000 samples, and one of as many native counters."""
    backend, ours = BackendInstrumentation(name="bench"), CollectorRegistry()
    for probe in range(25):
        backend.set_current_probe(f"probe_{probe}")
        for view in ("base", "ft", "scaled_0.5", "null_1"):
            for op in ("next_token_dist", "logprob_of"):
                backend.cached(op, view, "prompt", 0, float)
    register(backend, ours)
    native = CollectorRegistry()
    counter = Counter("native", "As many.", ["backend", "probe", "view", "op"], registry=native)
    for number in range(_samples(ours) // 2):  # each has a time of creation as well
        counter.labels("bench", f"probe_{number}", "base", "next_token_dist").inc()
    return ours, native


def scrape(n: int, which: int = 0) -> dict[str, Any]:
    """Render a registry, `n` times."""
    registry = registries()[which]
    start = time.perf_counter_ns()
    for _ in range(n):
        generate_latest(registry)
    return {"ns": (time.perf_counter_ns() - start) / n, "samples": _samples(registry)}


def _samples(registry: CollectorRegistry) -> int:
    lines = generate_latest(registry).decode().splitlines()
    return sum(not line.startswith("#") for line in lines)


TASKS = {
    "watched": watched_hits,
    "bare": bare_spans,
    "scrape": scrape,
    "share": share,
    "native": lambda n: scrape(n, 1),
    "thread": lambda n: worker.ask_in_threads(n, 1),
}
