"""Text of other origin, made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwardscope.text import printable

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
