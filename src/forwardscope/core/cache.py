"""The forward cache: a bounded least-recently-used map."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, Final, Literal

from forwardscope.core.sizeof import size_of, size_of_strings

__all__ = ["MISS", "DisabledCache", "Entry", "ForwardCache", "MissType"]


class MissType(Enum):
    """The type of `MISS`, so that `value is MISS` narrows for type checkers."""

    MISS = "MISS"

    def __repr__(self) -> str:
        return "MISS"


#: What `ForwardCache.get` returns for an unknown key; a stored None is a value.
MISS: Final = MissType.MISS


class Entry:
    """What the cache keeps under a key; `put` makes a new one.

    Attributes:
        value: As it was put in.
        size: Bytes that it counts for, those of its key included.
        kind: What its hits have in common with others, once there was one.
        shown: What a trace or a span says of them, once one has.
    """

    __slots__ = ("kind", "shown", "size", "value")

    def __init__(self, value: Any, size: int) -> None:
        self.value: Final = value
        self.size: Final = size
        self.kind: Any = None
        self.shown: Any = None


class ForwardCache:
    """A least-recently-used map bounded by entries and, if asked, by bytes.

    Safe under threads: each call holds one lock for a few dict operations, and
    values are measured outside it. Values are handed out as they were put in.

    Args:
        maxsize: The most entries to keep.
        max_bytes: The most bytes to keep over all entries, or None for no bound.
        sizeof: Bytes that a value holds; by default arrays, containers and
            dataclasses are measured. The characters of the key's strings are
            added to it in either case.

    Raises:
        ValueError: A bound is not positive.

    Attributes:
        lock: Guards the entries. It is reentrant, and whoever holds it may
            change other things together with them.
        entries: By key, the least recently used first. Changed by whoever holds the lock;
            `get` and `move_to_end` are one step each, and a hit needs no more.
        generation: How often the cache has been cleared; see `put`.
    """

    def __init__(
        self,
        maxsize: int = 256,
        *,
        max_bytes: int | None = None,
        sizeof: Callable[[Any], int] | None = None,
    ) -> None:
        if maxsize <= 0:
            raise ValueError(f"maxsize must be positive; got {maxsize}")
        if max_bytes is not None and max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive or None; got {max_bytes}")
        self.maxsize: Final = maxsize
        self.max_bytes: Final = max_bytes
        self._sizeof = size_of if sizeof is None else sizeof
        self.lock: Final = threading.RLock()
        self.entries: Final[OrderedDict[Hashable, Entry]] = OrderedDict()
        self._nbytes = 0
        self.generation = 0
        self._evictions = 0
        self._rejections = 0

    def get(self, key: Hashable) -> Any | Literal[MissType.MISS]:
        """Return the value of a key and make it the most recently used, or return `MISS`."""
        with self.lock:
            entry = self.entries.get(key)
            if entry is None:
                return MISS
            self.entries.move_to_end(key)
            return entry.value

    def put(self, key: Hashable, value: Any, *, generation: int | None = None) -> None:
        """Store a value as the most recently used; evict the oldest until both bounds hold.

        An entry larger than `max_bytes` alone is not stored but counted as a
        rejection; what its key held before is gone all the same.

        Args:
            key: Any hashable.
            value: Anything, None included.
            generation: Store only if the cache was not cleared since this
                `generation` was read; None stores always.
        """
        entry = self.entry_of(key, value)
        with self.lock:
            self.store(key, entry, self.generation if generation is None else generation)

    def entry_of(self, key: Hashable, value: Any) -> Entry:
        """Measure a value and its key: the part of a `put` that needs no lock."""
        return Entry(value, self._sizeof(value) + size_of_strings(key))

    def store(self, key: Hashable, entry: Entry, generation: int) -> None:
        """Do the rest of a `put`, for whoever holds the lock."""
        if generation != self.generation:
            return
        entries, most, size = self.entries, self.max_bytes, entry.size
        if key in entries:
            self._nbytes -= entries.pop(key).size
        if most is not None and size > most:
            self._rejections += 1
            return
        entries[key] = entry
        self._nbytes += size
        while len(entries) > self.maxsize or (most is not None and self._nbytes > most):
            self._nbytes -= entries.popitem(False)[1].size
            self._evictions += 1

    def clear(self) -> None:
        """Forget all entries; a compute that is under way now will not store its value."""
        with self.lock:
            self.entries.clear()
            self._nbytes = 0
            self.generation += 1

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<ForwardCache {len(self)}/{self.maxsize} entries, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        """Bytes held now: values and the characters of keys."""
        return self._nbytes

    @property
    def evictions(self) -> int:
        """Entries removed for room since the cache was made."""
        return self._evictions

    @property
    def rejections(self) -> int:
        """Values never stored, being larger than the whole cache."""
        return self._rejections


class DisabledCache(ForwardCache):
    """A cache that keeps nothing, for a run that shall pay for every question."""

    def store(self, key: Hashable, entry: Entry, generation: int) -> None:
        """Keep nothing."""
