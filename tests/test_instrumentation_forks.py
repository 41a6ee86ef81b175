"""Forked children: they compute what their parent had in flight, and no lock is held there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.core.keys import LookupKey
from forwardscope.telemetry import names

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.no_cover,  # a child hangs where another thread holds the lock of coverage's data
    # what Python 3.12 and later says of every fork beside threads, which is what is tested here
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
InChild = Callable[[Callable[[], object]], None]
UntilWaiting = Callable[..., None]

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


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_child_computes_what_is_in_flight(
    backend: BackendInstrumentation,
    in_thread: InThread,
    in_child: InChild,
    until_waiting: UntilWaiting,
    batched: bool,
) -> None:
    """Its parent's flight goes on, with its waiter, and each process has its own value."""
    in_flight, forked = threading.Event(), threading.Event()

    def slow() -> str:
        in_flight.set()
        assert forked.wait(_PATIENCE_S)
        return "of the parent"

    def child() -> None:
        assert backend.flights.waiters(_key("p")) == 0
        if batched:
            assert _batch(backend, "p", "q") == ["p", "q"]
        else:
            assert backend.cached(*_key("p"), lambda: "p") == "p"
        assert backend.cached(*_key("p"), lambda: "again") == "p"

    leader = in_thread(lambda: backend.cached(*_key("p"), slow))
    assert in_flight.wait(_PATIENCE_S)
    waiter = in_thread(lambda: backend.cached(*_key("p"), lambda: "again"))
    until_waiting(backend, _key("p"))
    in_child(child)
    assert backend.flights.waiters(_key("p")) == 1
    forked.set()
    assert leader.result(_PATIENCE_S) == waiter.result(_PATIENCE_S) == "of the parent"
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (1, 1)


def test_fork_inside_a_compute(backend: BackendInstrumentation, in_child: InChild) -> None:
    """The child may look up anything there, the key of that compute included."""

    def child() -> None:
        assert backend.cached(*_key("p"), lambda: "of the child") == "of the child"
        assert _batch(backend, "p", "q") == ["of the child", "q"]

    def compute() -> str:
        in_child(child)
        return "of the parent"

    assert backend.cached(*_key("p"), compute) == "of the parent"
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (0, 1)


def test_fork_within_a_change(backend: BackendInstrumentation, in_child: InChild) -> None:
    """A child that begins while another thread holds the locks of cache and flights is answered."""
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

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(_PATIENCE_S)
    in_child(child)
    forked.set()
    holder.join()


@pytest.mark.usefixtures("fast_switching")
def test_fifty_forks_beside_busy_threads(
    backend: BackendInstrumentation, in_thread: InThread, in_child: InChild
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
        assert backend.spans.outcomes()[names.LOOKUP.name, "pending"] == 0

    def read() -> None:
        while not stop.is_set():
            backend.ledger.snapshot()
            backend.spans.outcomes()

    reader = in_thread(read)
    workers = [in_thread(lambda me=me: work(me)) for me in range(4)]  # type: ignore[misc]
    for number in range(50):
        in_child(lambda number=number: child(number))  # type: ignore[misc]
    stop.set()
    made = sum(worker.result(_PATIENCE_S) for worker in workers)
    reader.result(_PATIENCE_S)
    backend.close()
    assert backend.stats.total_lookups == backend.trace.records == made
    assert backend.trace.path is not None
    trace = TraceReader(backend.trace.path)
    assert len(list(trace)) == made + 50 * 8
    assert trace.skipped == 0
