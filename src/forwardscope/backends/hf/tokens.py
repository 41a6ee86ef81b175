"""Token ids of prompts, without what a tokenizer appends to every text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from forwardscope.core.keys import RenderedChat

__all__ = ["encode", "filler_token"]

#: A text that has at least one token in every tokenizer.
_SAMPLE: Final = "a 1"


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return each text's token ids, with the tokenizer's default settings.

    Special tokens that the tokenizer adds before a text stay. Those that it
    appends (`</s>`, `[SEP]`) are dropped, because what follows a text is
    predicted, and they would say that nothing does. Special tokens that are written
    in a text are part of it. To a rendered chat the tokenizer adds none.
    """
    encoded: dict[int, list[int]] = {}
    for rendered, encode_all in ((False, _encode_plain), (True, _encode_rendered)):
        places = [i for i, text in enumerate(texts) if isinstance(text, RenderedChat) is rendered]
        ids = encode_all(tokenizer, [str(texts[i]) for i in places]) if places else []
        encoded |= dict(zip(places, ids, strict=True))
    return [encoded[i] for i in range(len(texts))]


def _encode_rendered(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, verbose=False, add_special_tokens=False)["input_ids"]
    return ids


def _encode_plain(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    (_, sample), *encoded = _with_masks(tokenizer, [_SAMPLE, *texts])
    appended = 0 if all(sample) else _trailing(sample)
    return [ids[: len(ids) - min(appended, _trailing(mask))] for ids, mask in encoded]


def filler_token(tokenizer: Any, vocab_size: int) -> str:
    """Return the token of neutral filler: the pad token, else unk, else eos, else an empty text.

    Args:
        tokenizer: The tokenizer.
        vocab_size: Number of tokens that have an embedding; others are no filler.
    """
    for token in (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token):
        if token and tokenizer.convert_tokens_to_ids(token) < vocab_size:
            return str(token)
    return ""


def _with_masks(tokenizer: Any, texts: list[str]) -> list[tuple[list[int], list[int]]]:
    """Return each text's token ids and, for each of them, whether the tokenizer added it."""
    encoded = tokenizer(texts, verbose=False, return_special_tokens_mask=True)
    return list(zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True))


def _trailing(mask: Sequence[int]) -> int:
    """Return how many of the last tokens the tokenizer added."""
    return next((n for n, added in enumerate(reversed(mask)) if not added), len(mask))
