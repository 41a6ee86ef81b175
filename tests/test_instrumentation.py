"""Lookups, single or in a batch: values, counts, errors and a requested stop."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwardscope import BackendInstrumentation, BackendStats, TraceEvent, TraceReader, TraceWriter
from forwardscope.core.series import Counts

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8
_KEY = (_OP, _VIEW, "p", _TOP_K)
_PATIENCE_S = 60

LookUp = Callable[[BackendInstrumentation, str, Callable[[], Any]], Any]


def _single(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, compute)


def _batch(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached_batch(_OP, _VIEW, [prompt], _TOP_K, lambda _: [compute()])[0]


each_form = pytest.mark.parametrize("look_up", [_single, _batch], ids=["single", "batch"])


@pytest.fixture
def backend(tmp_path: Path) -> BackendInstrumentation:
    """Return a backend that traces."""
    return BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")


def _never() -> Any:
    raise AssertionError("the cache has the value")


def _raising(error: BaseException) -> Callable[[], Any]:
    def compute() -> Any:
        raise error

    return compute


def _counts(backend: BackendInstrumentation) -> Counts:
    return sum(backend.ledger.snapshot().series.values(), Counts())


def _events(backend: BackendInstrumentation) -> list[TraceEvent]:
    assert backend.trace.path is not None
    return list(TraceReader(backend.trace.path))


def test_new_instrumentation() -> None:
    """It has counted nothing, writes no file, and its bounds are those of the cache."""
    backend = BackendInstrumentation(cache_maxsize=3, cache_max_bytes=99)
    assert (backend.name, len(backend.cache), backend.trace.enabled) == ("default", 0, False)
    assert (backend.cache.maxsize, backend.cache.max_bytes) == (3, 99)
    assert backend.stats == BackendStats()
    with pytest.raises(ValueError, match=r"^maxsize must be positive; got 0$"):
        BackendInstrumentation(cache_maxsize=0)


@each_form
@pytest.mark.parametrize("value", [object(), None])
def test_key_is_computed_once(look_up: LookUp, value: object) -> None:
    """Later lookups, single or in a batch, return the same object; None is a value."""
    backend = BackendInstrumentation()
    assert look_up(backend, "p", lambda: value) is value
    assert _single(backend, "p", _never) is value
    assert _batch(backend, "p", _never) is value
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (2, 1, 1)


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


@each_form
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_failed_compute(
    backend: BackendInstrumentation, look_up: LookUp, error: BaseException
) -> None:
    """Its exception is raised unchanged, counted and traced, and leaves no entry."""
    with pytest.raises(type(error)) as raised:
        look_up(backend, "p", _raising(error))
    assert raised.value is error
    stats, name = backend.stats, type(error).__name__
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (0, 1, 0)
    assert _counts(backend).errors == Counter({name: 1})
    assert [(event.hit, event.error) for event in _events(backend)] == [(False, name)]
    assert len(backend.cache) == 0
    assert look_up(backend, "p", lambda: "value") == "value"


class _Prompt(str):
    """A prompt that a weak reference can point to."""


@each_form
def test_failed_lookup_is_released(look_up: LookUp) -> None:
    """Nothing holds the prompt of a failed lookup, so failures do not add up in memory."""
    backend, prompt = BackendInstrumentation(), _Prompt("p")
    alive = weakref.ref(prompt)
    with contextlib.suppress(ZeroDivisionError):
        look_up(backend, prompt, lambda: 1 // 0)
    del prompt
    gc.collect()
    assert alive() is None
    assert backend.stats.cache_misses == 1


@each_form
def test_compute_from_before_a_clear_does_not_store(look_up: LookUp) -> None:
    """Its caller gets the value, and the cleared cache stays empty."""
    backend = BackendInstrumentation()

    def compute() -> str:
        backend.cache.clear()
        return "old"

    assert look_up(backend, "p", compute) == "old"
    assert len(backend.cache) == 0
    assert look_up(backend, "p", lambda: "new") == "new"


@each_form
@pytest.mark.parametrize("fails", [False, True])
def test_compute_looks_up_its_own_key(look_up: LookUp, fails: bool) -> None:
    """The inner lookup computes; the outer value is stored, also where the inner one fails."""
    backend = BackendInstrumentation()

    def outer() -> str:
        if fails:
            with pytest.raises(ValueError, match="no"):
                look_up(backend, "p", _raising(ValueError("no")))
        else:
            assert look_up(backend, "p", lambda: "inner") == "inner"
        return "outer"

    assert look_up(backend, "p", outer) == "outer"
    assert look_up(backend, "p", _never) == "outer"
    counts = _counts(backend)
    assert (counts.hits, counts.forward_passes, counts.forward_errors) == (1, 2 - fails, fails)


class _Measured:
    """A value with a size that a lookup of its own key determines."""

    def __init__(self, look_up: Callable[[], int]) -> None:
        self._look_up = look_up

    @property
    def nbytes(self) -> int:
        return self._look_up()


@each_form
def test_leader_looks_up_its_own_key_outside_of_its_compute(
    in_thread: Any, look_up: LookUp
) -> None:
    """The thread computes the key and does not wait for itself."""
    backend = BackendInstrumentation()
    value = _Measured(lambda: look_up(backend, "p", lambda: 8))
    assert in_thread(lambda: look_up(backend, "p", lambda: value)).result(_PATIENCE_S) is value
    assert look_up(backend, "p", _never) is value
    assert backend.stats.forward_passes == 2


@each_form
@pytest.mark.parametrize("fails", [False, True])
def test_compute_runs_in_a_copy_of_the_context(look_up: LookUp, fails: bool) -> None:
    """Compute reads the caller's context variables; the caller does not see what it sets."""
    backend, seen = BackendInstrumentation(), []
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("of the caller")

    def compute() -> None:
        seen.append(variable.get())
        variable.set("of the compute")
        if fails:
            raise ValueError

    with contextlib.suppress(ValueError):
        look_up(backend, "p", compute)
    assert (seen, variable.get()) == (["of the caller"], "of the caller")


@each_form
def test_requested_stop(backend: BackendInstrumentation, in_thread: Any, look_up: LookUp) -> None:
    """A miss raises KeyboardInterrupt in any thread, uncounted; hits are still answered."""
    _single(backend, "stored", lambda: "value")
    backend.request_stop()
    for _ in range(2):  # the second one finds the key free
        with pytest.raises(KeyboardInterrupt):
            look_up(backend, "p", _never)
        stopped = in_thread(lambda: look_up(backend, "p", _never))
        assert type(stopped.exception(_PATIENCE_S)) is KeyboardInterrupt
        assert backend.flights.waiters(_KEY) == 0
        assert look_up(backend, "stored", _never) == "value"
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.batches_sent) == (2, 1, 0)
    assert [event.hit for event in _events(backend)] == [False, True, True]


def test_stop_in_a_batch_with_hits() -> None:
    """The whole batch raises, its hits are counted, and its misses are not."""
    backend = BackendInstrumentation()
    _single(backend, "stored", lambda: "value")
    backend.request_stop()
    with pytest.raises(KeyboardInterrupt):
        backend.cached_batch(_OP, _VIEW, ["p", "stored", "q"], _TOP_K, lambda _: [_never()])
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.batches_sent) == (1, 1, 0)


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_waiter_after_a_requested_stop(
    in_thread: Any, until_waiting: Any, error: ValueError | None
) -> None:
    """A pass in flight answers its waiters; where it fails, no waiter computes instead."""
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


@each_form
def test_full_disk_fails_no_lookup(look_up: LookUp) -> None:
    """Each record that is not written is counted, and the lookup returns its value."""
    backend = BackendInstrumentation(trace_path="/dev/full")
    with pytest.warns(RuntimeWarning, match="No space left on device; the run goes on"):
        assert look_up(backend, "p", lambda: "value") == "value"
    assert look_up(backend, "p", _never) == "value"
    assert (backend.trace.records, backend.trace.write_errors) == (0, 2)
    assert backend.stats.total_lookups == 2
    backend.close()


def test_lookups_work_after_close(backend: BackendInstrumentation) -> None:
    """`close` can be called twice; later lookups are answered and counted, but not traced."""
    _single(backend, "p", lambda: 0)
    backend.close()
    backend.close()
    _single(backend, "p", _never)
    assert (backend.stats.total_lookups, len(_events(backend))) == (2, 1)


def test_trace_can_be_assigned(backend: BackendInstrumentation, tmp_path: Path) -> None:
    """Records go to the writer that is assigned; the one before stays open."""
    first = backend.trace
    _single(backend, "p", lambda: 0)
    backend.trace = TraceWriter(tmp_path / "two.jsonl")
    _single(backend, "p", _never)
    assert first.enabled
    assert [event.hit for event in TraceReader(tmp_path / "trace.jsonl")] == [False]
    assert [event.hit for event in TraceReader(tmp_path / "two.jsonl")] == [True]
    backend.close()
    assert not backend.trace.enabled
    first.close()
