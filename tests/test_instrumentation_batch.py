"""`cached_batch`: several lookups with one forward call for the misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation, TraceEvent, TraceReader
from forwardscope.core.keys import prompt_hash
from forwardscope.core.series import Counts, SeriesKey

_OP, _VIEW, _TOP_K = "rolling_logprob", "ft", 0

Compute = Callable[[list[int]], Iterable[Any]]


class _Model:
    """Computes each prompt in capitals, and records the indices of each call."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.prompts = prompts
        self.calls: list[list[int]] = []

    def __call__(self, indices: list[int]) -> list[str]:
        self.calls.append(list(indices))
        return [self.prompts[index].upper() for index in indices]


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


def _events(backend: BackendInstrumentation) -> list[TraceEvent]:
    assert backend.trace.path is not None
    return list(TraceReader(backend.trace.path))


@pytest.mark.parametrize(
    ("prompts", "computed", "counts"),
    [
        ("bxacy", [[0, 2, 3]], (2, 0, 3)),  # hits never enter the batch
        ("abaxab", [[0, 1]], (1, 3, 2)),  # equal prompts are one pass
        ("yxx", [], (3, 0, 0)),  # only hits: no call
    ],
)
def test_misses_are_computed_in_one_call(
    backend: BackendInstrumentation,
    prompts: str,
    computed: list[list[int]],
    counts: tuple[int, int, int],
) -> None:
    """Values are in the order of the prompts; a repeated miss is coalesced."""
    model = _Model(prompts)
    assert _look_up(backend, prompts, model) == list(prompts.upper())
    assert model.calls == computed
    found = _counts(backend)
    assert (found.hits, found.coalesced, found.forward_passes) == counts
    assert _batches(backend) == (len(computed), counts[2], counts[2])
    assert _look_up(backend, prompts[::-1], _Model("")) == list(prompts[::-1].upper())


def test_empty_batch(backend: BackendInstrumentation) -> None:
    """Without prompts there are no lookups, no compute and no records."""
    model = _Model("")
    assert _look_up(backend, "", model) == []
    assert (model.calls, backend.stats.total_lookups, _events(backend)) == ([], 0, [])


def test_batches_are_counted_by_call(backend: BackendInstrumentation) -> None:
    """The stats count calls of compute, their prompts, and the largest of them."""
    for prompts in ("abc", "d", "efghi", "xy"):
        _look_up(backend, prompts, _Model(prompts))
    assert _batches(backend) == (3, 9, 5)
    assert backend.stats.avg_batch_size == 3.0


@pytest.mark.parametrize("make", [tuple, "".join, iter, lambda values: (one for one in values)])
def test_compute_returns_any_iterable(backend: BackendInstrumentation, make: Any) -> None:
    """The result is a list."""
    assert _look_up(backend, "ab", lambda indices: make(["A", "B"])) == ["A", "B"]


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
    assert [event.error for event in _events(backend)] == ["RuntimeError", None, "RuntimeError"]


def test_failed_batch(backend: BackendInstrumentation) -> None:
    """Each of its prompts counts as a miss and an error; hits stay hits."""

    def compute(indices: list[int]) -> list[Any]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        _look_up(backend, "abxac", compute)
    counts, stats = _counts(backend), backend.stats
    assert (counts.hits, counts.forward_passes, counts.errors["ValueError"]) == (1, 0, 3)
    assert (stats.total_lookups, stats.cache_misses) == (4, 3)
    assert _batches(backend) == (1, 3, 3)
    assert [(event.prompt_hash, event.error, event.batch) for event in _events(backend)] == [
        (prompt_hash("a"), "ValueError", 3),
        (prompt_hash("b"), "ValueError", 3),
        (prompt_hash("x"), None, None),
        (prompt_hash("c"), "ValueError", 3),
    ]
    assert _look_up(backend, "abc", _Model("abc")) == ["A", "B", "C"]


def test_disabled_cache_computes_each_batch_anew(tmp_path: Path) -> None:
    """Nothing is stored between calls; equal prompts of one call are still one pass."""
    backend = BackendInstrumentation(cache_enabled=False, trace_path=tmp_path / "trace.jsonl")
    for _ in range(2):
        assert _look_up(backend, "aba", _Model("aba")) == list("ABA")
    assert backend.cached(*_key("a"), lambda: "anew") == "anew"
    assert (backend.stats.forward_passes, backend.stats.cache_hits) == (5, 2)
    assert _batches(backend) == (2, 4, 2)
    assert len(_events(backend)) == 7


def test_batch_larger_than_the_cache() -> None:
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
