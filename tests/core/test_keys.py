"""Prompt hashes, view families and joined strings."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from forwardscope.core.keys import (
    Question,
    RenderedChat,
    fold_strings,
    prompt_hash,
    question_of,
    view_family,
)

any_text = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", "da39a3ee5e6b"),
        ("hello", "aaf4c61ddcc5"),
        ("λ", "7bb1c28b6af9"),
        ("\ud800", "10db70ec072d"),
        ("\ud801", "94db5b4f4edc"),
    ],
)
def test_prompt_hash_is_sha1_over_utf8(prompt: str, expected: str) -> None:
    """It is the first 12 hex digits; a lone surrogate counts as its three bytes."""
    assert prompt_hash(prompt) == expected


@given(any_text)
def test_every_string_has_a_hash(prompt: str) -> None:
    """Any Python string gives 12 hex digits."""
    assert len(prompt_hash(prompt)) == 12


@given(any_text, any_text)
@example("12", "3:4")
@example("", "0:")
@example("a\0b", "c")
def test_fold_strings_is_reversible(first: str, second: str) -> None:
    """Both strings can be read back from the text, so no two pairs share one."""
    length, _, rest = fold_strings(first, second).partition(":")
    assert (rest[: int(length)], rest[int(length) :]) == (first, second)


def test_question_replaces_the_prompt_with_its_hash() -> None:
    """The other parts of the key are unchanged."""
    assert question_of(("op", "ft", "hello", 8)) == Question("op", "ft", "aaf4c61ddcc5", 8)


@pytest.mark.parametrize(
    ("view_id", "family"),
    [("base", "base"), ("ft", "ft"), ("scaled_0.5", "scaled"), ("null_7_0.02", "null"), ("", "")],
)
def test_view_family_has_no_parameter(view_id: str, family: str) -> None:
    """The id ends at its first underscore."""
    assert view_family(view_id) == family


@given(st.text(), st.text())
def test_rendered_chats(one: str, other: str) -> None:
    """A rendered chat equals another of the same text, and no plain string."""
    chat = RenderedChat(one)
    assert (chat == RenderedChat(other)) == (one == other)
    assert chat != one
    assert one != chat
    assert len({chat, one, RenderedChat(one)}) == 2
    assert prompt_hash(chat) == prompt_hash(RenderedChat(one)) != prompt_hash(one)
    assert (other + chat, chat + other) == (RenderedChat(other + one), RenderedChat(one + other))
    assert fold_strings(chat, other) == RenderedChat(fold_strings(one, other))
