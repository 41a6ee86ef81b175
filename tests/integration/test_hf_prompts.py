"""Questions that cannot be answered are refused in words, and their text stays out of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.normalizers import Replace

from forwardscope import TraceReader
from forwardscope.backends.hf import HFBackend
from forwardscope.core.keys import fold_strings, prompt_hash
from forwardscope.errors import NonFiniteError, PromptError, ViewError

Open = Callable[..., HFBackend]

exactnesses = pytest.mark.parametrize("exactness", ["fast", "strict"])
TEXT = "the cat sat"


def _poisoned(zoo: Any, weight: str, value: float, **options: Any) -> HFBackend:
    """A backend whose adapter has one weight that is no number."""
    model = zoo.tuned("llama_lora")
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if f"{weight}.lora_B" in n)[0, 0] = value
    return HFBackend(model, zoo.tokenizer(), **options)


@exactnesses
@pytest.mark.parametrize("weight", ["q_proj", "v_proj"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_adapter_that_is_no_number(zoo: Any, weight: str, value: float, exactness: str) -> None:
    """NaN or infinity in an adapter is an error with view and hash, counted and never cached.

    Of these two weights only v_proj's reaches the logits: torch's attention
    drops a query of NaN.
    """
    backend = _poisoned(zoo, weight, value, exactness=exactness)
    folded = fold_strings(TEXT, " on")
    with backend.as_finetuned() as view:
        for ask, question in (
            (lambda: view.next_token_dist(TEXT), TEXT),
            (lambda: view.next_token_dist_batch([TEXT, "the"]), TEXT),
            (lambda: view.rolling_logprob(TEXT), TEXT),
            (lambda: view.logprob_of(TEXT, " on"), folded),
        ):
            with pytest.raises(NonFiniteError) as raised:
                ask()
            assert raised.value.view_id == "ft"
            assert raised.value.prompt_hash in {prompt_hash(question), prompt_hash("the")}
            assert raised.value.prompt_hash in str(raised.value)
            assert TEXT not in str(raised.value)
    inst = backend.instrumentation
    assert len(inst.cache) == 0
    assert (inst.stats.cache_misses, inst.stats.forward_passes) == (5, 0)
    with backend.as_scaled_adapter(0.5) as half, pytest.raises(NonFiniteError, match="'scaled_"):
        half.next_token_dist(TEXT)
    for opened in (backend.as_base(), backend.as_null_adapter(1)):
        with opened as view:
            assert np.isfinite(view.next_token_dist(TEXT).logprobs).all()


def test_one_bad_prompt_fails_its_batch(zoo: Any) -> None:
    """In a batch the prompt without finite logits is the one named, and none is stored."""
    model, tokenizer = zoo.tuned("llama_lora"), zoo.tokenizer()
    bad = tokenizer(" world")["input_ids"][0]
    backend = HFBackend(model, tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight[bad] = float("nan")
    with backend.as_finetuned() as view:
        with pytest.raises(NonFiniteError, match=prompt_hash("hello world")):
            view.next_token_dist_batch(["the cat", "hello world", "the mat sat on"])
        assert len(backend.instrumentation.cache) == 0
        assert len(view.next_token_dist_batch(["the cat", "the mat sat on"])) == 2


def test_prompt_longer_than_the_context(open_backend: Open) -> None:
    """A prompt beyond the model's context is refused with both counts, and never cut."""
    backend = open_backend()
    fits, beyond = "<pad>" * 64, "<pad>" * 65
    with backend.as_finetuned() as view:
        assert view.rolling_logprob(fits).num_tokens == 64
        for ask, key in (
            (lambda: view.next_token_dist(beyond), beyond),
            (lambda: view.next_token_dist_batch(["the", beyond]), beyond),
            (lambda: view.rolling_logprob(beyond), beyond),
            (lambda: view.logprob_of(fits, "<pad>"), fold_strings(fits, "<pad>")),
        ):
            with pytest.raises(PromptError, match="65 tokens, more than the 64") as raised:
                ask()
            assert prompt_hash(key) in str(raised.value)
            assert "<pad>" not in str(raised.value)
    assert len(backend.instrumentation.cache) == 1


def test_truncation_of_the_tokenizer_is_off(zoo: Any) -> None:
    """A tokenizer that was saved cutting and padding its input does neither here."""
    tokenizer = zoo.tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(max_length=3)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    with HFBackend(zoo.tuned("llama_lora"), tokenizer).as_base() as view:
        assert view.rolling_logprob("the cat sat on the mat").num_tokens == 6
        with pytest.raises(PromptError, match="65 tokens"):
            view.next_token_dist("<pad>" * 65)


def test_empty_prompt(open_backend: Open) -> None:
    """A prompt without text is refused by every op."""
    with open_backend().as_finetuned() as view:
        for ask in (
            lambda: view.next_token_dist(""),
            lambda: view.rolling_logprob_batch(["the", ""]),
            lambda: view.logprob_of("", "the"),
        ):
            with pytest.raises(PromptError, match="empty prompt"):
                ask()


def test_prompt_without_tokens(zoo: Any) -> None:
    """Text that the tokenizer drops altogether is refused by its hash."""
    tokenizer = zoo.tokenizer()
    tokenizer.backend_tokenizer.normalizer = Replace("x", "")
    with HFBackend(zoo.tuned("llama_lora"), tokenizer).as_base() as view:
        with pytest.raises(PromptError, match=f"{prompt_hash('xx')} has no tokens"):
            view.next_token_dist("xx")
        with pytest.raises(PromptError, match=f"{prompt_hash('2:xxthe')} has no tokens"):
            view.logprob_of("xx", "the")


def test_half_a_surrogate_pair(open_backend: Open) -> None:
    """A string that is no Unicode text is refused by its hash, as every op's other errors are."""
    prompt = "the \ud800 cat"
    with open_backend().as_finetuned() as view:
        message = f"{prompt_hash(prompt)} contains an unpaired surrogate"
        with pytest.raises(PromptError, match=message):
            view.next_token_dist(prompt)
        key = fold_strings("the", " \udc00")
        with pytest.raises(PromptError, match=f"{prompt_hash(key)} contains an unpaired surrogate"):
            view.logprob_of("the", " \udc00")


def test_completion_that_adds_no_token(open_backend: Open) -> None:
    """An empty completion is refused by the hash of the question, without its text."""
    backend = open_backend()
    with backend.as_finetuned() as view, pytest.raises(PromptError) as raised:
        view.logprob_of(TEXT, "")
    assert f"{prompt_hash(fold_strings(TEXT, ''))} adds no token" in str(raised.value)
    assert TEXT not in str(raised.value)
    assert len(backend.instrumentation.cache) == 0


def test_completion_that_changes_the_first_token(zoo: Any, open_backend: Open) -> None:
    """A completion that merges into the first token leaves nothing given, and is refused."""
    tokenizer = zoo.tokenizer()
    assert tokenizer("th")["input_ids"][0] != tokenizer("the")["input_ids"][0]
    with open_backend().as_finetuned() as view:
        with pytest.raises(PromptError, match="changes the prompt's first token"):
            view.logprob_of("th", "e cat")
        with pytest.raises(PromptError, match=prompt_hash(fold_strings("th", "e cat"))):
            view.logprob_of_batch([("the", " cat"), ("th", "e cat")])


def test_refused_question_is_in_the_trace(open_backend: Open, tmp_path: Any) -> None:
    """The record of a refused question has the error's class, and the hash of its message."""
    path = tmp_path / "trace.jsonl"
    with open_backend(trace_path=path).as_base() as view, pytest.raises(PromptError) as raised:
        view.logprob_of(TEXT, "")
    (record,) = TraceReader(path)
    assert (record.error, record.hit, record.tokens) == ("PromptError", False, None)
    assert record.prompt_hash in str(raised.value)


@pytest.mark.parametrize("adapter", ["llama_lora", "gpt2_lora"])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_filler_is_so_many_pad_tokens(
    zoo: Any, open_backend: Open, adapter: str, tokens: int
) -> None:
    """Filler is the pad token so many times and a blank line, and tokenises to just that."""
    filler = open_backend(adapter).filler(tokens)
    assert filler == "<pad>" * tokens + "\n\n"
    ids = zoo.tokenizer()(f"{filler}the cat")["input_ids"]
    pad = zoo.tokenizer().pad_token_id
    assert ids[:tokens] == [pad] * tokens
    assert pad not in ids[tokens:]


def test_no_filler(open_backend: Open) -> None:
    """Filler of no token is no text."""
    assert open_backend().filler(0) == ""


def test_filler_without_a_pad_token(zoo: Any) -> None:
    """Where there is no pad token, unk and then eos stands in; with none of them it is an error."""
    model, tokenizer = zoo.tuned("llama_lora"), zoo.tokenizer()
    backend = HFBackend(model, tokenizer)
    tokenizer.unk_token = "x"  # noqa: S105 - a token of text
    assert backend.filler(2) == "<pad><pad>\n\n"
    tokenizer.pad_token = None
    assert backend.filler(2) == "xx\n\n"
    tokenizer.unk_token = None
    assert backend.filler(2) == "<eos><eos>\n\n"
    tokenizer.eos_token = None
    with pytest.raises(ViewError, match="no pad, unk or eos token"):
        backend.filler(2)
