"""`CachedView` returns cached results and computes only misses with its scorer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends import RollingLogprob, ScoringView, TokenDist
from forwardscope.backends.views import CachedView
from forwardscope.core.keys import fold_strings, prompt_hash
from forwardscope.errors import PromptError


class FakeScorer:
    """A scorer that returns checksums and records its calls."""

    vocab_size = 10

    def __init__(self) -> None:
        self.calls: list[object] = []

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        self.calls.append((list(prompts), top_k))
        return [
            TokenDist(np.full(top_k, _number(prompt)), np.zeros(top_k), self.vocab_size)
            for prompt in prompts
        ]

    def rolling_logprobs(self, texts: Sequence[str]) -> list[RollingLogprob]:
        self.calls.append(list(texts))
        return [RollingLogprob(np.array([0]), np.array([]), 1, _number(text)) for text in texts]

    def logprobs_of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.calls.append(list(pairs))
        return [_number(*pair) for pair in pairs]


def _number(*texts: str) -> float:
    return float(zlib.crc32("|".join(map(repr, texts)).encode()))


@pytest.fixture
def scorer() -> FakeScorer:
    return FakeScorer()


@pytest.fixture
def inst(tmp_path: Path) -> BackendInstrumentation:
    return BackendInstrumentation(trace_path=tmp_path / "trace.jsonl")


@pytest.fixture
def view(scorer: FakeScorer, inst: BackendInstrumentation) -> CachedView:
    return CachedView("ft", scorer, inst)


def test_is_a_scoring_view(view: CachedView) -> None:
    """It has every method of the protocol, and its id."""
    assert isinstance(view, ScoringView)
    assert view.id == "ft"


def test_repeated_lookup_is_a_hit(view: CachedView, scorer: FakeScorer) -> None:
    """Each op calls the scorer once and then returns the same object."""
    assert view.next_token_dist("a", top_k=3) is view.next_token_dist("a", top_k=3)
    assert view.rolling_logprob("a") is view.rolling_logprob("a")
    assert view.logprob_of("a", "b") is view.logprob_of("a", "b")
    assert scorer.calls == [(["a"], 3), ["a"], [("a", "b")]]


def test_batch_and_single_share_entries(view: CachedView, scorer: FakeScorer) -> None:
    """A result of one form is a hit in the other; results are in the order of the prompts."""
    dist = view.next_token_dist("b", top_k=2)
    dists = view.next_token_dist_batch(["a", "b", "c"], top_k=2)
    assert dists[1] is dist
    assert [d.token_ids[0] for d in dists] == [_number("a"), _number("b"), _number("c")]
    assert view.next_token_dist("c", top_k=2) is dists[2]

    rolled = view.rolling_logprob_batch(["a", "b"])
    assert [r.total_logprob for r in rolled] == [_number("a"), _number("b")]
    assert view.rolling_logprob("b") is rolled[1]

    pairs = [("a", "x"), ("a", "y")]
    assert view.logprob_of_batch(pairs) == [_number(*pair) for pair in pairs]
    assert view.logprob_of("a", "y") == _number("a", "y")

    assert scorer.calls == [(["b"], 2), (["a", "c"], 2), ["a", "b"], pairs]


def test_equal_prompts_of_a_batch_are_computed_once(view: CachedView, scorer: FakeScorer) -> None:
    """The scorer gets each distinct prompt of a batch once."""
    first, other, again = view.next_token_dist_batch(["a", "b", "a"])
    assert again is first
    assert other is not first
    assert view.rolling_logprob_batch(["a", "a"])[1].total_logprob == _number("a")
    assert view.logprob_of_batch([("a", "b")] * 3) == [_number("a", "b")] * 3
    assert scorer.calls == [(["a", "b"], 10), ["a"], [("a", "b")]]


def test_empty_batch_computes_nothing(view: CachedView, scorer: FakeScorer) -> None:
    """An empty batch gives an empty list without a call of the scorer."""
    assert view.next_token_dist_batch([]) == []
    assert view.rolling_logprob_batch([]) == []
    assert view.logprob_of_batch([]) == []
    assert scorer.calls == []


def test_top_k_beyond_the_vocabulary_is_the_vocabulary(
    view: CachedView, scorer: FakeScorer, inst: BackendInstrumentation
) -> None:
    """All `top_k` from the vocabulary size up share one entry; a smaller one has its own."""
    whole = view.next_token_dist("a", top_k=10)
    assert view.next_token_dist("a", top_k=11) is whole
    assert view.next_token_dist("a") is whole
    assert view.next_token_dist_batch(["a"], top_k=10_000)[0] is whole
    assert view.next_token_dist("a", top_k=9) is not whole
    assert scorer.calls == [(["a"], 10), (["a"], 9)]
    assert (inst.stats.cache_hits, inst.stats.cache_misses) == (3, 2)


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one(
    view: CachedView, scorer: FakeScorer, inst: BackendInstrumentation, top_k: int
) -> None:
    """It raises an error with the value, before anything is counted."""
    with pytest.raises(ValueError, match=f"top_k must be at least 1; got {top_k}"):
        view.next_token_dist("a", top_k=top_k)
    with pytest.raises(ValueError, match=f"top_k must be at least 1; got {top_k}"):
        view.next_token_dist_batch(["a"], top_k=top_k)
    assert scorer.calls == []
    assert inst.stats.total_lookups == 0


def test_top_k_may_be_a_numpy_integer(view: CachedView, inst: BackendInstrumentation) -> None:
    """It shares the entry of the equal int and is traced as a number; a float is an error."""
    assert view.next_token_dist("a", top_k=np.int64(3)) is view.next_token_dist("a", top_k=3)
    assert [event.top_k for event in TraceReader(inst.trace.path)] == [3, 3]
    with pytest.raises(TypeError):
        view.next_token_dist("a", top_k=2.5)


def test_empty_prompt(view: CachedView, scorer: FakeScorer, inst: BackendInstrumentation) -> None:
    """Every op raises an error for an empty prompt, alone and in a batch, and counts nothing."""
    for call in (
        lambda: view.next_token_dist(""),
        lambda: view.next_token_dist_batch(["a", ""]),
        lambda: view.rolling_logprob(""),
        lambda: view.rolling_logprob_batch(["a", ""]),
        lambda: view.logprob_of("", "a"),
        lambda: view.logprob_of_batch([("a", "b"), ("", "a")]),
    ):
        with pytest.raises(PromptError, match="empty prompt"):
            call()
    assert scorer.calls == []
    assert inst.stats.total_lookups == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b\0c"), ("a\0b", "c")),
        (("ab", "c"), ("a", "bc")),
        (("1:a", "b"), ("1", ":ab")),
    ],
)
def test_pairs_never_share_an_entry(
    view: CachedView, one: tuple[str, str], other: tuple[str, str]
) -> None:
    """Different pairs with the same joined text have separate entries."""
    assert view.logprob_of(*one) == _number(*one)
    assert view.logprob_of(*other) == _number(*other)
    assert view.logprob_of_batch([other, one]) == [_number(*other), _number(*one)]


def test_ops_never_share_an_entry(view: CachedView, inst: BackendInstrumentation) -> None:
    """The same text in three ops gives three entries."""
    view.next_token_dist("1:ab", top_k=1)
    view.rolling_logprob("1:ab")
    view.logprob_of("a", "b")  # its folded key is the same text
    assert fold_strings("a", "b") == "1:ab"
    assert (inst.stats.cache_misses, len(inst.cache)) == (3, 3)


def test_views_never_share_an_entry(scorer: FakeScorer, inst: BackendInstrumentation) -> None:
    """Each view of a cache has its own entries."""
    one, other = CachedView("base", scorer, inst), CachedView("ft", scorer, inst)
    one.logprob_of("a", "b")
    other.logprob_of("a", "b")
    assert scorer.calls == [[("a", "b")]] * 2


def test_trace_records_of_each_op(view: CachedView, inst: BackendInstrumentation) -> None:
    """A record has the op, the `top_k` (0 if the op has none) and the hash of the prompt key."""
    view.next_token_dist("a", top_k=99)
    view.rolling_logprob("b")
    view.logprob_of("c", "d")
    records = [(e.op, e.top_k, e.prompt_hash, e.hit) for e in TraceReader(inst.trace.path)]
    assert records == [
        ("next_token_dist", 10, prompt_hash("a"), False),
        ("rolling_logprob", 0, prompt_hash("b"), False),
        ("logprob_of", 0, prompt_hash("1:cd"), False),
    ]
