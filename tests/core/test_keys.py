"""Prompts are hashed for traces, and two strings are joined without ambiguity."""

from __future__ import annotations

import hashlib

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from forwardscope.core.keys import (
    Question,
    fold_strings,
    printable,
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
        ("abc", "a9993e364706"),
    ],
)
def test_prompt_hash_is_the_start_of_sha1(prompt: str, expected: str) -> None:
    """It is the published digest, cut to twelve hex digits."""
    assert prompt_hash(prompt) == expected


def test_prompt_hash_is_over_utf8() -> None:
    """A character beyond ASCII is hashed as its UTF-8 bytes."""
    assert prompt_hash("λ") == hashlib.sha1(b"\xce\xbb", usedforsecurity=False).hexdigest()[:12]


def test_lone_surrogates_have_a_hash_each() -> None:
    """Half a surrogate pair is not valid UTF-8, and is hashed as its three bytes."""
    expected = hashlib.sha1(b"\xed\xa0\x80", usedforsecurity=False).hexdigest()[:12]
    assert prompt_hash("\ud800") == expected
    assert prompt_hash("\ud801") != expected


@given(any_text)
def test_every_string_has_a_hash(prompt: str) -> None:
    """No Python string fails, and each gives twelve hex digits."""
    digest = prompt_hash(prompt)
    assert len(digest) == 12
    assert int(digest, 16) >= 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b\0c"), ("a\0b", "c")),
        (("ab", "c"), ("a", "bc")),
        (("", "1:a"), ("1:a", "")),
        (("1", ":2"), ("", "1:2")),
    ],
)
def test_fold_strings_keeps_similar_pairs_apart(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """Pairs that a separator would confuse give different texts."""
    assert fold_strings(*one) != fold_strings(*other)


@given(any_text, any_text)
@example("12", "3:4")
@example("", "0:")
def test_fold_strings_can_be_undone(first: str, second: str) -> None:
    """Both strings can be read back from the text, so no two pairs share one."""
    length, _, rest = fold_strings(first, second).partition(":")
    assert (rest[: int(length)], rest[int(length) :]) == (first, second)


@given(st.text("01:"), st.text("01:"), st.text("01:"), st.text("01:"))
def test_fold_strings_is_injective(a: str, b: str, c: str, d: str) -> None:
    """Strings of digits and colons, which it writes itself, join equally only in equal pairs."""
    assert (fold_strings(a, b) == fold_strings(c, d)) == ((a, b) == (c, d))


def test_question_has_the_hash_for_the_prompt() -> None:
    """The other three parts of a key are in it as they are."""
    assert question_of(("op", "ft", "hello", 8)) == Question("op", "ft", "aaf4c61ddcc5", 8)


@pytest.mark.parametrize(
    ("view_id", "family"),
    [("base", "base"), ("ft", "ft"), ("scaled_0.5", "scaled"), ("null_7_0.02", "null"), ("", "")],
)
def test_view_family_has_no_parameter(view_id: str, family: str) -> None:
    """The id ends at its first underscore."""
    assert view_family(view_id) == family


@given(any_text)
def test_printable_text_is_valid_utf8(text: str) -> None:
    """Only lone surrogates are escaped; all other characters stay."""
    shown = printable(text)
    assert shown.encode().decode() == shown
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert shown == text


def test_printable_shows_which_byte_it_was() -> None:
    """A byte of a file name that is not UTF-8 is shown as its escape."""
    assert printable("na\udcffme λ") == r"na\udcffme λ"
