"""Cache keys, and the short hashes that stand for prompts in traces and spans."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

__all__ = [
    "ADAPTED_FAMILIES",
    "LookupKey",
    "Question",
    "RenderedChat",
    "fold_strings",
    "prompt_hash",
    "question_of",
    "view_family",
]

#: (op, view id, prompt, top_k). The prompt is kept whole, so prompts never collide.
LookupKey = tuple[str, str, str, int]
#: View families of the base with an adapter.
ADAPTED_FAMILIES: Final = ("ft", "scaled")
#: Precedes a rendered chat in its hash; no character, so that no text begins with it.
_CHAT = "\ufdd0chat\ufdd1"


class RenderedChat(str):
    """A prompt that a chat template made: it has all its special tokens, and gets no others.

    It never equals a plain string, whose tokens may be others.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RenderedChat) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(("chat", str(self)))

    def __add__(self, text: str) -> RenderedChat:
        return RenderedChat(str(self) + text)

    def __radd__(self, text: str) -> RenderedChat:
        return RenderedChat(text + str(self))


class Question(NamedTuple):
    """A lookup key with the prompt's hash in place of the prompt, for traces and spans."""

    op: str
    view_id: str
    prompt_hash: str
    top_k: int


def question_of(key: LookupKey) -> Question:
    """Return a key with the prompt's hash."""
    op, view_id, prompt, top_k = key
    return Question(op, view_id, prompt_hash(prompt), top_k)


def prompt_hash(prompt: str) -> str:
    """Return the first 12 hex digits of SHA-1 over the prompt's UTF-8.

    For traces, spans and messages; cache keys hold the prompt itself. Lone surrogates
    are encoded as they are, so any Python string has a hash. That of a rendered chat is not
    that of the same plain text.
    """
    text = f"{_CHAT}{prompt}" if isinstance(prompt, RenderedChat) else prompt
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]


def fold_strings(first: str, second: str) -> str:
    """Join two strings; different pairs give different results.

    The result starts with the length of the first string, as in a netstring. It is a
    rendered chat where the first string is.
    """
    return f"{len(first)}:" + first + second


def view_family(view_id: str) -> str:
    """Return a view's id without its parameter: `base`, `ft`, `scaled`, `null`."""
    return view_id.partition("_")[0]
