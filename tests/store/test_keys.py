"""Digests of entries and questions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forwardscope.core.keys import RenderedChat, prompt_hash
from forwardscope.store.keys import (
    DIGEST_SIZE,
    entry_digest,
    question_digest,
    question_digest_of_hash,
    tokenised_of,
)

_TEXT = st.text(st.characters())  # lone surrogates too
_PARTS = st.tuples(_TEXT, _TEXT, _TEXT, st.integers(0, 300), st.sampled_from(["plain", "chat"]))


@given(_PARTS, _PARTS)
def test_digests_are_equal_where_all_parts_are(one: tuple, other: tuple) -> None:
    """Two entries have one digest only if every part is the same."""
    assert len(entry_digest(*one)) == DIGEST_SIZE
    assert (entry_digest(*one) == entry_digest(*other)) == (one == other)


def test_parts_do_not_run_together() -> None:
    """Text that moves from one part to the next gives another digest."""
    moved = [
        ("ab", "c", "d"),
        ("a", "bc", "d"),
        ("a", "b", "cd"),
        ("abc", "", "d"),
        ("", "abc", "d"),
    ]
    digests = {entry_digest(*parts, top_k=1) for parts in moved}
    assert len(digests) == len(moved)


def test_each_part_counts() -> None:
    """Another identity, op, prompt, top_k or kind of tokens is another entry."""
    variants = [
        ("i", "o", "p", 1, "plain"),
        ("j", "o", "p", 1, "plain"),
        ("i", "q", "p", 1, "plain"),
        ("i", "o", "r", 1, "plain"),
        ("i", "o", "p", 2, "plain"),
        ("i", "o", "p", 1, "chat"),
    ]
    assert len({entry_digest(*parts) for parts in variants}) == len(variants)


def test_digests_stay_what_they_are() -> None:
    """A digest is the same in every release, or stored values would be lost."""
    expected = "19a579f9a9994b77ad21e9d5c13f60d58c4c7f93a04b13e00db37f81254717f9"
    assert entry_digest("identity", "next_token_dist", "caf\u00e9 \ud800", 256).hex() == expected


def test_a_question_is_known_by_the_hash_of_its_prompt() -> None:
    """A trace's record, which has the prompt's hash, gives the question's digest."""
    digest = question_digest("op", "prompt", 8)
    assert digest == question_digest_of_hash("op", prompt_hash("prompt"), 8)
    others = [("op2", "prompt", 8), ("op", "prompt2", 8), ("op", "prompt", 9)]
    assert len({digest, *(question_digest(*other) for other in others)}) == 4


def test_how_a_prompt_becomes_tokens() -> None:
    """A rendered chat gets no special tokens, and a plain text does."""
    assert (tokenised_of("text"), tokenised_of(RenderedChat("text"))) == ("plain", "chat")
