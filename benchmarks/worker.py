"""One side of a comparison: does what it is told, a line of JSON at a time.

    python benchmarks/worker.py ours|peer MODEL ADAPTER

Each line of standard input names a task and how often: {"task": "hit", "n": 20000}.
Each line of standard output is what came of it: nanoseconds a time (`ns`), and what the
other side must have got as well (`same`). The peer's API is ours, so most tasks are the
same code for both; what the peer has not got is in `observed.py`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import suite  # beside this file

_OP, _VIEW, _TOP_K = "next_token_dist", "ft", 256
_PROMPTS = [f"What is the answer to question {number}, and why is that so?" for number in range(64)]
_LONG = "x" * 8192
_FOLDER = tempfile.TemporaryDirectory()


@cache
def backend_class() -> Callable[..., Any]:
    """Return the class that this side is about."""
    if sys.argv[1] == "peer":
        from dlm_sway.backends._instrumentation import (  # noqa: PLC0415 - not in our environment
            BackendInstrumentation,
        )
    else:
        from forwardscope import BackendInstrumentation  # noqa: PLC0415 - not in the peer's
    return BackendInstrumentation


def filled(**settings: Any) -> Any:
    """Return a backend that has answered each prompt once, its value being the prompt's length."""
    backend = backend_class()(**settings)
    backend.set_current_probe("delta_kl")
    for prompt in _PROMPTS:
        backend.cached(_OP, _VIEW, prompt, _TOP_K, lambda prompt=prompt: float(len(prompt)))
    return backend


@cache
def plain() -> Any:
    """Return the backend without sinks."""
    return filled()


@cache
def traced() -> Any:
    """Return the backend that writes each lookup."""
    return filled(trace_path=Path(_FOLDER.name, "trace.jsonl"))


def ask(backend: Any, n: int, clock: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """Ask what is known, `n` times."""
    cached, prompts = backend.cached, _PROMPTS
    total, start = 0.0, clock()
    for number in range(n):
        total += cached(_OP, _VIEW, prompts[number & 63], _TOP_K, _never)
    return {"ns": (clock() - start) / n, "same": total}


def ask_traced(n: int, clock: Callable[[], int] = time.perf_counter_ns) -> dict[str, Any]:
    """Ask with the trace on; each line must be in the file at once."""
    backend, path = traced(), Path(_FOLDER.name, "trace.jsonl")
    before = path.stat().st_size
    said = ask(backend, n, clock)
    with path.open("rb") as file:
        file.seek(before)
        return said | {"lines": file.read().count(b"\n"), "n": n}


def ask_fresh(n: int) -> dict[str, Any]:
    """Ask for one prompt of 8 KB, each time as a new string whose hash nobody has made yet."""
    backend = plain()
    backend.cached(_OP, _VIEW, _LONG, _TOP_K, lambda: 1.0)
    prompts = [_LONG[:-1] + "x" for _ in range(n)]
    total, start = 0.0, time.perf_counter_ns()
    for prompt in prompts:
        total += backend.cached(_OP, _VIEW, prompt, _TOP_K, _never)
    return {"ns": (time.perf_counter_ns() - start) / n, "same": total}


def miss(n: int) -> dict[str, Any]:
    """Ask what is not known, of a compute that returns at once; the cache is full."""
    backend = backend_class()(cache_maxsize=256)
    prompts = [f"A question that nobody has asked before: {number}" for number in range(n + 256)]
    for prompt in prompts[n:]:
        backend.cached(_OP, _VIEW, prompt, _TOP_K, float)
    total, start = 0.0, time.perf_counter_ns()
    for prompt in prompts[:n]:
        total += backend.cached(_OP, _VIEW, prompt, _TOP_K, float)
    spent = (time.perf_counter_ns() - start) / n
    return {"ns": spent, "same": [total, backend.stats.forward_passes]}


def ask_in_batches(n: int) -> dict[str, Any]:
    """Ask for all prompts in one call, over and over, about `n` in all."""
    backend, total, calls = plain(), 0.0, -(-n // len(_PROMPTS))
    start = time.perf_counter_ns()
    for _ in range(calls):
        total += sum(backend.cached_batch(_OP, _VIEW, _PROMPTS, _TOP_K, _never))
    spent = time.perf_counter_ns() - start
    if total != calls * sum(map(len, _PROMPTS)):
        raise ValueError(f"a batch of hits gave other values: {total}")
    return {"ns": spent / (calls * len(_PROMPTS))}


def ask_in_threads(n: int, threads: int = 8) -> dict[str, Any]:
    """Ask about `n` times in all, from several threads that begin together."""
    backend, begin, each = plain(), threading.Barrier(threads + 1), -(-n // threads)

    def work() -> None:
        begin.wait()
        ask(backend, each)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    start = time.perf_counter_ns()
    for worker in workers:
        worker.join()
    return {"ns": (time.perf_counter_ns() - start) / (each * threads)}


def memory(n: int) -> dict[str, Any]:
    """Fill a cache with values and prompts that are there already; bytes an entry beside them."""
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


TASKS: dict[str, Callable[[int], dict[str, Any]]] = {
    "hit": lambda n: ask(plain(), n),
    "traced": ask_traced,
    "traced-cpu": lambda n: ask_traced(n, time.thread_time_ns),
    "fresh": ask_fresh,
    "miss": miss,
    "batch": ask_in_batches,
    "threads": ask_in_threads,
    "memory": memory,
    "suite": suite.run,
}


def main() -> None:
    """Answer until there is no more to do."""
    tasks = dict(TASKS)
    if sys.argv[1] == "ours":
        import observed  # noqa: PLC0415 - not for the peer

        tasks |= observed.TASKS
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a library prints is no answer
        for line in sys.stdin:
            told = json.loads(line)
            answers.write(json.dumps(tasks[told["task"]](told["n"])) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
