"""`cached_batch` under threads: forward passes are shared, and no deadlock is possible."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.series import Counts, SeriesKey

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
UntilWaiting = Callable[..., None]
Interrupt = Callable[[threading.Event], None]
Together = Callable[[int, Callable[[int], Any]], list[Any]]

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_PATIENCE_S = 60


def _key(prompt: str) -> LookupKey:
    return (_OP, _VIEW, prompt, _TOP_K)


def _look_up(
    backend: BackendInstrumentation, prompts: str, compute: Callable[[list[int]], Any]
) -> list[Any]:
    return backend.cached_batch(_OP, _VIEW, list(prompts), _TOP_K, compute)


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)]


def _batches(backend: BackendInstrumentation) -> tuple[int, int, int]:
    stats = backend.stats
    return stats.batches_sent, stats.batched_prompts, stats.max_batch_size


def _records(backend: BackendInstrumentation) -> list[dict[str, Any]]:
    assert backend.trace.path is not None
    return [json.loads(line) for line in backend.trace.path.read_text("ascii").splitlines()]


@pytest.fixture
def backend(tmp_path: Path) -> BackendInstrumentation:
    """Return a backend that traces."""
    return BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")


def test_batch_joins_a_pass_in_flight(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """It computes what is not in flight, then waits for the rest; records are in order."""
    calls, in_flight = [], threading.Event()

    def slow() -> str:
        in_flight.set()
        until_waiting(backend, _key("b"))
        return "B"

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["A", "C"]

    single = in_thread(lambda: backend.cached(*_key("b"), slow))
    assert in_flight.wait(_PATIENCE_S)
    assert _look_up(backend, "abcb", compute) == list("ABCB")
    assert single.result(_PATIENCE_S) == "B"
    assert calls == [[0, 2]]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 2, 3)
    assert _batches(backend) == (1, 2, 2)
    traced = [(record["prompt_hash"], record.get("result")) for record in _records(backend)[1:]]
    assert traced == [
        (prompt_hash("a"), None),
        (prompt_hash("b"), "coalesced"),
        (prompt_hash("c"), None),
        (prompt_hash("b"), "coalesced"),
    ]


@pytest.mark.parametrize("enabled", [True, False], ids=["cache on", "cache off"])
def test_batch_that_only_waits_sends_nothing(
    tmp_path: Path, in_thread: InThread, hooked_clock: Any, enabled: bool
) -> None:
    """Where all is in flight elsewhere, compute is not called; the wait is the wall time."""
    backend = BackendInstrumentation(
        cache_enabled=enabled, trace_path=tmp_path / "trace.jsonl", clock=hooked_clock
    )
    calls: list[list[int]] = []
    in_flight, waiting = threading.Event(), threading.Event()

    def slow(indices: list[int]) -> list[str]:
        in_flight.set()
        assert waiting.wait(_PATIENCE_S)
        hooked_clock.advance_ms(5)
        return ["A", "B"]

    other = in_thread(lambda: _look_up(backend, "ab", slow))
    assert in_flight.wait(_PATIENCE_S)
    hooked_clock.run_at(3, waiting.set)
    assert _look_up(backend, "aba", calls.append) == list("ABA")
    assert other.result(_PATIENCE_S) == ["A", "B"]
    assert calls == []
    assert _batches(backend) == (1, 2, 2)
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (3, 2)
    waited = [r["wall_ms"] for r in _records(backend) if r.get("result") == "coalesced"]
    assert waited == [5.0, 0.0, 0.0]


def test_single_joins_a_batch(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """A single lookup waits for a prompt that a batch computes."""

    def compute(indices: list[int]) -> list[str]:
        singles.append(in_thread(lambda: backend.cached(*_key("b"), lambda: "again")))
        until_waiting(backend, _key("b"))
        return ["A", "B"]

    singles: list[Future[str]] = []
    assert _look_up(backend, "ab", compute) == ["A", "B"]
    assert singles[0].result(_PATIENCE_S) == "B"
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (1, 2)


@pytest.mark.usefixtures("fast_switching")
def test_overlapping_batches_in_opposite_order(
    tmp_path: Path, in_thread: InThread, hooked_clock: Any
) -> None:
    """Two batches that miss the same prompts at once compute each of them once between them.

    In most rounds each leads some of them, so each waits for the other in the end.
    """
    backend = BackendInstrumentation(
        cache_maxsize=5000, trace_path=tmp_path / "trace.jsonl", clock=hooked_clock
    )
    both, computed, lock = threading.Barrier(2), Counter[str](), threading.Lock()

    def look_up(prompts: list[str]) -> None:
        def compute(indices: list[int]) -> list[str]:
            with lock:
                computed.update(prompts[index] for index in indices)
            return [prompts[index] * 2 for index in indices]

        values = _look_up(backend, "".join(prompts), compute)
        assert values == [prompt * 2 for prompt in prompts]

    for first in range(0x4E00, 0x4E00 + 5000, 500):
        prompts = [chr(code) for code in range(first, first + 500)]
        hooked_clock.run_at(2, lambda: both.wait(_PATIENCE_S))  # both have missed, none has claimed
        futures = [in_thread(partial(look_up, mine)) for mine in (prompts, prompts[::-1])]
        for future in futures:
            future.result(_PATIENCE_S)
    assert set(computed.values()) == {1}
    counts = _counts(backend)
    assert (counts.forward_passes, counts.hits + counts.coalesced) == (5000, 5000)
    assert backend.stats.batched_prompts == len(computed) == 5000
    assert len(_records(backend)) == 10_000


def test_what_others_failed_is_computed_in_one_more_call(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """The waiting batch computes all of it at once, after what it led itself."""
    calls: list[list[int]] = []

    def failing(indices: list[int]) -> list[str]:
        in_flight.set()
        until_waiting(backend, _key("x"), 2)
        raise error

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["xayb"[index].upper() for index in indices]

    error, in_flight = ValueError("no"), threading.Event()
    other = in_thread(lambda: _look_up(backend, "xy", failing))
    assert in_flight.wait(_PATIENCE_S)
    assert _look_up(backend, "xayb", compute) == list("XAYB")
    assert other.exception(_PATIENCE_S) is error
    assert calls == [[1, 3], [0, 2]]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 0, 4)
    assert counts.errors == Counter(ValueError=2)
    assert _batches(backend) == (3, 6, 2)
    answered = [record["prompt_hash"] for record in _records(backend) if "error" not in record]
    assert answered == [prompt_hash(prompt) for prompt in "xayb"]


def test_failure_after_the_first_call_counts_what_was_answered(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """Where a second call fails, the prompts of the first one count as passes and stay stored."""

    def failing(indices: list[int]) -> list[str]:
        in_flight.set()
        until_waiting(backend, _key("x"))
        raise ValueError("no")

    def compute(indices: list[int]) -> list[str]:
        if indices == [1]:
            return ["A"]
        raise OSError("no")

    in_flight = threading.Event()
    other = in_thread(lambda: _look_up(backend, "x", failing))
    assert in_flight.wait(_PATIENCE_S)
    with pytest.raises(OSError, match="no"):
        _look_up(backend, "xa", compute)
    assert isinstance(other.exception(_PATIENCE_S), ValueError)
    counts = _counts(backend)
    assert (counts.forward_passes, counts.errors) == (1, Counter(ValueError=1, OSError=1))
    assert backend.cached(*_key("a"), lambda: "again") == "A"
    assert len(_records(backend)) == backend.stats.total_lookups == 4


def test_failed_batch_does_not_count_what_it_waits_for(
    backend: BackendInstrumentation, in_thread: InThread
) -> None:
    """A prompt that another thread computes when the batch fails is not counted for it."""

    def slow() -> str:
        in_flight.set()
        assert failed.wait(_PATIENCE_S)
        return "X"

    def failing(indices: list[int]) -> list[str]:
        raise ValueError("no")

    in_flight, failed = threading.Event(), threading.Event()
    single = in_thread(lambda: backend.cached(*_key("x"), slow))
    assert in_flight.wait(_PATIENCE_S)
    with pytest.raises(ValueError, match="no"):
        _look_up(backend, "axb", failing)
    failed.set()
    assert single.result(_PATIENCE_S) == "X"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 0, 1)
    assert counts.errors == Counter(ValueError=2)
    assert _look_up(backend, "axb", lambda indices: ["A", "B"]) == ["A", "X", "B"]


def test_batch_inside_a_compute_never_waits(
    backend: BackendInstrumentation, in_thread: InThread
) -> None:
    """It computes what another thread has in flight, which may end only after it."""

    def slow() -> str:
        in_flight.set()
        assert ended.wait(_PATIENCE_S)
        return "slow"

    in_flight, ended = threading.Event(), threading.Event()
    single = in_thread(lambda: backend.cached(*_key("x"), slow))
    assert in_flight.wait(_PATIENCE_S)
    inner = backend.cached(*_key("outer"), lambda: _look_up(backend, "ax", lambda indices: indices))
    ended.set()
    assert (inner, single.result(_PATIENCE_S)) == ([0, 1], "slow")
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (0, 4)


def test_interrupted_batch(
    tmp_path: Path, in_thread: InThread, hooked_clock: Any, interrupt: Interrupt
) -> None:
    """What it computed before it waited is counted and stored; what it waited for is not."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl", clock=hooked_clock)
    in_flight, waiting, came_out = threading.Event(), threading.Event(), threading.Event()

    def slow() -> str:
        in_flight.set()
        assert waiting.wait(_PATIENCE_S)
        interrupt(came_out)
        return "X"

    single = in_thread(lambda: backend.cached(*_key("x"), slow))
    assert in_flight.wait(_PATIENCE_S)
    hooked_clock.run_at(5, waiting.set)  # start, lookup in memory, compute's two, then the wait
    with pytest.raises(KeyboardInterrupt):
        _look_up(backend, "axa", lambda indices: ["A"])
    came_out.set()
    assert single.result(_PATIENCE_S) == "X"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 1, 2)
    assert backend.stats.total_lookups == len(_records(backend)) == 3
    assert _look_up(backend, "ax", lambda indices: []) == ["A", "X"]


@pytest.mark.usefixtures("fast_switching")
@pytest.mark.parametrize("threads", [8, 32])
def test_many_batches_compute_each_prompt_once(
    backend: BackendInstrumentation, together: Together, threads: int
) -> None:
    """Threads that look up the same prompts in different orders pay for each of them once."""
    prompts = [chr(code) for code in range(0x4E00, 0x4E00 + 60)]
    computed, lock = Counter[str](), threading.Lock()

    def look_up_chunk(chunk: list[str]) -> None:
        def compute(indices: list[int]) -> list[str]:
            with lock:
                computed.update(chunk[index] for index in indices)
            return [chunk[index] * 2 for index in indices]

        assert _look_up(backend, "".join(chunk), compute) == [prompt * 2 for prompt in chunk]

    def work(me: int) -> None:
        mine = random.Random(me).sample(prompts, 60)  # noqa: S311 - an order, no secret
        for size in (7, 20, 60):
            for at in range(0, 60, size):
                look_up_chunk(mine[at : at + size])

    together(threads, work)
    assert computed == Counter(prompts)
    assert backend.stats.forward_passes == backend.stats.batched_prompts == 60
    assert backend.stats.total_lookups == threads * 3 * 60 == len(_records(backend))


def test_batch_in_flight_at_a_clear(in_thread: InThread, until_waiting: UntilWaiting) -> None:
    """A batch that begins after the clear computes anew, and its values stay."""
    backend, in_flight, cleared = BackendInstrumentation(), threading.Event(), threading.Event()

    def old(indices: list[int]) -> list[str]:
        in_flight.set()
        assert cleared.wait(_PATIENCE_S)
        return ["old a", "old b"]

    leader = in_thread(lambda: _look_up(backend, "ab", old))
    assert in_flight.wait(_PATIENCE_S)
    waiter = in_thread(lambda: _look_up(backend, "a", lambda indices: ["again"]))
    until_waiting(backend, _key("a"))
    backend.cache.clear()
    assert _look_up(backend, "bc", lambda indices: ["new b", "new c"]) == ["new b", "new c"]
    cleared.set()
    assert leader.result(_PATIENCE_S) == ["old a", "old b"]
    assert waiter.result(_PATIENCE_S) == ["old a"]
    assert [backend.cache.get(_key(prompt)) for prompt in "abc"] == [MISS, "new b", "new c"]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 1, 4)
