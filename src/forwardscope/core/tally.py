"""A count that many threads add to, and few read."""

from __future__ import annotations

import itertools
import threading
from typing import Final

__all__ = ["Tally"]


class Tally:
    """Counts one at a time, without a lock: `next(tally.one_more)` is one step in Python.

    Attributes:
        one_more: What to call `next` with; of no use but that.
    """

    __slots__ = ("_lock", "_looks", "one_more")

    def __init__(self) -> None:
        self.one_more: Final = itertools.count()
        self._lock = threading.Lock()
        self._looks = 0

    @property
    def value(self) -> int:
        """How often it was counted; looking counts as well, and is taken off again."""
        with self._lock:
            seen = next(self.one_more) - self._looks
            self._looks += 1
        return seen
