"""Benchmarks of what the peer lacks: spans, metrics and scrapes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import lookups  # lookups and suite are in this folder
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, Counter, generate_latest

import forwardscope
import suite
from forwardscope import BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.telemetry import names, register

_PACKAGE = Path(forwardscope.__file__).parent
_QUEUE = 1 << 17
#: Lookups over which the cost of one is averaged.
_COSTED = 2_000


class Counting(SpanExporter):
    """Exporter that counts spans and discards them."""

    def __init__(self) -> None:
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count the spans."""
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


@cache
def provider() -> tuple[TracerProvider, Counting]:
    """Return a provider whose queue is long enough to drop no span, and its exporter."""
    made, exporter = TracerProvider(shutdown_on_exit=False), Counting()
    made.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE))
    return made, exporter


@cache
def watched() -> Any:
    """Return the backend with trace, spans and collector."""
    backend = lookups.filled(**sinks())
    register(backend, CollectorRegistry())
    return backend


def sinks() -> dict[str, Any]:
    """Return the settings of a backend with a trace and a span for each lookup."""
    return {
        "trace_path": Path(lookups.FOLDER.name, "watched.jsonl"),
        "tracer_provider": provider()[0],
        "span_budget": None,
    }


def watched_hits(n: int) -> dict[str, Any]:
    """Measure hits with all sinks on: CPU time of the caller, and of the process with flush."""
    backend, (made, exporter) = watched(), provider()
    backend.spans.flush(60)
    made.force_flush()
    before, start = exporter.taken, time.process_time_ns()
    answer = lookups.hits(backend, n, time.thread_time_ns)
    backend.spans.flush(60)
    made.force_flush()
    spent = (time.process_time_ns() - start) / n
    return answer | {"process_ns": spent, "spans": exporter.taken - before, "n": n}


def watched_misses(n: int) -> dict[str, Any]:
    """Measure misses with all sinks on and a compute that returns at once."""
    backend, (made, exporter) = BackendInstrumentation(**sinks()), provider()
    register(backend, CollectorRegistry())
    before, start = exporter.taken, time.process_time_ns()
    for number in range(n):
        backend.cached("next_token_dist", "ft", f"A new question, number {number}", 256, float)
    made.force_flush()
    spent = (time.process_time_ns() - start) / n
    backend.close()
    # a miss has two spans: its lookup and its forward pass
    return {"process_ns": spent, "spans": (exporter.taken - before) // 2, "n": n}


def share(n: int) -> dict[str, Any]:
    """Run the suite with all sinks on; return the cost of its lookups in percent of its time."""
    ran = suite.ours(n, **sinks())
    hits, misses = ran["lookups"]
    spent = hits * watched_hits(_COSTED)["process_ns"]
    spent += misses * watched_misses(_COSTED)["process_ns"]
    return {"percent": 100 * spent / ran["ns"]}


def miss_share(n: int) -> dict[str, Any]:
    """Run the suite; return the cost of a miss in percent of the mean forward pass."""
    ran = suite.ours(n)
    return {"percent": 100 * lookups.misses(_COSTED)["ns"] / ran["forward_ns"]}


def files(_: int) -> dict[str, Any]:
    """Count the files of the package that a hit and a miss run in the caller's thread."""
    backend = watched()
    found = {}
    fresh = f"A new question at {time.perf_counter_ns()}"
    for result, prompt in (("hit", lookups.PROMPTS[0]), ("miss", fresh)):
        passed: set[str] = set()

        def note(frame: FrameType, event: str, _: Any, passed: set[str] = passed) -> None:
            if event == "call" and _PACKAGE in Path(frame.f_code.co_filename).parents:
                passed.add(frame.f_code.co_filename)

        sys.setprofile(note)
        try:
            backend.cached("next_token_dist", "ft", prompt, 256, float)
        finally:
            sys.setprofile(None)
        found[result] = len(passed)
    return found


def lines(_: int) -> dict[str, Any]:
    """Count the lines of the modules that a lookup runs."""
    counted = [
        *_PACKAGE.glob("core/*.py"),
        _PACKAGE / "batch_outcomes.py",
        _PACKAGE / "forward_calls.py",
        _PACKAGE / "instrumentation.py",
        _PACKAGE / "recorder.py",
    ]
    return {"count": sum(len(path.read_text("utf-8").splitlines()) for path in counted)}


def bare_spans(n: int) -> dict[str, Any]:
    """Measure spans with the attributes of a hit, made with the SDK alone, with flush."""
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
        tracer.start_span(names.LOOKUP.named("hit"), attributes=attributes).end()
    made.force_flush()
    spent = (time.process_time_ns() - start) / n
    return {"process_ns": spent, "spans": exporter.taken - before, "n": n}


@cache
def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    """Return a backend's registry of about 1,000 samples, and one of as many native samples."""
    backend, ours = BackendInstrumentation(name="bench"), CollectorRegistry()
    for probe in range(25):
        backend.set_current_probe(f"probe_{probe}")
        for view in ("base", "ft", "scaled_0.5", "null_1"):
            for op in ("next_token_dist", "logprob_of"):
                backend.cached(op, view, "prompt", 0, float)
    register(backend, ours)
    native = CollectorRegistry()
    counter = Counter("native", "As many.", ["backend", "probe", "view", "op"], registry=native)
    for number in range(_samples(ours) // 2):  # each has a `_created` sample too
        counter.labels("bench", f"probe_{number}", "base", "next_token_dist").inc()
    return ours, native


def scrape(n: int, which: int = 0) -> dict[str, Any]:
    """Measure `n` scrapes of a registry: 0 for the backend's, 1 for the native one."""
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
    "miss-share": miss_share,
    "files": files,
    "lines": lines,
    "native": lambda n: scrape(n, 1),
}
