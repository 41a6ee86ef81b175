"""Cache keys, and the short hashes that stand for prompts in traces and spans."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

__all__ = [
    "LookupKey",
    "Question",
    "fold_strings",
    "prompt_hash",
    "question_of",
    "view_family",
]

#: (op, view id, prompt, top_k). The prompt is kept whole, so prompts never collide.
LookupKey = tuple[str, str, str, int]


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
    are encoded as they are, so any Python string has a hash.
    """
    data = prompt.encode("utf-8", "surrogatepass")
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]


def fold_strings(first: str, second: str) -> str:
    """Join two strings; different pairs give different results.

    The result starts with the length of the first string, as in a netstring.
    """
    return f"{len(first)}:{first}{second}"


def view_family(view_id: str) -> str:
    """Return a view's id without its parameter: `base`, `ft`, `scaled`, `null`."""
    return view_id.partition("_")[0]
