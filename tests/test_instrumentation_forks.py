"""Forked children: they compute what their parent had in flight, and no lock is held there."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.core.keys import LookupKey
from forwardscope.telemetry import names

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.no_cover,  # a child hangs where another thread holds the lock of coverage's data
    # Python 3.12 and later warn of a fork beside threads, which is what these tests do
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_PATIENCE_S = 60
_MAXSIZE = 8


def _key(prompt: str) -> LookupKey:
    return (_OP, _VIEW, prompt, _TOP_K)


def _batch(backend: BackendInstrumentation, *prompts: str) -> list[str]:
    return backend.cached_batch(
        _OP, _VIEW, prompts, _TOP_K, lambda indices: [prompts[index] for index in indices]
    )


@pytest.fixture
def backend(tmp_path: Path) -> BackendInstrumentation:
    """Return a backend that bounds bytes, traces and has spans."""
    return BackendInstrumentation(
        cache_maxsize=_MAXSIZE,
        cache_max_bytes=1 << 20,
        trace_path=tmp_path / "trace.jsonl",
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        span_budget=None,
    )


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_child_computes_what_is_in_flight(
    backend: BackendInstrumentation, in_thread: Any, in_child: Any, until_waiting: Any, inside: bool
) -> None:
    """The parent's flight goes on, with its waiter, and each process has its own value.

    The child is forked by the thread that computes, or by another one.
    """
    in_flight, forked = threading.Event(), threading.Event()

    def child() -> None:
        assert backend.flights.waiters(_key("p")) == 0
        assert _batch(backend, "p", "q") == ["p", "q"]
        assert backend.cached(*_key("p"), lambda: "again") == "p"

    def compute() -> str:
        in_flight.set()
        if inside:
            until_waiting(backend, _key("p"))
            in_child(child)
        assert forked.wait(_PATIENCE_S)
        return "of the parent"

    leader = in_thread(lambda: backend.cached(*_key("p"), compute))
    assert in_flight.wait(_PATIENCE_S)
    waiter = in_thread(lambda: backend.cached(*_key("p"), lambda: "again"))
    until_waiting(backend, _key("p"))
    if not inside:
        in_child(child)
    assert backend.flights.waiters(_key("p")) == 1
    forked.set()
    assert leader.result(_PATIENCE_S) == waiter.result(_PATIENCE_S) == "of the parent"
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (1, 1)


def test_fork_while_another_thread_changes_the_cache(
    backend: BackendInstrumentation, in_thread: Any, in_child: Any
) -> None:
    """The lock of the cache, which that thread holds, is free in the child."""
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with backend.cache.lock:
            held.set()
            assert forked.wait(_PATIENCE_S)

    def child() -> None:
        assert backend.cached(*_key("p"), lambda: "p") == "p"
        assert _batch(backend, "p", "q") == ["p", "q"]
        backend.cache.clear()
        assert (len(backend.cache), backend.cache.nbytes) == (0, 0)

    holder = in_thread(hold)
    assert held.wait(_PATIENCE_S)
    in_child(child)
    forked.set()
    holder.result(_PATIENCE_S)


@pytest.mark.usefixtures("fast_switching")
def test_fifty_forks_beside_busy_threads(
    backend: BackendInstrumentation, in_thread: Any, in_child: Any
) -> None:
    """Each child is answered and counts its own lookups; the trace has those of all processes."""
    stop = threading.Event()

    def work(me: int) -> int:
        for number in count():
            _batch(backend, f"{me} {number}", "shared", f"{number}")
            backend.cached(*_key("shared"), lambda: "shared")
            if stop.is_set():
                return 4 * (number + 1)
        raise AssertionError

    def child(number: int) -> None:
        before = backend.stats.total_lookups
        mine = [f"child {number}", f"child {number} too"]
        for _ in range(2):
            assert _batch(backend, *mine) == mine
            assert backend.cached(*_key(mine[0]), lambda: "again") == mine[0]
            assert backend.cached(*_key("shared"), lambda: "shared") == "shared"
        assert backend.stats.total_lookups == before + 8
        assert len(backend.cache) <= _MAXSIZE
        assert 0 < backend.cache.nbytes <= 1 << 20
        backend.close()
        assert backend.spans.outcomes()[names.LOOKUP.kind, "pending"] == 0

    workers = [in_thread(lambda me=me: work(me)) for me in range(4)]
    for number in range(50):
        in_child(lambda number=number: child(number))
    stop.set()
    made = sum(worker.result(_PATIENCE_S) for worker in workers)
    backend.close()
    assert backend.stats.total_lookups == backend.trace.records == made
    assert backend.trace.path is not None
    trace = TraceReader(backend.trace.path)
    assert len(list(trace)) == made + 50 * 8
    assert trace.skipped == 0
