"""`cached`: one lookup, its value, its count and its record."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import json
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation, BackendStats, TraceWriter
from forwardscope.core.series import SeriesKey

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_KEY = (_OP, _VIEW, "p", _TOP_K)
_PATIENCE_S = 60

InThread = Callable[[Callable[[], Any]], "Future[Any]"]


def _look_up(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, compute)


def _never() -> Any:
    raise AssertionError("the cache has the value")


def _raising(error: BaseException) -> Callable[[], Any]:
    def compute() -> Any:
        raise error

    return compute


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_key_is_computed_once() -> None:
    """The second lookup returns the very value of the first, and no pass is paid."""
    backend, value = BackendInstrumentation(), object()
    assert _look_up(backend, "p", lambda: value) is value
    assert _look_up(backend, "p", _never) is value
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (1, 1, 1)
    assert (stats.batches_sent, stats.batched_prompts, stats.max_batch_size) == (0, 0, 0)


def test_none_is_a_value() -> None:
    """A compute that returns None is not repeated."""
    backend = BackendInstrumentation()
    assert _look_up(backend, "p", lambda: None) is None
    assert _look_up(backend, "p", _never) is None
    assert backend.stats.forward_passes == 1


@pytest.mark.parametrize(
    "other",
    [
        ("rolling_logprob", "base", "p", 8),
        ("next_token_dist", "ft", "p", 8),
        ("next_token_dist", "base", "p ", 8),
        ("next_token_dist", "base", "p", 9),
    ],
)
def test_each_part_of_the_key_counts(other: tuple[str, str, str, int]) -> None:
    """Another op, view, prompt or top_k never gets the entry of this key."""
    backend = BackendInstrumentation()
    backend.cached(*_KEY, lambda: "this")
    assert backend.cached(*other, lambda: "other") == "other"
    assert backend.cached(*_KEY, _never) == "this"
    assert backend.stats.forward_passes == 2


def test_evicted_key_is_computed_again() -> None:
    """The cache keeps its bound, and an evicted key costs a pass."""
    backend = BackendInstrumentation(cache_maxsize=1)
    for prompt in ("a", "b", "a"):
        _look_up(backend, prompt, lambda: 0)
    assert (backend.stats.forward_passes, backend.cache.evictions) == (3, 2)


def test_bounds_go_to_the_cache() -> None:
    """The two bounds of the constructor are the cache's, wrong ones included."""
    backend = BackendInstrumentation(cache_maxsize=3, cache_max_bytes=99)
    assert (backend.cache.maxsize, backend.cache.max_bytes) == (3, 99)
    with pytest.raises(ValueError, match=r"^maxsize must be positive; got 0$"):
        BackendInstrumentation(cache_maxsize=0)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_failed_compute(tmp_path: Path, error: BaseException) -> None:
    """Its exception is raised unchanged, counted and traced, and leaves no entry."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path)
    with pytest.raises(type(error)) as raised:
        _look_up(backend, "p", _raising(error))
    assert raised.value is error
    assert len(backend.cache) == 0
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (0, 1, 0)
    assert backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)].errors == Counter(
        {type(error).__name__: 1}
    )
    (record,) = _records(path)
    assert (record["hit"], record["error"]) == (False, type(error).__name__)
    assert _look_up(backend, "p", lambda: "now") == "now"
    assert (stats.cache_misses, stats.forward_passes) == (2, 1)


class _Prompt(str):
    """A prompt that a weak reference can point to."""


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_failed_lookup_keeps_nothing(batched: bool) -> None:
    """A prompt whose compute failed is released, so failures do not add up in memory."""
    backend, prompt = BackendInstrumentation(), _Prompt("p")
    alive = weakref.ref(prompt)
    with contextlib.suppress(ZeroDivisionError):
        if batched:
            backend.cached_batch(_OP, _VIEW, [prompt], _TOP_K, lambda _: [1 // 0])
        else:
            _look_up(backend, prompt, lambda: 1 // 0)
    del prompt
    gc.collect()
    assert alive() is None
    assert backend.stats.cache_misses == 1


def test_disabled_cache_pays_for_every_lookup(tmp_path: Path) -> None:
    """With the cache off nothing is kept; lookups are counted and traced all the same."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(cache_enabled=False, trace_path=path)
    values = [_look_up(backend, "p", lambda n=n: n) for n in range(3)]  # type: ignore[misc]
    assert values == [0, 1, 2]
    assert (len(backend.cache), backend.stats.forward_passes) == (0, 3)
    assert [record["hit"] for record in _records(path)] == [False] * 3


def test_compute_from_before_a_clear_does_not_store() -> None:
    """Its caller gets the value, and the cleared cache stays empty."""
    backend = BackendInstrumentation()

    def compute() -> str:
        backend.cache.clear()
        return "old"

    assert _look_up(backend, "p", compute) == "old"
    assert len(backend.cache) == 0
    assert _look_up(backend, "p", lambda: "new") == "new"


def test_compute_may_look_up_its_own_key() -> None:
    """The inner lookup computes instead of waiting for the outer one, whose value is kept."""
    backend, seen = BackendInstrumentation(), []

    def outer() -> str:
        seen.append(_look_up(backend, "p", lambda: "inner"))
        return "outer"

    assert _look_up(backend, "p", outer) == "outer"
    assert _look_up(backend, "p", _never) == "outer"
    assert seen == ["inner"]
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (1, 2, 2)


def test_failed_lookup_inside_a_compute_of_the_same_key() -> None:
    """The inner failure is counted alone; the outer value is stored."""
    backend = BackendInstrumentation()

    def outer() -> str:
        with pytest.raises(ValueError, match="no"):
            _look_up(backend, "p", _raising(ValueError("no")))
        return "outer"

    assert _look_up(backend, "p", outer) == "outer"
    assert _look_up(backend, "p", _never) == "outer"
    counts = backend.ledger.snapshot().series[SeriesKey(None, _VIEW, _OP)]
    assert (counts.hits, counts.forward_passes, counts.errors["ValueError"]) == (1, 1, 1)


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_compute_runs_in_a_copy_of_the_context(batched: bool) -> None:
    """Compute sees the caller's context variables; what it sets is gone afterwards."""
    backend, seen = BackendInstrumentation(), []
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("of the caller")

    def compute(indices: tuple[int, ...] | list[int] = (0,)) -> list[int]:
        seen.append(variable.get())
        variable.set("of the compute")
        if "fail" in seen:
            raise ValueError("no")
        return list(indices)

    def look_up(prompt: str) -> None:
        if batched:
            backend.cached_batch(_OP, _VIEW, [prompt], _TOP_K, compute)
        else:
            _look_up(backend, prompt, compute)

    look_up("p")
    assert (seen, variable.get()) == (["of the caller"], "of the caller")
    seen[:] = ["fail"]
    with pytest.raises(ValueError, match="no"):
        look_up("q")
    assert (seen, variable.get()) == (["fail", "of the caller"], "of the caller")


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_requested_stop(tmp_path: Path, in_thread: InThread, batched: bool) -> None:
    """A miss raises KeyboardInterrupt in any thread, uncounted; hits are still answered."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path)
    _look_up(backend, "stored", lambda: "value")
    backend.request_stop()

    def look_up(prompt: str) -> Any:
        if not batched:
            return _look_up(backend, prompt, _never)
        return backend.cached_batch(_OP, _VIEW, [prompt], _TOP_K, lambda _: [_never()])[0]

    for _ in range(2):  # the second one finds the key free
        with pytest.raises(KeyboardInterrupt):
            look_up("p")
        stopped = in_thread(lambda: look_up("p"))
        assert type(stopped.exception(_PATIENCE_S)) is KeyboardInterrupt
        assert backend.flights.waiters(_KEY) == 0
        assert look_up("stored") == "value"
    assert in_thread(lambda: look_up("stored")).result(_PATIENCE_S) == "value"
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.batches_sent) == (3, 1, 0)
    assert [record["hit"] for record in _records(path)] == [False, True, True, True]


def test_stop_in_a_batch_with_hits() -> None:
    """The whole batch raises, its hits are counted, and its misses are not."""
    backend = BackendInstrumentation()
    _look_up(backend, "stored", lambda: "value")
    backend.request_stop()
    with pytest.raises(KeyboardInterrupt):
        backend.cached_batch(_OP, _VIEW, ["p", "stored", "q"], _TOP_K, lambda _: [_never()])
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.batches_sent) == (1, 1, 0)


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_waiter_after_a_requested_stop(
    in_thread: InThread, until_waiting: Callable[..., None], error: ValueError | None
) -> None:
    """A pass in flight ends and answers its waiters; where it fails, no waiter takes over."""
    backend, in_flight = BackendInstrumentation(), threading.Event()

    def compute() -> str:
        in_flight.set()
        until_waiting(backend, _KEY)
        backend.request_stop()
        if error is not None:
            raise error
        return "value"

    leader = in_thread(lambda: backend.cached(*_KEY, compute))
    assert in_flight.wait(_PATIENCE_S)
    waiter = in_thread(lambda: backend.cached(*_KEY, _never))
    assert leader.exception(_PATIENCE_S) is error
    if error is None:
        assert leader.result() == waiter.result(_PATIENCE_S) == "value"
    else:
        assert type(waiter.exception(_PATIENCE_S)) is KeyboardInterrupt
    assert backend.stats.cache_misses == 1


def test_full_disk_fails_no_lookup() -> None:
    """Each record that is not written is counted, and the lookup returns its value."""
    backend = BackendInstrumentation(trace_path="/dev/full")
    with pytest.warns(RuntimeWarning, match="No space left on device; the run goes on"):
        assert _look_up(backend, "p", lambda: "value") == "value"
    assert _look_up(backend, "p", _never) == "value"
    assert (backend.trace.records, backend.trace.write_errors) == (0, 2)
    assert backend.stats.total_lookups == 2
    backend.close()


def test_lookups_work_after_close(tmp_path: Path) -> None:
    """`close` can be called twice; later lookups are answered and counted, but not traced."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path)
    _look_up(backend, "p", lambda: 0)
    backend.close()
    backend.close()
    _look_up(backend, "p", _never)
    assert (backend.stats.total_lookups, len(_records(path))) == (2, 1)


def test_trace_can_be_assigned(tmp_path: Path) -> None:
    """Records go to the writer that is assigned; the one before stays open for its maker."""
    backend = BackendInstrumentation(trace_path=tmp_path / "one.jsonl")
    first = backend.trace
    _look_up(backend, "p", lambda: 0)
    backend.trace = TraceWriter(tmp_path / "two.jsonl")
    _look_up(backend, "p", _never)
    assert first.enabled
    assert [record["hit"] for record in _records(tmp_path / "one.jsonl")] == [False]
    assert [record["hit"] for record in _records(tmp_path / "two.jsonl")] == [True]
    backend.close()
    assert not backend.trace.enabled
    first.close()


def test_new_instrumentation_has_counted_nothing() -> None:
    """It has a name, an empty cache, zero counts and no open file."""
    backend = BackendInstrumentation()
    assert (backend.name, len(backend.cache), backend.trace.enabled) == ("default", 0, False)
    assert backend.stats == BackendStats()
    assert backend.cache.get(("op", "view", "prompt", 1)) is MISS
    assert BackendInstrumentation(name="hf").name == "hf"
