"""Make text of other origin safe to show."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]


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


def _escaped(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) == "Zs":  # spaces of all widths
        return char
    return char.encode("unicode_escape").decode("ascii")
