"""Make text of other origin safe to show, and count in words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["MAX_NAME", "MAX_SENTENCE", "factor", "listed", "plural", "printable", "shown"]

#: Characters shown of a name, and of a sentence that may quote names.
MAX_NAME: Final = 200
MAX_SENTENCE: Final = 2000


def printable(text: str) -> str:
    r"""Escape what is no visible character, so that it has no effect where it is shown.

    Control characters could drive a terminal, format characters reorder a line, a lone
    surrogate (a byte of a file name that is not UTF-8) cannot be encoded at all. Each becomes
    its escape, as in `\x1b`. All text that comes from a suite, a model, an adapter, a trace, a
    result, a server or an exception passes through here before a terminal, a file, a label or a
    span has it.

    Args:
        text: One line. A line break is escaped as well.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def shown(text: str, length: int = MAX_NAME) -> str:
    """Return a name or a line for people, as `printable` does, without the middle if it is long.

    Args:
        text: One line.
        length: Characters that are kept, before escapes.
    """
    if len(text) > length:
        text = f"{text[: length // 2]}…{text[-(length // 2) :]}"
    return printable(text)


def plural(number: int, noun: str, form: Callable[[int], str] = str) -> str:
    """Return a number with its noun in singular or plural, such as `2 passes`.

    Args:
        number: The number.
        noun: The noun in singular.
        form: Formats the number.
    """
    if number != 1:
        noun = f"{noun[:-1]}ie" if noun.endswith("y") else noun
        noun += "es" if noun.endswith("s") else "s"
    return f"{form(number)} {noun}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are, such as `a, b, c and 2 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def factor(value: float) -> str:
    """Return a factor with three significant digits; from 1000 to a million as a whole number."""
    return f"{value:.0f}" if 1e3 <= value < 1e6 else f"{value:.3g}"


def _escaped(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":  # spaces of all widths
        return char
    return char.encode("unicode_escape").decode("ascii")
