"""Values are those of plain transformers calls, whoever shares the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from forwardscope.backends import NullBackend, RollingLogprob, ScalableBackend, TokenDist
from forwardscope.backends.hf import HFBackend
from forwardscope.backends.hf.compat import CACHE_NAMES

Open = Callable[..., HFBackend]
Plain = Callable[..., Any]

#: Of mixed lengths; some hold the pad token, some are one token.
PROMPTS = [
    "the cat sat on the mat",
    "x",
    "<pad>",
    "<pad><pad><pad>the cat",
    "the cat<pad><pad>",
    "hello there world, the weather is together and the other cats sat there on the mat",
    "the",
    "<pad>" * 30 + "\n\nhello there",
]
PAIRS = [
    ("the ", "cat sat"),
    ("the c", "at sat on the mat"),
    ("hello the", "re world"),
    ("<pad><pad>the cat", " sat"),
    ("x", "y"),
    ("the cat sat on the mat and the", " other cats sat there together"),
]

adapters = pytest.mark.parametrize(
    "adapter", ["llama_lora", "llama_dora", "llama_head", "llama_embeddings", "gpt2_lora"]
)
exactnesses = pytest.mark.parametrize("exactness", ["fast", "strict"])


def _by_id(dist: TokenDist) -> np.ndarray:
    return dist.logprobs[np.argsort(dist.token_ids)]


def _near(got: Any, expected: Any) -> bool:
    return bool(np.abs(np.asarray(got) - np.asarray(expected)).max(initial=0.0) < 1e-4)


@exactnesses
@adapters
def test_distribution_is_the_models(
    open_backend: Open, reference: Plain, adapter: str, exactness: str
) -> None:
    """Asked as a batch, each distribution is the log-softmax of its prompt's last logits."""
    plain = reference(adapter)
    with open_backend(adapter, exactness=exactness).as_finetuned() as view:
        dists = view.next_token_dist_batch(PROMPTS, top_k=10_000)
    for prompt, dist in zip(PROMPTS, dists, strict=True):
        expected = plain.logprobs(prompt)[-1]
        assert _near(_by_id(dist), expected)
        assert sorted(dist.token_ids) == list(range(len(expected)))
        assert (np.diff(dist.logprobs) <= 0).all()
        assert dist.vocab_size == len(expected)
        assert dist.tail_logprob is None


@adapters
def test_base_view_is_the_base(open_backend: Open, reference: Plain, adapter: str) -> None:
    """The base view gives what the model gives on which no adapter ever was."""
    plain = reference(adapter, tuned=False)
    with open_backend(adapter).as_base() as view:
        dists = view.next_token_dist_batch(PROMPTS, top_k=10_000)
        rolled = view.rolling_logprob_batch(PROMPTS)
    for prompt, dist, roll in zip(PROMPTS, dists, rolled, strict=True):
        assert _near(_by_id(dist), plain.logprobs(prompt)[-1])
        assert _near(roll.logprobs, plain.rolling(prompt))


@exactnesses
@pytest.mark.parametrize("top_k", [1, 5, 295])
def test_tail_is_the_mass_outside(
    open_backend: Open, reference: Plain, exactness: str, top_k: int
) -> None:
    """A cut distribution has the most probable tokens, and the log of what it leaves out."""
    plain = reference("llama_lora")
    with open_backend(exactness=exactness).as_finetuned() as view:
        dists = view.next_token_dist_batch(PROMPTS, top_k=top_k)
    for prompt, dist in zip(PROMPTS, dists, strict=True):
        expected = np.sort(plain.logprobs(prompt)[-1])[::-1]
        assert dist.token_ids.shape == (top_k,)
        assert dist.vocab_size == len(expected)
        assert _near(dist.logprobs, expected[:top_k])
        assert dist.tail_logprob == pytest.approx(np.log(np.exp(expected[top_k:]).sum()), abs=1e-4)


def test_tail_that_underflows(zoo: Any, open_backend: Open) -> None:
    """Where the tokens outside have no probability left, the tail is minus infinity."""
    model = zoo.tuned("llama_lora")
    sure = torch.full((1, 1, zoo.vocab_size), -3e38).index_fill(-1, torch.tensor(5), 3e38)
    model.get_output_embeddings().register_forward_hook(lambda *_: sure)
    with HFBackend(model, zoo.tokenizer()).as_finetuned() as view:
        dist = view.next_token_dist("the cat", top_k=1)
    assert (dist.token_ids.tolist(), dist.logprobs.tolist()) == ([5], [0.0])
    assert dist.tail_logprob == -math.inf


@exactnesses
@adapters
def test_rolling_is_each_token_given_those_before(
    open_backend: Open, reference: Plain, adapter: str, exactness: str
) -> None:
    """Each token's log-probability is read one position before it, and totals add up."""
    plain = reference(adapter)
    with open_backend(adapter, exactness=exactness).as_finetuned() as view:
        rolled = view.rolling_logprob_batch(PROMPTS)
    for prompt, roll in zip(PROMPTS, rolled, strict=True):
        expected = plain.rolling(prompt)
        assert roll.token_ids.tolist() == plain.ids(prompt)
        assert roll.num_tokens == len(plain.ids(prompt))
        assert _near(roll.logprobs, expected)
        assert roll.total_logprob == pytest.approx(expected.sum(), abs=1e-3)
        assert roll.total_logprob == pytest.approx(roll.logprobs.sum(dtype=np.float64), abs=1e-12)


def test_one_token_has_nothing_before_it(open_backend: Open) -> None:
    """A text of one token has no log-probability, and a perplexity of one."""
    with open_backend().as_finetuned() as view:
        roll = view.rolling_logprob("the")
    assert (roll.num_tokens, roll.logprobs.shape) == (1, (0,))
    assert (roll.total_logprob, roll.perplexity) == (0.0, 1.0)


@exactnesses
@adapters
def test_completion_is_given_the_shared_tokens(
    open_backend: Open, reference: Plain, adapter: str, exactness: str
) -> None:
    """A completion's tokens are those after the longest prefix that both tokenisations share."""
    plain = reference(adapter)
    with open_backend(adapter, exactness=exactness).as_finetuned() as view:
        scores = view.logprob_of_batch(PAIRS)
    for (prompt, completion), score in zip(PAIRS, scores, strict=True):
        given, whole = plain.ids(prompt), plain.ids(prompt + completion)
        shared = 0
        while given[: shared + 1] == whole[: shared + 1] and shared < len(given):
            shared += 1
        expected = plain.rolling(prompt + completion)[shared - 1 :].sum()
        assert score == pytest.approx(expected, abs=2e-4)


def test_some_pairs_merge_over_the_border(reference: Plain) -> None:
    """The pairs above hold both kinds: borders that tokens cross, and ones they do not."""
    plain = reference("llama_lora")
    crossed = [plain.ids(p + c)[: len(plain.ids(p))] != plain.ids(p) for p, c in PAIRS]
    assert set(crossed) == {True, False}


def _all_ops(view: Any, prompts: list[str], pairs: list[tuple[str, str]]) -> list[np.ndarray]:
    """Every answer as numbers: distributions by token id, then rolls, then completions."""
    dists: list[TokenDist] = view.next_token_dist_batch(prompts, top_k=10_000)
    rolled: list[RollingLogprob] = view.rolling_logprob_batch(prompts)
    return [
        *(_by_id(dist) for dist in dists),
        *(np.append(roll.logprobs, roll.total_logprob) for roll in rolled),
        *(np.array([score]) for score in view.logprob_of_batch(pairs)),
    ]


@exactnesses
@adapters
@pytest.mark.parametrize("kind", ["base", "finetuned", "scaled", "null"])
def test_batch_is_as_single(open_backend: Open, adapter: str, exactness: str, kind: str) -> None:
    """A value asked in company is the value asked alone: bit for bit in `strict`."""
    backend = open_backend(adapter, exactness=exactness, cache_enabled=False)
    opened = {
        "base": backend.as_base,
        "finetuned": backend.as_finetuned,
        "scaled": lambda: backend.as_scaled_adapter(0.5),
        "null": lambda: backend.as_null_adapter(3, init_scale=0.3),
    }[kind]()
    with opened as view:
        together = _all_ops(view, PROMPTS, PAIRS)
        singles = [_all_ops(view, [prompt], []) for prompt in PROMPTS]
        alone = [*(dist for dist, _ in singles), *(roll for _, roll in singles)]
        alone += [_all_ops(view, [], [pair])[0] for pair in PAIRS]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one, other) if exactness == "strict" else _near(one, other)


def test_fast_pads_and_strict_does_not(zoo: Any) -> None:
    """Prompts of mixed lengths are one padded pass in `fast`, and one pass each in `strict`."""
    shapes: list[tuple[int, ...]] = []
    model, tokenizer = zoo.tuned("llama_lora"), zoo.tokenizer()
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: shapes.append(tuple(inputs[0].shape))
    )
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS[:4]]
    for exactness, expected in (("fast", [(4, 6)]), ("strict", [(1, n) for n in lengths])):
        backend = HFBackend(model, tokenizer, exactness=exactness)
        shapes.clear()
        with backend.as_finetuned() as view:
            view.next_token_dist_batch(PROMPTS[:4])
        assert shapes == expected
    assert lengths == [6, 1, 1, 5]


class _Bare(LlamaForCausalLM):
    """A model that takes token ids alone."""

    def forward(self, input_ids: Any = None, **options: Any) -> Any:
        given = {name for name, value in options.items() if value is not None}
        assert not given & {"attention_mask", "position_ids", "logits_to_keep", *CACHE_NAMES}
        return super().forward(input_ids=input_ids)


class _Counting(LlamaForCausalLM):
    """A model whose values depend on the number of positions."""

    def forward(self, input_ids: Any = None, **options: Any) -> Any:
        output = super().forward(input_ids=input_ids, **options)
        output.logits = output.logits / input_ids.shape[1]
        return output


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [(_Bare, [(5, 6), (5, 6)]), (_Counting, [(1, n) for n in (1, 1, 4, 5, 6) * 2])],
)
def test_padding_needs_no_mask_but_a_causal_model(
    zoo: Any, reference: Plain, kind: Any, shapes: Any
) -> None:
    """Prompts are padded where that is right; the values are the model's in any case."""
    computed: list[tuple[int, ...]] = []
    model, plain = zoo.tuned("llama_lora", kind), reference("llama_lora", kind=kind)
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: computed.append(tuple(inputs[0].shape))
    )
    backend = HFBackend(model, zoo.tokenizer())
    computed.clear()
    with backend.as_finetuned() as view:
        rolled = view.rolling_logprob_batch(PROMPTS[:5])
        dists = view.next_token_dist_batch(PROMPTS[:5], top_k=10_000)
    assert sorted(computed) == sorted(shapes)
    assert (backend.optimisations["padded batches"] == "on") == (kind is _Bare)
    for prompt, roll, dist in zip(PROMPTS, rolled, dists, strict=False):
        assert _near(roll.logprobs, plain.rolling(prompt))
        assert _near(_by_id(dist), plain.logprobs(prompt)[-1])


def test_implements_every_protocol(open_backend: Open) -> None:
    """It is a backend that can be scaled and nulled."""
    backend = open_backend()
    assert isinstance(backend, ScalableBackend)
    assert isinstance(backend, NullBackend)
