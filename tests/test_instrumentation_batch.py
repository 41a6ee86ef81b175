"""`cached_batch`: several lookups, one forward batch for the misses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.core.series import Counts, SeriesKey

_OP, _VIEW, _TOP_K = "rolling_logprob", "ft", 0

Compute = Callable[[list[int]], Iterable[Any]]


class _Model:
    """Answers each prompt in capitals, and keeps the indices of each call."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.prompts = prompts
        self.calls: list[list[int]] = []

    def __call__(self, indices: list[int]) -> list[str]:
        self.calls.append(list(indices))
        return [self.prompts[index].upper() for index in indices]


def _raising(error: BaseException) -> Compute:
    def compute(indices: list[int]) -> list[Any]:
        raise error

    return compute


@pytest.fixture
def backend(tmp_path: Path) -> BackendInstrumentation:
    """Return a backend that traces, with the values of `x` and `y` in its cache."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")
    for prompt in ("x", "y"):
        backend.cache.put(_key(prompt), prompt.upper())
    return backend


def _key(prompt: str) -> tuple[str, str, str, int]:
    return (_OP, _VIEW, prompt, _TOP_K)


def _look_up(
    backend: BackendInstrumentation, prompts: Sequence[str], compute: Compute
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


def test_results_are_in_the_order_of_the_prompts(backend: BackendInstrumentation) -> None:
    """Values are in the order of the prompts, hits and misses alike."""
    prompts = "bxacy"
    assert _look_up(backend, prompts, _Model(prompts)) == list("BXACY")
    assert _look_up(backend, "yacbx", _Model("")) == list("YACBX")


def test_hits_never_enter_the_batch(backend: BackendInstrumentation) -> None:
    """Compute gets the indices of the misses alone, in order, in one call."""
    model = _Model("bxacy")
    _look_up(backend, "bxacy", model)
    assert model.calls == [[0, 2, 3]]
    assert _batches(backend) == (1, 3, 3)
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (2, 3)


def test_equal_prompts_are_one_pass(backend: BackendInstrumentation) -> None:
    """The first of them is computed; the others are coalesced and cost no pass."""
    model = _Model("abaxab")
    assert _look_up(backend, "abaxab", model) == list("ABAXAB")
    assert model.calls == [[0, 1]]
    assert _batches(backend) == (1, 2, 2)
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (1, 3, 2)
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (4, 2)


def test_equal_prompts_that_are_stored_are_hits(backend: BackendInstrumentation) -> None:
    """Where the first is a hit, so are the others."""
    assert _look_up(backend, "xx", _Model("")) == ["X", "X"]
    assert (_counts(backend).hits, _counts(backend).coalesced) == (2, 0)


def test_all_hits_send_no_batch(backend: BackendInstrumentation) -> None:
    """Where nothing is missing, compute is not called."""
    model = _Model("yx")
    assert _look_up(backend, "yx", model) == ["Y", "X"]
    assert (model.calls, _batches(backend)) == ([], (0, 0, 0))


def test_empty_batch(backend: BackendInstrumentation) -> None:
    """No prompts are no lookups, no compute and no records."""
    model = _Model("")
    assert _look_up(backend, "", model) == []
    assert (model.calls, backend.stats.total_lookups, _records(backend)) == ([], 0, [])


def test_batches_are_counted_by_call(backend: BackendInstrumentation) -> None:
    """The stats count calls of compute, their prompts, and the largest of them."""
    for prompts in ("abc", "d", "efghi", "xy"):
        _look_up(backend, prompts, _Model(prompts))
    assert _batches(backend) == (3, 9, 5)
    assert backend.stats.avg_batch_size == 3.0


def test_single_and_batch_share_entries(backend: BackendInstrumentation) -> None:
    """What a single lookup stored is a hit in a batch, and the other way round."""
    _look_up(backend, "ab", _Model("ab"))
    assert backend.cached(*_key("a"), lambda: "computed again") == "A"
    assert backend.cached(*_key("c"), lambda: "C") == "C"
    assert _look_up(backend, "cb", _Model("")) == ["C", "B"]


def test_none_is_a_value(backend: BackendInstrumentation) -> None:
    """Where compute returns None, it is stored."""
    assert _look_up(backend, "ab", lambda indices: [None] * len(indices)) == [None, None]
    assert _look_up(backend, "ba", _Model("")) == [None, None]


def test_values_may_come_as_any_iterable(backend: BackendInstrumentation) -> None:
    """Compute may return any iterable of values; the result is a list."""
    assert _look_up(backend, "ab", lambda indices: ("A", "B")) == ["A", "B"]
    assert _look_up(backend, "cd", lambda indices: "CD") == ["C", "D"]
    assert _look_up(backend, "ef", lambda indices: (c for c in "EF")) == ["E", "F"]


@pytest.mark.parametrize(("values", "number"), [(["A"], 1), (["A", "B", "C"], 3), ([], 0)])
def test_wrong_number_of_values(
    backend: BackendInstrumentation, values: list[str], number: int
) -> None:
    """The error names both numbers, nothing is stored, and each prompt counts as an error."""
    message = f"^compute_misses returned {number} values for 2 prompts$"
    with pytest.raises(RuntimeError, match=message):
        _look_up(backend, "axb", lambda indices: values)
    assert [backend.cache.get(_key(prompt)) for prompt in "ab"] == [MISS, MISS]
    assert _counts(backend).errors == Counter(RuntimeError=2)
    assert [record.get("error") for record in _records(backend)] == [
        "RuntimeError",
        None,
        "RuntimeError",
    ]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_failing_batch(backend: BackendInstrumentation, error: BaseException) -> None:
    """Its exception is raised unchanged; each of its prompts counts as a miss and an error."""
    with pytest.raises(type(error)) as raised:
        _look_up(backend, "abxac", _raising(error))
    assert raised.value is error
    assert len(backend.cache) == 2
    name = type(error).__name__
    counts, stats = _counts(backend), backend.stats
    assert (counts.hits, counts.forward_passes, counts.errors) == (1, 0, Counter({name: 3}))
    assert (stats.total_lookups, stats.cache_misses) == (4, 3)
    assert _batches(backend) == (1, 3, 3)
    assert [(r["prompt_hash"], r.get("error"), r.get("batch")) for r in _records(backend)] == [
        (prompt_hash("a"), name, 3),
        (prompt_hash("b"), name, 3),
        (prompt_hash("x"), None, None),
        (prompt_hash("c"), name, 3),
    ]
    assert _look_up(backend, "abc", _Model("abc")) == ["A", "B", "C"]


def test_stored_between_lookup_and_claim(hooked_clock: Any) -> None:
    """What another thread stores between the lookup in memory and the claim is a hit."""
    backend, model = BackendInstrumentation(clock=hooked_clock), _Model("ab")
    hooked_clock.run_at(2, lambda: backend.cache.put(_key("a"), "theirs"))
    assert _look_up(backend, "ab", model) == ["theirs", "B"]
    assert model.calls == [[1]]
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (1, 1)
    assert _batches(backend) == (1, 1, 1)


def test_all_stored_between_lookup_and_claim(hooked_clock: Any) -> None:
    """Where another thread stores all of it, compute is not called."""
    backend, model = BackendInstrumentation(clock=hooked_clock), _Model("ab")
    hooked_clock.run_at(2, lambda: _look_up(backend, "ba", lambda indices: ["B", "A"]))
    assert _look_up(backend, "ab", model) == ["A", "B"]
    assert model.calls == []
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (2, 2)
    assert _batches(backend) == (1, 2, 2)


def test_disabled_cache_computes_each_batch_anew(tmp_path: Path) -> None:
    """Nothing is kept between calls; equal prompts of one call are one pass all the same."""
    backend = BackendInstrumentation(cache_enabled=False, trace_path=tmp_path / "trace.jsonl")
    for _ in range(2):
        assert _look_up(backend, "aba", _Model("aba")) == list("ABA")
    assert (backend.stats.forward_passes, backend.stats.cache_hits) == (4, 2)
    assert _batches(backend) == (2, 4, 2)
    assert len(_records(backend)) == 6


def test_batch_from_before_a_clear_does_not_store(backend: BackendInstrumentation) -> None:
    """Its caller gets the values, and the cleared cache stays empty."""

    def compute(indices: list[int]) -> list[int]:
        backend.cache.clear()
        return indices

    assert _look_up(backend, "ab", compute) == [0, 1]
    assert len(backend.cache) == 0


def test_batch_larger_than_the_cache_is_answered_whole() -> None:
    """Each value is returned, though only the last ones are still stored."""
    backend = BackendInstrumentation(cache_maxsize=2)
    assert _look_up(backend, "abcda", _Model("abcda")) == list("ABCDA")
    assert (len(backend.cache), backend.cache.evictions) == (2, 2)
    assert backend.stats.forward_passes == 4


def test_batch_inside_a_compute_computes_for_itself(backend: BackendInstrumentation) -> None:
    """A compute that looks up its own key in a batch does not wait."""
    model = _Model("ab")
    value = backend.cached(*_key("a"), lambda: _look_up(backend, "ab", model))
    assert (value, model.calls) == (["A", "B"], [[0, 1]])
    assert backend.stats.forward_passes == 3
    assert _batches(backend) == (1, 2, 2)
