"""Special tokens that a tokenizer appends to every text are no part of a prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from forwardscope.backends.hf import HFBackend
from forwardscope.backends.hf.tokens import encode, filler_token

#: Templates of tokenizers as they are saved; the second ends a text with two tokens.
TEMPLATES = {"ends": "$A <eos>", "starts and ends": "<pad> $A <eos> <pad>", "starts": "<pad> $A"}
TEXT = "the cat sat"


def _tokenizer(zoo: Any, template: str) -> Any:
    tokenizer = zoo.tokenizer()
    core = tokenizer.backend_tokenizer
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<pad>", "<eos>")]
    core.post_processor = TemplateProcessing(single=template, special_tokens=special)
    names = {"pad_token": "<pad>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_appended_tokens_are_dropped(zoo: Any, kind: str) -> None:
    """Those before the text stay, and so does a special token that is written in the text."""
    tokenizer = _tokenizer(zoo, TEMPLATES[kind])
    text = zoo.tokenizer()(TEXT)["input_ids"]
    before = [0] if kind.startswith("starts") else []
    encoded = encode(tokenizer, [TEXT, TEXT + "<eos>", "<eos><pad>", ""])
    assert encoded == [before + text, [*before, *text, 1], [*before, 1, 0], before]
    assert encode(tokenizer, []) == []


@pytest.mark.parametrize("exactness", ["fast", "strict"])
@pytest.mark.parametrize("kind", TEMPLATES)
def test_values_are_those_after_the_text(zoo: Any, kind: str, exactness: Any) -> None:
    """All ops continue the text, not what the tokenizer appends."""
    tokenizer = _tokenizer(zoo, TEMPLATES[kind])
    before = [0] if kind.startswith("starts") else []
    ids = before + zoo.tokenizer()(TEXT)["input_ids"]
    added = zoo.tokenizer()(TEXT + " there")["input_ids"][len(ids) - len(before) :]
    with torch.no_grad():
        logits = zoo.tuned("llama_lora")(torch.tensor([[*ids, *added]])).logits[0]
    logprobs = logits.double().log_softmax(-1).numpy()
    with HFBackend(zoo.tuned("llama_lora"), tokenizer, exactness=exactness).as_finetuned() as view:
        dist = view.next_token_dist(TEXT, top_k=10_000)
        roll = view.rolling_logprob(TEXT)
        summed = view.logprob_of(TEXT, " there")
    places = np.arange(len(ids) - 1, len(ids) + len(added) - 1)
    assert np.abs(dist.logprobs - logprobs[len(ids) - 1][dist.token_ids]).max() < 1e-4
    assert roll.token_ids.tolist() == ids
    assert np.abs(roll.logprobs - logprobs[np.arange(len(ids) - 1), ids[1:]]).max() < 1e-4
    assert summed == pytest.approx(logprobs[places, added].sum(), abs=1e-4)


def test_filler_is_a_token_with_an_embedding(zoo: Any) -> None:
    """A pad token beyond the model's vocabulary is passed over for the next special token."""
    tokenizer = zoo.tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<later>", "eos_token": "<eos>"})
    assert filler_token(tokenizer, len(tokenizer)) == "<later>"
    assert filler_token(tokenizer, len(tokenizer) - 1) == "<eos>"
    assert filler_token(tokenizer, 0) == ""
