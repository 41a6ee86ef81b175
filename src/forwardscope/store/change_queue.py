"""Changes of a store that wait to be written, bounded by their number and their bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Generic, NamedTuple, TypeVar

from forwardscope.core.cache import size_of
from forwardscope.store.base import NewEntry

__all__ = ["ChangeQueue", "Mark", "size_of_change"]

C = TypeVar("C")

#: Changes that wait, and bytes of their values in memory; more do not fit.
_CAPACITY: Final = 1024
_CAPACITY_BYTES: Final = 2**28


@dataclass(slots=True)
class Mark:
    """A place in the queue; `passed` when all before it is written or dropped."""

    passed: bool = False


class _Queued(NamedTuple, Generic[C]):
    """A change or mark, between the bytes that were queued before it and after it."""

    change: C | Mark
    start: int
    end: int


class ChangeQueue(Generic[C]):
    """A queue of changes and marks. Not safe under threads: its user has a lock.

    An interrupted method leaves it whole: the bytes in it follow from its first and last item.
    """

    def __init__(self) -> None:
        self._items: deque[_Queued[C]] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, changes: Sequence[C], sizes: Sequence[int]) -> int:
        """Append changes up to the first that does not fit; return how many.

        One that is larger than the bound fits where no other waits.

        Args:
            changes: The changes.
            sizes: Bytes of each in memory.
        """
        start, end = self._ends()
        room = max(0, _CAPACITY - len(self._items))
        fitting: list[_Queued[C]] = []
        for change, size in zip(changes[:room], sizes, strict=False):
            if start < end and end + size - start > _CAPACITY_BYTES:
                break
            fitting.append(_Queued(change, end, end + size))
            end += size
        self._items.extend(fitting)
        return len(fitting)

    def put_mark(self) -> Mark:
        """Append a mark, which always fits, and return it."""
        mark = Mark()
        _, end = self._ends()
        self._items.append(_Queued(mark, end, end))
        return mark

    def take(self, most: float = inf, most_bytes: float = inf) -> tuple[list[C], list[Mark]]:
        """Remove and return the first changes and marks; at least one, however large."""
        taken: list[C | Mark] = []
        end = self._ends()[0] + most_bytes
        while self._items and len(taken) < most and (not taken or self._items[0].end <= end):
            taken.append(self._items.popleft().change)
        marks = [one for one in taken if isinstance(one, Mark)]
        return [one for one in taken if not isinstance(one, Mark)], marks

    def _ends(self) -> tuple[int, int]:
        """Return where the queue starts and ends, in bytes."""
        return (self._items[0].start, self._items[-1].end) if self._items else (0, 0)


def size_of_change(change: object) -> int:
    """Return the bytes of a change's value in memory; 0 for one that is no new entry."""
    return size_of(change.value) if isinstance(change, NewEntry) else 0
