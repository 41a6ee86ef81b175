"""`ScriptedBackend` implements the backend protocols."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends import Backend, NullBackend, ScalableBackend, ScoringView
from forwardscope.core.keys import fold_strings, prompt_hash
from forwardscope.errors import NonFiniteError, PromptError, ViewError
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

FloatArray = npt.NDArray[np.float64]

OPS: dict[str, Callable[[ScoringView], Any]] = {
    "next_token_dist": lambda view: view.next_token_dist("hello"),
    "next_token_dist_batch": lambda view: view.next_token_dist_batch(["hello"]),
    "rolling_logprob": lambda view: view.rolling_logprob("hello"),
    "rolling_logprob_batch": lambda view: view.rolling_logprob_batch(["hello"]),
    "logprob_of": lambda view: view.logprob_of("hel", "lo"),
    "logprob_of_batch": lambda view: view.logprob_of_batch([("hel", "lo")]),
}
each_op = pytest.mark.parametrize("score", OPS.values(), ids=OPS)


def test_the_backend_implements_every_protocol() -> None:
    """A scripted backend can scale its adapter and make random ones."""
    backend = ScriptedBackend()
    assert isinstance(backend, Backend)
    assert isinstance(backend, ScalableBackend)
    assert isinstance(backend, NullBackend)


def test_ids_of_views() -> None:
    """Each method that opens a view gives a `ScoringView` with the exact id."""
    backend = ScriptedBackend()
    opened = {
        "base": backend.as_base(),
        "ft": backend.as_finetuned(),
        "scaled_0.121": backend.as_scaled_adapter(0.121),
        "null_7": backend.as_null_adapter(7),
        "null_7_init0.5_rank2.0": backend.as_null_adapter(7, init_scale=0.5, rank_scale=2.0),
    }
    for view_id, opening in opened.items():
        with opening as view:
            assert isinstance(view, ScoringView)
            assert view.id == view_id


@pytest.mark.parametrize(("lam", "alias"), [(0.0, "base"), (-0.0, "base"), (0, "base"), (1, "ft")])
def test_scales_0_and_1_are_aliases(lam: float, alias: str) -> None:
    """As with plain LoRA, they open the base and the fine-tuned view."""
    with ScriptedBackend().as_scaled_adapter(lam) as view:
        assert view.id == alias


def test_one_view_is_open_at_a_time() -> None:
    """Opening a second view is an error with both ids; the first stays open."""
    backend = ScriptedBackend()
    with backend.as_base() as base:
        with pytest.raises(ViewError, match=r"'base' is open.*'ft'"), backend.as_finetuned():
            pass
        assert base.next_token_dist("hello").vocab_size == 32


def test_an_exception_closes_the_view() -> None:
    """After an exception in a view, another view can be opened."""
    backend = ScriptedBackend()
    with pytest.raises(KeyError), backend.as_base():
        raise KeyError
    with backend.as_finetuned() as view:
        assert view.id == "ft"


@each_op
def test_a_closed_view_computes_nothing(score: Callable[[ScoringView], Any]) -> None:
    """A miss in a closed view is an error with its id."""
    backend = ScriptedBackend()
    with backend.as_finetuned() as view:
        pass
    with pytest.raises(ViewError, match="'ft' is closed"):
        score(view)
    assert backend.forward_batches == []


@each_op
def test_a_repeated_lookup_is_a_hit(score: Callable[[ScoringView], Any]) -> None:
    """The second lookup does not call the script."""
    calls: list[str] = []

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        calls.append(prompt)
        return pseudo_random_logits(view, prompt)

    backend = ScriptedBackend(script)
    with backend.as_base() as view:
        score(view)
        before = len(calls)
        score(view)
    assert before > 0
    assert len(calls) == before
    assert backend.forward_batches == [("base", ["hello"])]
    stats = backend.instrumentation.stats
    assert (stats.cache_hits, stats.cache_misses) == (1, 1)


def test_batched_and_single_lookups_are_equal() -> None:
    """Each op gives the same values in a batch as alone, in the order of the prompts."""
    texts = ["hello", "world", "again"]
    with ScriptedBackend().as_base() as batched:
        dists = batched.next_token_dist_batch(texts, top_k=5)
        rolled = batched.rolling_logprob_batch(texts)
        completed = batched.logprob_of_batch([(text, "!") for text in texts])
    with ScriptedBackend().as_base() as single:
        for i, text in enumerate(texts):
            dist = single.next_token_dist(text, top_k=5)
            assert dist.token_ids.tolist() == dists[i].token_ids.tolist()
            assert dist.logprobs.tolist() == dists[i].logprobs.tolist()
            assert single.rolling_logprob(text).logprobs.tolist() == rolled[i].logprobs.tolist()
            assert single.logprob_of(text, "!") == completed[i]


def test_distributions_are_sorted_and_normalised() -> None:
    """The k most probable tokens are in decreasing order, and the tail has the rest."""
    with ScriptedBackend().as_base() as view:
        dist = view.next_token_dist("hello", top_k=5)
        whole = view.next_token_dist("hello", top_k=1000)
    assert dist.logprobs.tolist() == sorted(dist.logprobs.tolist(), reverse=True)
    assert dist.tail_logprob is not None
    assert np.exp(dist.logprobs).sum() + math.exp(dist.tail_logprob) == pytest.approx(1)
    assert dist.token_ids.tolist() == whole.token_ids[:5].tolist()
    assert (whole.token_ids.size, whole.tail_logprob) == (32, None)
    assert np.exp(whole.logprobs).sum() == pytest.approx(1)


def test_logits_come_from_the_script() -> None:
    """The distribution is the softmax of the script's logits."""
    backend = ScriptedBackend(lambda view, prompt: np.log([1.0, 5.0, 2.0]), vocab_size=3)
    with backend.as_base() as view:
        dist = view.next_token_dist("hello")
    assert dist.token_ids.tolist() == [1, 2, 0]
    assert np.exp(dist.logprobs) == pytest.approx([5 / 8, 2 / 8, 1 / 8])


def test_logprob_of_a_completion() -> None:
    """`logprob_of` is the sum of the completion's log-probabilities in the whole text."""
    with ScriptedBackend().as_base() as view:
        rolled = view.rolling_logprob("hello")
        completed = view.logprob_of("hel", "lo")
    assert rolled.token_ids.tolist() == [ord(char) % 32 for char in "hello"]
    assert (rolled.num_tokens, rolled.logprobs.shape) == (5, (4,))
    assert rolled.total_logprob == pytest.approx(float(rolled.logprobs.sum()))
    assert completed == pytest.approx(float(rolled.logprobs[2:].sum()))


def test_invalid_arguments() -> None:
    """An empty prompt, an empty completion and a `top_k` below 1 are errors."""
    with ScriptedBackend().as_base() as view:
        for score in (view.next_token_dist, view.rolling_logprob):
            with pytest.raises(PromptError, match="empty prompt"):
                score("")
        with pytest.raises(PromptError, match="empty prompt"):
            view.logprob_of("", "a")
        key = prompt_hash(fold_strings("a", ""))
        with pytest.raises(PromptError, match=f"{key} adds no token"):
            view.logprob_of("a", "")
        with pytest.raises(ValueError, match="top_k must be at least 1; got 0"):
            view.next_token_dist("a", top_k=0)


def test_a_prompt_longer_than_the_context() -> None:
    """The error has the prompt hash and both lengths, not the text."""
    with ScriptedBackend(context=4).as_base() as view:
        assert view.next_token_dist("four").vocab_size == 32
        with pytest.raises(PromptError, match="has 5 tokens, more than 4") as caught:
            view.next_token_dist("fives")
    assert prompt_hash("fives") in str(caught.value)
    assert "fives" not in str(caught.value)


def test_non_finite_logits_are_not_stored() -> None:
    """NaN logits are an error with view and prompt hash, and the next lookup computes again."""
    broken = [True]

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        logits = pseudo_random_logits(view, prompt)
        return logits * math.nan if broken[0] else logits

    backend = ScriptedBackend(script)
    with backend.as_finetuned() as view:
        with pytest.raises(NonFiniteError) as caught:
            view.next_token_dist("hello")
        assert (caught.value.view_id, caught.value.prompt_hash) == ("ft", prompt_hash("hello"))
        broken[0] = False
        assert np.isfinite(view.next_token_dist("hello").logprobs).all()


def test_an_exception_in_the_script() -> None:
    """It is raised unchanged and counted as a failed forward pass."""
    error = OSError("the model is gone")

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        raise error

    backend = ScriptedBackend(script)
    with backend.as_base() as view, pytest.raises(OSError, match="gone") as caught:
        view.next_token_dist("hello")
    assert caught.value is error
    stats = backend.instrumentation.stats
    assert (stats.cache_misses, stats.forward_passes) == (1, 0)


def test_logits_of_another_size() -> None:
    """Logits of another shape than `vocab_size` are an error with both shapes."""
    backend = ScriptedBackend(lambda view, prompt: np.zeros(5), vocab_size=4)
    with backend.as_base() as view, pytest.raises(ValueError, match=r"\(5,\), not \(4,\)"):
        view.next_token_dist("hello")


def test_the_script_receives_the_view() -> None:
    """The view has its id, the scale of the adapter and the seed of a null view."""
    seen: list[ScriptedView] = []

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        seen.append(view)
        return pseudo_random_logits(view, prompt)

    backend = ScriptedBackend(script)
    for opening in (
        backend.as_base(),
        backend.as_finetuned(),
        backend.as_scaled_adapter(0.5),
        backend.as_null_adapter(3),
    ):
        with opening as view:
            view.next_token_dist("hello")
    assert seen == [
        ScriptedView("base", 0.0),
        ScriptedView("ft", 1.0),
        ScriptedView("scaled_0.5", 0.5),
        ScriptedView("null_3", 1.0, 3),
    ]


def test_filler() -> None:
    """Filler is one dot per token and a blank line, or empty."""
    backend = ScriptedBackend()
    assert backend.filler(3) == "...\n\n"
    assert (backend.filler(0), backend.filler(-1)) == ("", "")


def test_longest_filler() -> None:
    """It fits the context exactly; there is no limit without a context."""
    backend = ScriptedBackend(context=9)
    assert [backend.longest_filler(prompt) for prompt in ("four", "a longer", "to no end")] == [
        3,
        0,
        0,
    ]
    assert ScriptedBackend().longest_filler("four") is None
    with backend.as_base() as view:
        view.next_token_dist(backend.filler(3) + "four")
    with pytest.raises(PromptError, match="has 10 tokens, more than 9"):
        backend.longest_filler("to the end")


def test_the_given_instrumentation_is_used(tmp_path: Path) -> None:
    """The trace has the tokens of each forward pass; closing the backend closes it too."""
    instrumentation = BackendInstrumentation(trace_path=tmp_path / "t.jsonl")
    backend = ScriptedBackend(instrumentation=instrumentation)
    with backend.as_base() as view:
        view.next_token_dist_batch(["hello", "hi"])
    backend.close()
    backend.close()
    assert backend.closed
    assert not instrumentation.trace.enabled
    assert [event.tokens for event in TraceReader(tmp_path / "t.jsonl")] == [5, 2]


def test_pseudo_random_logits_follow_the_adapter() -> None:
    """Logits are deterministic and change with the scale, and less for a null view."""
    base, tuned, half = (ScriptedView("v", strength) for strength in (0.0, 1.0, 0.5))
    nulls = [ScriptedView(f"null_{seed}", 1.0, seed) for seed in (1, 2)]
    at = {view: pseudo_random_logits(view, "hello") for view in (base, tuned, half, *nulls)}
    assert pseudo_random_logits(tuned, "hello").tolist() == at[tuned].tolist()
    assert pseudo_random_logits(tuned, "other").tolist() != at[tuned].tolist()
    assert at[half] - at[base] == pytest.approx((at[tuned] - at[base]) / 2)
    assert at[nulls[0]].tolist() != at[nulls[1]].tolist()
    moved = [np.linalg.norm(at[view] - at[base]) for view in (tuned, nulls[0])]
    assert 0 < moved[1] < moved[0] / 2


def test_view_identity_is_the_callers() -> None:
    """A scripted backend has the identities that the test gives, and by default none."""
    assert ScriptedBackend().view_identity("base") is None
    assert ScriptedBackend(view_identity="of {}".format).view_identity("ft") == "of ft"
