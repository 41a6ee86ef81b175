"""`cached_batch`: several questions, one forward batch for what is missing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from forwardscope import MISS, BackendInstrumentation
from forwardscope.core.keys import prompt_hash
from forwardscope.core.series import Counts, SeriesKey

_OP, _VIEW, _TOP_K = "rolling_logprob", "ft", 0

Compute = Callable[[list[int]], Sequence[Any]]


class _Model:
    """Answers each prompt in capitals, and remembers the indices it was asked for."""

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
    """A backend that traces, with the answers to `x` and `y` in its cache."""
    backend = BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")
    for prompt in ("x", "y"):
        backend.cache.put(_key(prompt), prompt.upper())
    return backend


def _key(prompt: str) -> tuple[str, str, str, int]:
    return (_OP, _VIEW, prompt, _TOP_K)


def _ask(backend: BackendInstrumentation, prompts: Sequence[str], compute: Compute) -> list[Any]:
    return backend.cached_batch(_OP, _VIEW, list(prompts), _TOP_K, compute)


def _counts(backend: BackendInstrumentation) -> Counts:
    return backend.ledger.snapshot()[SeriesKey(None, _VIEW, _OP)]


def _batches(backend: BackendInstrumentation) -> tuple[int, int, int]:
    stats = backend.stats
    return stats.batches_sent, stats.batched_prompts, stats.max_batch_size


def _records(backend: BackendInstrumentation) -> list[dict[str, Any]]:
    assert backend.trace.path is not None
    return [json.loads(line) for line in backend.trace.path.read_text("ascii").splitlines()]


def test_results_are_in_the_order_of_the_prompts(backend: BackendInstrumentation) -> None:
    """Hits and misses come back where they were asked, whatever was computed."""
    prompts = "bxacy"
    assert _ask(backend, prompts, _Model(prompts)) == list("BXACY")
    assert _ask(backend, "yacbx", _Model("")) == list("YACBX")


def test_hits_never_enter_the_batch(backend: BackendInstrumentation) -> None:
    """The compute gets the indices of the misses alone, in order, in one call."""
    model = _Model("bxacy")
    _ask(backend, "bxacy", model)
    assert model.calls == [[0, 2, 3]]
    assert _batches(backend) == (1, 3, 3)
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (2, 3)


def test_equal_prompts_are_one_pass(backend: BackendInstrumentation) -> None:
    """Only the first of them is computed; the others are coalesced, and no pass is counted."""
    model = _Model("abaxab")
    assert _ask(backend, "abaxab", model) == list("ABAXAB")
    assert model.calls == [[0, 1]]
    assert _batches(backend) == (1, 2, 2)
    counts = _counts(backend)
    assert (counts.hits, counts.coalesced, counts.forward_passes) == (1, 3, 2)
    assert (backend.stats.cache_hits, backend.stats.cache_misses) == (4, 2)


def test_equal_prompts_that_are_stored_are_hits(backend: BackendInstrumentation) -> None:
    """Where the first is a hit there is no pass to share, and the others are hits too."""
    assert _ask(backend, "xx", _Model("")) == ["X", "X"]
    assert (_counts(backend).hits, _counts(backend).coalesced) == (2, 0)


def test_all_hits_send_no_batch(backend: BackendInstrumentation) -> None:
    """Where nothing is missing nothing is computed."""
    model = _Model("yx")
    assert _ask(backend, "yx", model) == ["Y", "X"]
    assert (model.calls, _batches(backend)) == ([], (0, 0, 0))


def test_empty_batch(backend: BackendInstrumentation) -> None:
    """No prompts are no lookups, no compute and no records."""
    model = _Model("")
    assert _ask(backend, "", model) == []
    assert (model.calls, backend.stats.total_lookups, _records(backend)) == ([], 0, [])


def test_batches_are_counted_by_call(backend: BackendInstrumentation) -> None:
    """Calls, their prompts, and the largest of them stand in the stats."""
    for prompts in ("abc", "d", "efghi", "xy"):
        _ask(backend, prompts, _Model(prompts))
    assert _batches(backend) == (3, 9, 5)
    assert backend.stats.avg_batch_size == 3.0


def test_single_and_batch_share_entries(backend: BackendInstrumentation) -> None:
    """What one stored the other finds."""
    _ask(backend, "ab", _Model("ab"))
    assert backend.cached(*_key("a"), lambda: "computed again") == "A"
    assert backend.cached(*_key("c"), lambda: "C") == "C"
    assert _ask(backend, "cb", _Model("")) == ["C", "B"]


def test_none_is_a_value(backend: BackendInstrumentation) -> None:
    """A batch may give None, and it is found again."""
    assert _ask(backend, "ab", lambda indices: [None] * len(indices)) == [None, None]
    assert _ask(backend, "ba", _Model("")) == [None, None]


def test_values_may_come_as_any_sequence(backend: BackendInstrumentation) -> None:
    """A tuple or a string of values is as good as a list, and a list comes out."""
    assert _ask(backend, "ab", lambda indices: ("A", "B")) == ["A", "B"]
    assert _ask(backend, "cd", lambda indices: "CD") == ["C", "D"]


@pytest.mark.parametrize(("values", "number"), [(["A"], 1), (["A", "B", "C"], 3), ([], 0)])
def test_wrong_number_of_values(
    backend: BackendInstrumentation, values: list[str], number: int
) -> None:
    """It is an error that names both numbers, nothing is stored, and each prompt failed."""
    message = f"^compute_misses returned {number} values for 2 prompts$"
    with pytest.raises(RuntimeError, match=message):
        _ask(backend, "axb", lambda indices: values)
    assert [backend.cache.get(_key(prompt)) for prompt in "ab"] == [MISS, MISS]
    assert _counts(backend).errors == Counter(RuntimeError=2)
    assert [record.get("error") for record in _records(backend)] == [
        "RuntimeError",
        None,
        "RuntimeError",
    ]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_failing_batch(backend: BackendInstrumentation, error: BaseException) -> None:
    """Its very exception comes out; each of its prompts is a miss and an error, and was sent."""
    with pytest.raises(type(error)) as raised:
        _ask(backend, "abxac", _raising(error))
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
    assert _ask(backend, "abc", _Model("abc")) == ["A", "B", "C"]


def test_stored_while_it_is_claimed(
    backend: BackendInstrumentation, before_claim: Callable[[Callable[[], None]], None]
) -> None:
    """What another thread stores between the look and the claim is a hit."""
    before_claim(lambda: backend.cache.put(_key("a"), "theirs"))
    model, under_way = _Model("ab"), []

    def compute(indices: list[int]) -> list[str]:
        under_way.extend(backend.cache.shelf.under_way)
        return model(indices)

    assert _ask(backend, "ab", compute) == ["theirs", "B"]
    assert (model.calls, under_way) == ([[1]], [_key("b")])
    assert (_counts(backend).hits, _counts(backend).forward_passes) == (1, 1)
    assert not backend.cache.shelf.under_way


def test_disabled_cache_computes_each_batch_anew(tmp_path: Path) -> None:
    """Nothing is kept between calls, and equal prompts inside one are still one pass."""
    backend = BackendInstrumentation(cache_enabled=False, trace_path=tmp_path / "trace.jsonl")
    for _ in range(2):
        assert _ask(backend, "aba", _Model("aba")) == list("ABA")
    assert (backend.stats.forward_passes, backend.stats.cache_hits) == (4, 2)
    assert _batches(backend) == (2, 4, 2)
    assert len(_records(backend)) == 6


def test_batch_from_before_a_clear_does_not_store(backend: BackendInstrumentation) -> None:
    """Its caller gets the values, and the cleared cache stays empty."""

    def compute(indices: list[int]) -> list[int]:
        backend.cache.clear()
        return indices

    assert _ask(backend, "ab", compute) == [0, 1]
    assert len(backend.cache) == 0


def test_batch_larger_than_the_cache_is_answered_whole() -> None:
    """Each value comes back, though only the last ones are still stored."""
    backend = BackendInstrumentation(cache_maxsize=2)
    assert _ask(backend, "abcda", _Model("abcda")) == list("ABCDA")
    assert (len(backend.cache), backend.cache.evictions) == (2, 2)
    assert backend.stats.forward_passes == 4


def test_batch_inside_a_compute_computes_for_itself(backend: BackendInstrumentation) -> None:
    """A compute that asks for its own key in a batch is not kept waiting."""
    model = _Model("ab")
    value = backend.cached(*_key("a"), lambda: _ask(backend, "ab", model))
    assert (value, model.calls) == (["A", "B"], [[0, 1]])
    assert backend.stats.forward_passes == 3
    assert _batches(backend) == (1, 2, 2)
