"""The mistakes of one suite file, which are reported together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from forwardscope.errors import SpecError
from forwardscope.text import plural, shown

__all__ = ["Mistakes"]

#: Mistakes that are reported, and mistakes that are kept to find the first of them by line.
_MAX_REPORTED: Final = 20
_MAX_KEPT: Final = 1000
_MAX_MESSAGE: Final = 400


class Mistakes:
    """Collects mistakes, each with its line; a limited number is kept.

    Args:
        source: Name of the file.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._count = 0
        self._kept: list[tuple[int, int, str]] = []
        self._about: set[Hashable] = set()

    def __bool__(self) -> bool:
        return self._count > 0

    def add(
        self, message: str, line: int = 0, column: int = 0, *, about: Hashable | None = None
    ) -> None:
        """Add a mistake.

        Args:
            message: What is wrong, and the fix; it may quote the file.
            line: Its line, or 0 for the whole file.
            column: Its column, or 0 for the whole line.
            about: What has the mistake, such as a key; by default its line and column.
        """
        self._count += 1
        if len(self._kept) < _MAX_KEPT:
            self._kept.append((line, column, message))
            self._about.add(about or (line, column))

    def has(self, about: Hashable) -> bool:
        """Return whether there is a mistake about a key, or at a line and a column."""
        return about in self._about

    def skip(self, number: int) -> None:
        """Count mistakes that are not described."""
        self._count += number

    def error(self) -> SpecError:
        """Return an error with the first mistakes in the order of their lines, and their number."""
        sentences = [self._sentence(*one) for one in sorted(self._kept, key=_place)[:_MAX_REPORTED]]
        if (left := self._count - len(sentences)) > 0:
            sentences.append(f"{self._source}: {plural(left, 'more mistake')}")
        return SpecError(*sentences)

    def _sentence(self, line: int, column: int, message: str) -> str:
        place = "".join(f":{number}" for number in (line, column) if number)
        return f"{self._source}{place}: {shown(message, _MAX_MESSAGE)}"


def _place(mistake: tuple[int, int, str]) -> tuple[int, bool, int]:
    """Return the place of a mistake: one of a whole line after those within it."""
    line, column, _ = mistake
    return line, column == 0, column
