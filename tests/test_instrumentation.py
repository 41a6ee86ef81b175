"""`cached`: one question, its value, its count and its record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation, BackendStats, TraceWriter
from forwardscope.core.series import SeriesKey

_OP, _VIEW, _TOP_K = "next_token_dist", "base", 8


def _ask(backend: BackendInstrumentation, prompt: str, compute: Callable[[], Any]) -> Any:
    return backend.cached(_OP, _VIEW, prompt, _TOP_K, compute)


def _never() -> Any:
    raise AssertionError("this was to be answered by the cache")


def _raising(error: BaseException) -> Callable[[], Any]:
    def compute() -> Any:
        raise error

    return compute


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_a_question_is_computed_once() -> None:
    """The second time the very value of the first comes back, and no pass is paid."""
    backend, value = BackendInstrumentation(), object()
    assert _ask(backend, "p", lambda: value) is value
    assert _ask(backend, "p", _never) is value
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (1, 1, 1)
    assert (stats.batches_sent, stats.batched_prompts, stats.max_batch_size) == (0, 0, 0)


def test_none_is_a_value() -> None:
    """A compute that gives None has answered the question."""
    backend = BackendInstrumentation()
    assert _ask(backend, "p", lambda: None) is None
    assert _ask(backend, "p", _never) is None
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
def test_each_part_of_the_key_tells_questions_apart(other: tuple[str, str, str, int]) -> None:
    """Another op, view, prompt or top_k never gets this one's entry."""
    backend = BackendInstrumentation()
    backend.cached("next_token_dist", "base", "p", 8, lambda: "this")
    assert backend.cached(*other, lambda: "other") == "other"
    assert backend.cached("next_token_dist", "base", "p", 8, _never) == "this"
    assert backend.stats.forward_passes == 2


def test_what_was_evicted_is_computed_again() -> None:
    """The cache keeps to its bound, and an evicted question costs a pass."""
    backend = BackendInstrumentation(cache_maxsize=1)
    for prompt in ("a", "b", "a"):
        _ask(backend, prompt, lambda: 0)
    assert (backend.stats.forward_passes, backend.cache.evictions) == (3, 2)


def test_bounds_go_to_the_cache() -> None:
    """The two bounds of the constructor are the cache's, wrong ones included."""
    backend = BackendInstrumentation(cache_maxsize=3, cache_max_bytes=99)
    assert (backend.cache.maxsize, backend.cache.max_bytes) == (3, 99)
    with pytest.raises(ValueError, match=r"^maxsize must be positive; got 0$"):
        BackendInstrumentation(cache_maxsize=0)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_failed_compute(tmp_path: Path, error: BaseException) -> None:
    """Its very exception comes out; it is counted, traced and leaves no entry behind."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path)
    with pytest.raises(type(error)) as raised:
        _ask(backend, "p", _raising(error))
    assert raised.value is error
    assert len(backend.cache) == 0
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (0, 1, 0)
    assert backend.ledger.snapshot()[SeriesKey(None, _VIEW, _OP)].errors == Counter(
        {type(error).__name__: 1}
    )
    (record,) = _records(path)
    assert (record["hit"], record["error"]) == (False, type(error).__name__)
    assert _ask(backend, "p", lambda: "now") == "now"
    assert (stats.cache_misses, stats.forward_passes) == (2, 1)


def test_disabled_cache_pays_for_every_question(tmp_path: Path) -> None:
    """With the cache off nothing is kept, and counting and tracing go on."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(cache_enabled=False, trace_path=path)
    assert [_ask(backend, "p", lambda n=n: n) for n in range(3)] == [0, 1, 2]  # type: ignore[misc]
    assert (len(backend.cache), backend.stats.forward_passes) == (0, 3)
    assert [record["hit"] for record in _records(path)] == [False] * 3


def test_compute_from_before_a_clear_does_not_store() -> None:
    """Its caller gets the value, and the cleared cache stays empty."""
    backend = BackendInstrumentation()

    def compute() -> str:
        backend.cache.clear()
        return "old"

    assert _ask(backend, "p", compute) == "old"
    assert len(backend.cache) == 0
    assert _ask(backend, "p", lambda: "new") == "new"


def test_compute_may_ask_its_own_key() -> None:
    """It computes for itself instead of waiting for itself; the outer value is kept."""
    backend = BackendInstrumentation()
    seen = []

    def outer() -> str:
        seen.append(_ask(backend, "p", lambda: "inner"))
        return "outer"

    assert _ask(backend, "p", outer) == "outer"
    assert _ask(backend, "p", _never) == "outer"
    assert seen == ["inner"]
    stats = backend.stats
    assert (stats.cache_hits, stats.cache_misses, stats.forward_passes) == (1, 2, 2)


def test_failed_pass_inside_one_of_the_same_key() -> None:
    """It ends itself alone: the outer one still has its claim, and stores its value."""
    backend = BackendInstrumentation()

    def failing() -> str:
        raise ValueError

    def outer() -> str:
        with pytest.raises(ValueError):
            _ask(backend, "p", failing)
        assert len(backend.cache.shelf.under_way) == 1
        return "outer"

    assert _ask(backend, "p", outer) == "outer"
    assert _ask(backend, "p", _never) == "outer"
    assert not backend.cache.shelf.under_way


@pytest.mark.parametrize("traced", [True, False])
def test_tokens_of_a_single_pass_are_counted(tmp_path: Path, traced: bool) -> None:
    """What a compute tells is in the books, whether there is a trace or not."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl" if traced else None)

    def compute() -> int:
        backend.report_tokens([5], [2])
        return 0

    _ask(backend, "first of its kind", lambda: 0)
    _ask(backend, "p", compute)
    assert backend.ledger.tokens() == (3, 2)


def test_stored_while_it_is_claimed(
    before_claim: Callable[[Callable[[], None]], None],
) -> None:
    """What another thread stores between the look and the claim is a hit."""
    backend, key = BackendInstrumentation(), (_OP, _VIEW, "p", _TOP_K)
    before_claim(lambda: backend.cache.put(key, "theirs"))
    assert backend.cached(*key, _never) == "theirs"
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (1, 0)
    assert not backend.cache.shelf.under_way


def test_full_disk_fails_no_lookup() -> None:
    """Each record that is not written is counted, and the lookup has its value."""
    backend = BackendInstrumentation(trace_path="/dev/full")
    with pytest.warns(RuntimeWarning, match="No space left on device; the run goes on"):
        assert _ask(backend, "p", lambda: "value") == "value"
    assert _ask(backend, "p", _never) == "value"
    assert (backend.trace.records, backend.trace.write_errors) == (0, 2)
    assert backend.stats.total_lookups == 2
    backend.close()


def test_lookups_work_after_close(tmp_path: Path) -> None:
    """`close` can be called twice; what is asked then is answered, counted and untraced."""
    path = tmp_path / "trace.jsonl"
    backend = BackendInstrumentation(trace_path=path)
    _ask(backend, "p", lambda: 0)
    backend.close()
    backend.close()
    _ask(backend, "p", _never)
    assert (backend.stats.total_lookups, len(_records(path))) == (2, 1)


def test_trace_can_be_assigned(tmp_path: Path) -> None:
    """Records go to the writer of the moment; the one before stays open for its maker."""
    backend = BackendInstrumentation(trace_path=tmp_path / "one.jsonl")
    first = backend.trace
    _ask(backend, "p", lambda: 0)
    backend.trace = TraceWriter(tmp_path / "two.jsonl")
    _ask(backend, "p", _never)
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
