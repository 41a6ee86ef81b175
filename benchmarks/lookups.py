"""Benchmarks of lookups that both sides share: the peer has the same API."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_OP, _VIEW, _TOP_K = "next_token_dist", "ft", 256
PROMPTS = [f"What is the answer to question {number}, and why is that so?" for number in range(64)]
_LONG = "x" * 8192
FOLDER = tempfile.TemporaryDirectory()


@cache
def backend_class() -> Callable[..., Any]:
    """Return the `BackendInstrumentation` of this side."""
    if sys.argv[1] == "peer":
        from dlm_sway.backends._instrumentation import (  # noqa: PLC0415 - not in our environment
            BackendInstrumentation,
        )
    else:
        from forwardscope import BackendInstrumentation  # noqa: PLC0415 - not in the peer's
    return BackendInstrumentation


def filled(**settings: Any) -> Any:
    """Return a backend whose cache has each prompt, with the prompt's length as the value."""
    backend = backend_class()(**settings)
    backend.set_current_probe("delta_kl")
    for prompt in PROMPTS:
        backend.cached(_OP, _VIEW, prompt, _TOP_K, lambda prompt=prompt: float(len(prompt)))
    return backend


@cache
def plain() -> Any:
    """Return the backend without sinks."""
    return filled()


@cache
def traced() -> Any:
    """Return the backend that writes a trace."""
    return filled(trace_path=Path(FOLDER.name, "trace.jsonl"))


def hits(backend: Any, n: int, clock: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """Measure `n` hits."""
    cached, prompts = backend.cached, PROMPTS
    total, start = 0.0, clock()
    for number in range(n):
        total += cached(_OP, _VIEW, prompts[number & 63], _TOP_K, _never)
    return {"ns": (clock() - start) / n, "same": total}


def traced_hits(n: int, clock: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """Measure hits with the trace on; count the lines that are in the file right after them."""
    backend, path = traced(), Path(FOLDER.name, "trace.jsonl")
    before = path.stat().st_size
    answer = hits(backend, n, clock)
    with path.open("rb") as file:
        file.seek(before)
        return answer | {"lines": file.read().count(b"\n"), "n": n}


def fresh_hits(n: int) -> dict[str, Any]:
    """Measure hits of one prompt of 8 KB, each with a new string that has no cached hash."""
    backend = plain()
    backend.cached(_OP, _VIEW, _LONG, _TOP_K, lambda: 1.0)
    prompts = [_LONG[:-1] + "x" for _ in range(n)]
    total, start = 0.0, time.perf_counter_ns()
    for prompt in prompts:
        total += backend.cached(_OP, _VIEW, prompt, _TOP_K, _never)
    return {"ns": (time.perf_counter_ns() - start) / n, "same": total}


def misses(n: int) -> dict[str, Any]:
    """Measure misses in a full cache, with a compute that returns at once."""
    backend = backend_class()(cache_maxsize=256)
    prompts = [f"A new question, number {number}" for number in range(n + 256)]
    for prompt in prompts[n:]:
        backend.cached(_OP, _VIEW, prompt, _TOP_K, float)
    total, start = 0.0, time.perf_counter_ns()
    for prompt in prompts[:n]:
        total += backend.cached(_OP, _VIEW, prompt, _TOP_K, float)
    spent = (time.perf_counter_ns() - start) / n
    return {"ns": spent, "same": [total, backend.stats.forward_passes]}


def batch_hits(n: int) -> dict[str, Any]:
    """Measure about `n` hits, in batches of all prompts."""
    backend, total, calls = plain(), 0.0, -(-n // len(PROMPTS))
    start = time.perf_counter_ns()
    for _ in range(calls):
        total += sum(backend.cached_batch(_OP, _VIEW, PROMPTS, _TOP_K, _never))
    spent = time.perf_counter_ns() - start
    if total != calls * sum(map(len, PROMPTS)):
        raise ValueError(f"a batch of hits gave other values: {total}")
    return {"ns": spent / (calls * len(PROMPTS))}


def threaded_hits(n: int, threads: int = 8) -> dict[str, Any]:
    """Measure about `n` hits from several threads that start together."""
    backend, begin, each = plain(), threading.Barrier(threads + 1), -(-n // threads)

    def work() -> None:
        begin.wait()
        hits(backend, each)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    start = time.perf_counter_ns()
    for worker in workers:
        worker.join()
    return {"ns": (time.perf_counter_ns() - start) / (each * threads)}


def memory(n: int) -> dict[str, Any]:
    """Measure the bytes of a cache entry beyond its value and prompt, which exist already."""
    prompts = [f"A question that takes some room: {number}" for number in range(n)]
    values = [float(number) for number in range(n)]
    backend = backend_class()(cache_maxsize=n)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for prompt, value in zip(prompts, values, strict=True):
        backend.cached(_OP, _VIEW, prompt, _TOP_K, lambda value=value: value)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"ns": (after - before) / n, "same": len(backend.cache)}


def _never(*_: object) -> Any:
    raise AssertionError("this was to be a hit")
