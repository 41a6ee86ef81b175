"""Text of other origin, made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwardscope.text import factor, listed, plural, printable, shown

any_text = st.text(st.characters())


@given(any_text)
@example("na\udcffme λ")
@example("\x1b]0;title\a")
def test_only_visible_characters_and_spaces_remain(text: str) -> None:
    """The result can be encoded, and no terminal or page acts on it."""
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert all(char.isprintable() or unicodedata.category(char) == "Zs" for char in shown)


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_visible_text_is_unchanged(text: str) -> None:
    """Letters, digits, marks and symbols of every script stay."""
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("two\nlines", r"two\nlines"),
        ("na\udcffme", r"na\udcffme"),
        ("1\u202f000", "1\u202f000"),
        ("abc\u202e", r"abc\u202e"),
    ],
)
def test_escapes_are_readable(text: str, shown: str) -> None:
    """An escape is spelt as in Python source."""
    assert printable(text) == shown


def test_long_text_is_shown_without_its_middle() -> None:
    """The beginning and the end tell long names apart."""
    assert shown("short\x1b") == r"short\x1b"
    assert shown("a" * 200) == "a" * 200
    assert shown(f"begin{'x' * 100_000}end", 10) == "begin…xxend"


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (0, "lookup", "0 lookups"),
        (1, "lookup", "1 lookup"),
        (2, "forward pass", "2 forward passes"),
        (3, "entry", "3 entries"),
    ],
)
def test_a_number_with_its_noun(number: int, noun: str, words: str) -> None:
    """One is singular, every other number plural."""
    assert plural(number, noun) == words


@pytest.mark.parametrize(
    ("names", "text"),
    [("", ""), ("a", "a"), ("ab", "a, b"), ("abc", "a, b and 1 more"), ("abcd", "a, b and 2 more")],
)
def test_the_first_names(names: str, text: str) -> None:
    """Of many names the first are shown, and how many more there are."""
    assert listed(list(names), 2) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (3.0, "3"), (999.4, "999"), (1512.3, "1512"), (2e7, "2e+07")],
)
def test_factors(value: float, text: str) -> None:
    """Three digits are enough, and an exponent is for what people do not read out."""
    assert factor(value) == text
