"""Keys of a store: digests, so that no prompt is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Literal

from forwardscope.core.keys import RenderedChat, prompt_hash

__all__ = [
    "DIGEST_SIZE",
    "Tokenised",
    "entry_digest",
    "question_digest",
    "question_digest_of_hash",
    "tokenised_of",
]

#: Bytes of a digest.
DIGEST_SIZE: Final = 32

#: How a prompt becomes tokens: with the special tokens that the tokenizer adds, or as a
#: rendered chat, which has them already.
Tokenised = Literal["plain", "chat"]


def tokenised_of(prompt: str) -> Tokenised:
    """Return how a prompt becomes tokens."""
    return "chat" if isinstance(prompt, RenderedChat) else "plain"


def entry_digest(
    identity: str, op: str, prompt: str, top_k: int, tokenised: Tokenised = "plain"
) -> bytes:
    """Return the key of an entry: BLAKE2b-256 over all that its value depends on.

    Args:
        identity: View identity.
        op: What is computed.
        prompt: The whole prompt.
        top_k: 0 where an op has none.
        tokenised: How the prompt becomes tokens.
    """
    return _digest("entry", (identity, op, prompt, str(top_k), tokenised))


def question_digest(op: str, prompt: str, top_k: int) -> bytes:
    """Return what equal questions to different views have in common."""
    return question_digest_of_hash(op, prompt_hash(prompt), top_k)


def question_digest_of_hash(op: str, prompt_hash: str, top_k: int) -> bytes:
    """Return the digest of a question of which only the prompt's hash is known, as in a trace."""
    return _digest("question", (op, prompt_hash, str(top_k)))


def _digest(kind: str, parts: Iterable[str]) -> bytes:
    """Hash parts, each after its length, so that other parts never give the same bytes."""
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE, person=kind.encode())
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")  # lone surrogates as they are
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
