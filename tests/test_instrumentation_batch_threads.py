"""`cached_batch` under threads: what is under way is shared, and no circle can close."""

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

from forwardscope import BackendInstrumentation
from forwardscope.core.keys import LookupKey, prompt_hash
from forwardscope.core.series import Counts, SeriesKey

pytestmark = pytest.mark.timeout(120)

InThread = Callable[[Callable[[], Any]], "Future[Any]"]
UntilWaiting = Callable[..., None]
Interrupt = Callable[[threading.Event], None]

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_PATIENCE_S = 60


def _key(prompt: str) -> LookupKey:
    return (_OP, _VIEW, prompt, _TOP_K)


def _ask(
    backend: BackendInstrumentation, prompts: str, compute: Callable[[list[int]], Any]
) -> list[Any]:
    return backend.cached_batch(_OP, _VIEW, list(prompts), _TOP_K, compute)


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot()[SeriesKey(None, _VIEW, _OP)]


def _batches(backend: BackendInstrumentation) -> tuple[int, int, int]:
    stats = backend.stats
    return stats.batches_sent, stats.batched_prompts, stats.max_batch_size


def _records(backend: BackendInstrumentation) -> list[dict[str, Any]]:
    assert backend.trace.path is not None
    return [json.loads(line) for line in backend.trace.path.read_text("ascii").splitlines()]


@pytest.fixture
def backend(tmp_path: Path) -> BackendInstrumentation:
    return BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")


def test_batch_joins_what_is_under_way(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """It computes what nobody does, then waits for the rest, and records all in order."""
    calls, under_way = [], threading.Event()

    def slow() -> str:
        under_way.set()
        until_waiting(backend, _key("b"))
        return "B"

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["A", "C"]

    single = in_thread(lambda: backend.cached(*_key("b"), slow))
    assert under_way.wait(_PATIENCE_S)
    assert _ask(backend, "abcb", compute) == list("ABCB")
    assert single.result(_PATIENCE_S) == "B"
    assert calls == [[0, 2]]
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 2, 3)
    assert _batches(backend) == (1, 2, 2)
    asked = [(record["prompt_hash"], record.get("result")) for record in _records(backend)[1:]]
    assert asked == [
        (prompt_hash("a"), None),
        (prompt_hash("b"), "coalesced"),
        (prompt_hash("c"), None),
        (prompt_hash("b"), "coalesced"),
    ]


@pytest.mark.parametrize("enabled", [True, False], ids=["cache on", "cache off"])
def test_batch_that_only_waits_sends_nothing(
    tmp_path: Path, in_thread: InThread, until_waiting: UntilWaiting, clock: Any, enabled: bool
) -> None:
    """Where all is under way elsewhere nothing is computed; the wait is its wall time."""
    backend = BackendInstrumentation(
        cache_enabled=enabled,
        trace_path=tmp_path / "trace.jsonl",
        cache_maxsize=9,
        clock=clock,
    )
    calls: list[list[int]] = []
    under_way = threading.Event()

    def slow(indices: list[int]) -> list[str]:
        under_way.set()
        until_waiting(backend, _key("a"))
        clock.advance_ms(5)
        return ["A", "B"]

    other = in_thread(lambda: _ask(backend, "ab", slow))
    assert under_way.wait(_PATIENCE_S)
    assert _ask(backend, "aba", calls.append) == list("ABA")
    assert other.result(_PATIENCE_S) == ["A", "B"]
    assert calls == []
    assert _batches(backend) == (1, 2, 2)
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (3, 2)
    waited = [r["wall_ms"] for r in _records(backend) if r.get("result") == "coalesced"]
    assert waited == [5.0, 0.0, 0.0]


def test_single_joins_a_batch(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """A prompt that a batch is computing is not computed again by a single call."""

    def compute(indices: list[int]) -> list[str]:
        singles.append(in_thread(lambda: backend.cached(*_key("b"), lambda: "again")))
        until_waiting(backend, _key("b"))
        return ["A", "B"]

    singles: list[Future[str]] = []
    assert _ask(backend, "ab", compute) == ["A", "B"]
    assert singles[0].result(_PATIENCE_S) == "B"
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (1, 2)


def test_overlapping_batches_in_opposite_order(
    backend: BackendInstrumentation,
    in_thread: InThread,
    before_claim: Callable[[Callable[[], None]], None],
) -> None:
    """Of two batches that miss the same prompts, one claims all of them and the other waits."""
    both, seen = threading.Barrier(2), set()

    def until_both_have_looked() -> None:
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait(_PATIENCE_S)

    before_claim(until_both_have_looked)
    calls: dict[str, list[list[int]]] = {"abc": [], "cba": []}

    def ask(prompts: str) -> list[str]:
        def compute(indices: list[int]) -> list[str]:
            calls[prompts].append(indices)
            return [prompts[index].upper() for index in indices]

        return _ask(backend, prompts, compute)

    futures = [in_thread(lambda: ask("abc")), in_thread(lambda: ask("cba"))]
    assert [future.result(_PATIENCE_S) for future in futures] == [list("ABC"), list("CBA")]
    assert sorted(calls.values()) == [[], [[0, 1, 2]]]
    counts = _counts(backend)
    assert (counts.forward_passes, counts.hits + counts.coalesced) == (3, 3)
    assert _batches(backend) == (1, 3, 3)


def test_what_others_failed_is_computed_in_one_more_call(
    backend: BackendInstrumentation, in_thread: InThread, until_waiting: UntilWaiting
) -> None:
    """The waiting batch takes all of it over at once, after what it led itself."""
    calls: list[list[int]] = []

    def failing(indices: list[int]) -> list[str]:
        under_way.set()
        until_waiting(backend, _key("x"))
        raise error

    def compute(indices: list[int]) -> list[str]:
        calls.append(indices)
        return ["xayb"[index].upper() for index in indices]

    error, under_way = ValueError("no"), threading.Event()
    other = in_thread(lambda: _ask(backend, "xy", failing))
    assert under_way.wait(_PATIENCE_S)
    assert _ask(backend, "xayb", compute) == list("XAYB")
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
    """Where the take-over fails too, the prompts of the first call were passes and stay stored."""

    def failing(indices: list[int]) -> list[str]:
        under_way.set()
        until_waiting(backend, _key("x"))
        raise ValueError("no")

    def compute(indices: list[int]) -> list[str]:
        if indices == [1]:
            return ["A"]
        raise OSError("no")

    under_way = threading.Event()
    other = in_thread(lambda: _ask(backend, "x", failing))
    assert under_way.wait(_PATIENCE_S)
    with pytest.raises(OSError, match="no"):
        _ask(backend, "xa", compute)
    assert isinstance(other.exception(_PATIENCE_S), ValueError)
    counts = _counts(backend)
    assert (counts.forward_passes, counts.errors) == (1, Counter(ValueError=1, OSError=1))
    assert backend.cached(*_key("a"), lambda: "again") == "A"
    assert len(_records(backend)) == backend.stats.total_lookups == 4


def test_failed_batch_does_not_count_what_it_waits_for(
    backend: BackendInstrumentation, in_thread: InThread
) -> None:
    """What another computes when this batch fails was not answered, and nobody is stuck."""

    def slow() -> str:
        under_way.set()
        assert failed.wait(_PATIENCE_S)
        return "X"

    def failing(indices: list[int]) -> list[str]:
        raise ValueError("no")

    under_way, failed = threading.Event(), threading.Event()
    single = in_thread(lambda: backend.cached(*_key("x"), slow))
    assert under_way.wait(_PATIENCE_S)
    with pytest.raises(ValueError, match="no"):
        _ask(backend, "axb", failing)
    failed.set()
    assert single.result(_PATIENCE_S) == "X"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 0, 1)
    assert counts.errors == Counter(ValueError=2)
    assert _ask(backend, "axb", lambda indices: ["A", "B"]) == ["A", "X", "B"]


def test_batch_inside_a_compute_never_waits(
    backend: BackendInstrumentation, in_thread: InThread
) -> None:
    """It computes what another thread has under way; that one ends only after it."""

    def slow() -> str:
        under_way.set()
        assert ended.wait(_PATIENCE_S)
        return "slow"

    under_way, ended = threading.Event(), threading.Event()
    single = in_thread(lambda: backend.cached(*_key("x"), slow))
    assert under_way.wait(_PATIENCE_S)
    inner = backend.cached(*_key("outer"), lambda: _ask(backend, "ax", lambda indices: indices))
    ended.set()
    assert (inner, single.result(_PATIENCE_S)) == ([0, 1], "slow")
    assert (_counts(backend).coalesced, _counts(backend).forward_passes) == (0, 4)


def test_interrupted_batch(
    backend: BackendInstrumentation,
    in_thread: InThread,
    until_waiting: UntilWaiting,
    interrupt: Interrupt,
) -> None:
    """What it computed before it waited is counted and kept; what it waited for is not."""
    under_way, came_out = threading.Event(), threading.Event()

    def slow() -> str:
        under_way.set()
        until_waiting(backend, _key("x"))
        interrupt(came_out)
        return "X"

    single = in_thread(lambda: backend.cached(*_key("x"), slow))
    assert under_way.wait(_PATIENCE_S)
    with pytest.raises(KeyboardInterrupt):
        _ask(backend, "axa", lambda indices: ["A"])
    came_out.set()
    assert single.result(_PATIENCE_S) == "X"
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (0, 1, 2)
    assert backend.stats.total_lookups == len(_records(backend)) == 3
    assert _ask(backend, "ax", lambda indices: []) == ["A", "X"]


def test_many_batches_compute_each_prompt_once(
    backend: BackendInstrumentation, in_thread: InThread
) -> None:
    """Eight threads that ask the same prompts in eight orders pay each of them once."""
    prompts = [chr(code) for code in range(0x4E00, 0x4E00 + 60)]
    start, computed, lock = threading.Barrier(8), Counter[str](), threading.Lock()

    def ask_chunk(chunk: list[str]) -> None:
        def compute(indices: list[int]) -> list[str]:
            with lock:
                computed.update(chunk[index] for index in indices)
            return [chunk[index] * 2 for index in indices]

        assert _ask(backend, "".join(chunk), compute) == [prompt * 2 for prompt in chunk]

    def ask(seed: int) -> None:
        mine = random.Random(seed).sample(prompts, 60)  # noqa: S311 - an order, no secret
        start.wait(_PATIENCE_S)
        for size in (7, 20, 60):
            for at in range(0, 60, size):
                ask_chunk(mine[at : at + size])

    for future in [in_thread(partial(ask, seed)) for seed in range(8)]:
        future.result(_PATIENCE_S)
    assert computed == Counter(prompts)
    assert backend.stats.forward_passes == backend.stats.batched_prompts == 60
    assert backend.stats.total_lookups == 8 * 3 * 60 == len(_records(backend))
