"""A count that many threads add to without a lock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from operator import length_hint

__all__ = ["new_tally", "seen_of"]


def new_tally() -> Iterator[int]:
    """Return a count from 0: `next(tally)` adds one, which is one step in Python.

    It returns how many there were before.
    """
    return iter(range(sys.maxsize))


def seen_of(tally: Iterator[int]) -> int:
    """Return how many there are, by how many could still come: looking changes nothing."""
    return sys.maxsize - length_hint(tally)
