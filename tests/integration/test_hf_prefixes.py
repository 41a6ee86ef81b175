"""Prefixes that prompts of a view share: the values, the books, and when they are given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.backends import ScoringView, TokenDist
from forwardscope.backends.hf import HFBackend, forward, prefix_cache
from forwardscope.backends.hf.loading import quiet_transformers

Open = Callable[..., HFBackend]

FILLER = "<pad>" * 30 + "\n\n"
EXAMPLES = "the cat sat on the mat and the other cats sat there. "
PROMPTS = [
    "the mat",
    FILLER + "the cat",
    EXAMPLES + "hello there",
    FILLER + "hello there world",
    "<pad>" * 16 + "\n\nthe weather",
    EXAMPLES + "x",
    FILLER + "x",
    EXAMPLES + "the weather",
]


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let prompts of these tiny models share what would not be worth it."""
    monkeypatch.setattr(forward, "CPU_STEP", 4)


def _by_token(dist: TokenDist) -> np.ndarray:
    return dist.logprobs[np.argsort(dist.token_ids)]


def _ask(view: ScoringView, prompts: Sequence[str]) -> list[np.ndarray]:
    pairs = [(prompt, " the other cats") for prompt in prompts if prompt != "the mat"]
    return [
        *map(_by_token, view.next_token_dist_batch(prompts, top_k=10_000)),
        *(np.array([total]) for total in view.logprob_of_batch(pairs)),
        *(roll.logprobs for roll in view.rolling_logprob_batch(prompts)),
        *(_by_token(view.next_token_dist(prompt, top_k=9_999)) for prompt in prompts),
    ]


def _tokens(backend: HFBackend) -> tuple[int, int]:
    books = backend.instrumentation.ledger.snapshot()
    return books.tokens_computed, books.tokens_reused


@pytest.mark.parametrize("adapter", ["llama_lora", "llama_dora", "llama_head", "gpt2_lora"])
def test_values_are_those_of_whole_prompts(open_backend: Open, adapter: str) -> None:
    """On each kind of view, within the bound of `fast`; and much is taken over."""
    fast, strict = (open_backend(adapter, exactness=one) for one in ("fast", "strict"))
    for view_of in (
        lambda backend: backend.as_base(),
        lambda backend: backend.as_finetuned(),
        lambda backend: backend.as_scaled_adapter(0.5),
        lambda backend: backend.as_null_adapter(3, init_scale=0.3),
    ):
        with view_of(fast) as one, view_of(strict) as other:
            for got, expected in zip(_ask(one, PROMPTS), _ask(other, PROMPTS), strict=True):
                assert np.abs(got - expected).max(initial=0.0) < 1e-4
    (computed, reused), (whole, none) = _tokens(fast), _tokens(strict)
    assert (computed + reused, none) == (whole, 0)
    assert reused > whole / 4


def test_each_record_tells_what_was_taken_over(open_backend: Open, tmp_path: Path) -> None:
    """The longest computes the filler; the others have it from there, now and later."""
    backend = open_backend(trace_path=tmp_path / "trace.jsonl")
    with backend.as_finetuned() as view:
        view.next_token_dist_batch([FILLER + "x", FILLER + "the cat sat", "the mat"])
        view.next_token_dist(FILLER + "hello")
        view.next_token_dist(FILLER + "x", top_k=3)
    events = list(TraceReader(tmp_path / "trace.jsonl"))
    filler = len(backend._forward.tokenizer(FILLER)["input_ids"])
    assert [event.tokens_reused for event in events] == [filler, None, None, filler, filler]
    told = [(event.tokens or 0, event.tokens_reused or 0) for event in events]
    assert _tokens(backend) == (sum(n - m for n, m in told), sum(m for _, m in told))


def test_a_short_lead_is_kept_for_those_who_wait_for_it(
    open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many prompts that share a little are worth a lead, also one too short to keep for itself."""
    monkeypatch.setattr(forward, "CPU_STEP", 40)
    prompts = ["<pad>" * 30 + f"\n\n{word}" for word in ("x", "a", "b", "c", "d", "e")]
    backend = open_backend()
    with backend.as_base() as view:
        view.next_token_dist_batch(prompts)
    assert _tokens(backend)[1] >= 30 * (len(prompts) - 1)


def test_nothing_is_taken_over_between_views(open_backend: Open) -> None:
    """What a view kept is gone when it closes, with its memory."""
    backend = open_backend()
    for opened in (backend.as_base, backend.as_finetuned, backend.as_base):
        with opened() as view:
            view.next_token_dist(FILLER + "x", top_k=len(opened.__name__))
            store = view._scorer._prefixes
            assert store.nbytes > 0 or backend.instrumentation.stats.cache_hits
        assert (store.nbytes, store.sequences()) == (0, [])
    assert _tokens(backend)[1] == 0


def test_what_was_dropped_for_room_is_computed_whole(
    open_backend: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound that holds no prompt costs time, and changes no value."""
    with open_backend(exactness="strict").as_base() as view:
        expected = _ask(view, PROMPTS)
    monkeypatch.setattr(prefix_cache.PrefixCache.__init__, "__defaults__", (1,))
    backend = open_backend()
    with backend.as_base() as view:
        for got, value in zip(_ask(view, PROMPTS), expected, strict=True):
            assert np.abs(got - value).max(initial=0.0) < 1e-4
    assert _tokens(backend)[1] == 0
    limit = "for prompts whose keys and values fit into 0 MiB"
    assert backend.optimisations["prefix sharing"] == f"on ({limit})"


def test_copies_for_a_batch_are_bounded(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a prefix is large, fewer prompts take it over at a time."""
    sizes: list[int] = []
    prompts = [FILLER + text for text in ("x", "the", "hello", "cat", "the cat sat on the mat")]
    for limit in (forward.MAX_PREFIX_BYTES, 1):
        monkeypatch.setattr(forward, "MAX_PREFIX_BYTES", limit)
        model = zoo.tuned("llama_lora")
        backend = HFBackend(model, zoo.tokenizer())
        embeddings = model.get_input_embeddings()
        embeddings.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        with backend.as_base() as view:
            view.next_token_dist_batch(prompts)
    assert sizes == [1, 4, 1, 1, 1, 1, 1]


def test_strict_shares_nothing(open_backend: Open) -> None:
    """Each prompt is computed whole, whatever was computed before."""
    backend = open_backend(exactness="strict")
    with backend.as_base() as view:
        view.next_token_dist_batch(PROMPTS)
        assert view._scorer._prefixes.sequences() == []
    assert _tokens(backend)[1] == 0


def test_a_sliding_window_is_computed_whole(zoo: Any) -> None:
    """Its keys and values do not reach back to the beginning, so nothing is taken over."""
    backend = _windowed(zoo, "fast")
    with backend.as_base() as one, _windowed(zoo, "strict").as_base() as other:
        for got, expected in zip(_ask(one, PROMPTS), _ask(other, PROMPTS), strict=True):
            assert np.abs(got - expected).max(initial=0.0) < 1e-4
    assert _tokens(backend)[1] == 0
    assert backend.optimisations["prefix sharing"] == "off (this model keeps a sliding window)"


def _windowed(zoo: Any, exactness: Any) -> HFBackend:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=zoo.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        sliding_window=8,
        initializer_range=0.3,
    )
    adapter = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    with quiet_transformers():
        model = get_peft_model(MistralForCausalLM(config), adapter)
    return HFBackend(
        model, zoo.tokenizer(), instrumentation=BackendInstrumentation(), exactness=exactness
    )
