"""The forward cache: a bounded least-recently-used map."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Final, Literal

from forwardscope.core.sizeof import size_of, size_of_strings
from forwardscope.core.tally import new_tally, seen_of

__all__ = ["MISS", "DisabledCache", "Entry", "ForwardCache", "MissType", "Shelf", "new_entry"]


class MissType(Enum):
    """The type of `MISS`, so that `value is MISS` narrows for type checkers."""

    MISS = "MISS"

    def __repr__(self) -> str:
        return "MISS"


#: What `ForwardCache.get` returns for an unknown key; a stored None is a value.
MISS: Final = MissType.MISS


class Entry:
    """A value and what goes with it: first under way, then kept. `new_entry` makes one.

    Attributes:
        value: As it was put in; `MISS` while it is under way, or where that failed.
        size: Bytes that it counts for, those of its key included; None until measured.
        joined: Held until it is no longer under way; None where nobody has waited for it.
        told: What its compute told of its tokens; see `ForwardPass`.
        kind: What its lookups have in common with others, once there was one.
        shown: What a trace or a span says of its hits, once one has.
    """

    __slots__ = ("joined", "kind", "shown", "size", "told", "value")

    value: Any
    size: int | None
    joined: Any  # a lock; were it typed so, mypy would not believe that other threads set it
    told: tuple[Sequence[int], Sequence[int]] | None
    kind: Any
    shown: Any


def new_entry() -> Entry:
    """Make an entry that is under way.

    There is no `__init__`, since the quick way of a miss sets the same in place for half of it.
    """
    entry = Entry()
    entry.value = MISS
    entry.size = entry.joined = entry.told = entry.kind = entry.shown = None
    return entry


class Shelf:
    """What is kept and what is under way, from one `clear` to the next.

    Each method of its maps is one step for Python where a key is made of its own types, so no
    lock is needed to look it up, to refresh or to claim it: of two threads that set a default,
    one gets the other's.

    Attributes:
        entries: What is kept, by key, the least recently used first.
        under_way: What is being computed, by key. Whoever gets its own entry in there leads
            that pass: it looks once more whether it was stored meanwhile, and owes a `release`.
        added: How many entries were added, those that have gone since included.
        evicted: How many have gone from earlier shelves, and for their bytes.

    Args:
        evicted: The same.
    """

    __slots__ = ("added", "entries", "evicted", "under_way")

    def __init__(self, evicted: int = 0) -> None:
        self.entries: Final[OrderedDict[Hashable, Entry]] = OrderedDict()
        self.under_way: Final[dict[Hashable, Entry]] = {}
        self.added: Final = new_tally()
        self.evicted = evicted

    def find(self, key: Hashable) -> Entry | None:
        """Return the entry of a key, and make it the most recently used."""
        entry = self.entries.get(key)
        if entry is not None:
            self.refresh(key)
        return entry

    def refresh(self, key: Hashable) -> None:
        """Make an entry the most recently used, unless it has gone since it was looked up."""
        with suppress(KeyError):
            self.entries.move_to_end(key)

    def release(self, key: Hashable, entry: Entry) -> None:
        """Let nobody join an entry any more, and wake who did; for one that never led, nothing.

        It may be called again, as one has to that an interrupt kept from the first step.
        """
        if key in self.under_way and self.under_way[key] is entry:
            del self.under_way[key]
        joined, entry.joined = entry.joined, None
        if joined is not None:
            joined.release()


class ForwardCache:
    """A least-recently-used map bounded by entries and, if asked, by bytes.

    Safe under threads: `get` and `put` hold one lock for a few dict operations, and values are
    measured outside it. Values are handed out as they were put in. A backend, whose keys are
    strings and numbers, looks into the shelf without the lock.

    Args:
        maxsize: The most entries to keep.
        max_bytes: The most bytes to keep over all entries, or None for no bound.
        sizeof: Bytes that a value holds; by default arrays, containers and
            dataclasses are measured. The characters of the key's strings are
            added to it in either case.

    Raises:
        ValueError: A bound is not positive.

    Attributes:
        shelf: What is kept and under way now; another one after `clear`.
        plain: Whether what is stored has no bound but that on entries.
        lock: Guards the bytes, and who waits for what is under way. It is reentrant.
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
        self.shelf = Shelf()
        self.plain: Final = max_bytes is None and type(self) is ForwardCache
        self._nbytes = 0
        self._rejections = 0

    def get(self, key: Hashable) -> Any | Literal[MissType.MISS]:
        """Return the value of a key and make it the most recently used, or return `MISS`."""
        with self.lock:
            entry = self.shelf.find(key)
        return MISS if entry is None else entry.value

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value as the most recently used; evict the oldest until both bounds hold.

        An entry larger than `max_bytes` alone is not stored but counted as a
        rejection; what its key held before is gone all the same.

        Args:
            key: Any hashable.
            value: Anything, None included.
        """
        entry = new_entry()
        entry.value = value
        if self.max_bytes is None:
            with self.lock:
                self.store(self.shelf, key, entry)
        else:  # which measures it first, without the lock
            self.store(self.shelf, key, entry)

    def store(self, shelf: Shelf, key: Hashable, entry: Entry) -> None:
        """Put an entry onto a shelf, which may not be the current one any more."""
        if self.max_bytes is not None:
            self._store_measured(shelf, key, entry, self.max_bytes)
            return
        entries = shelf.entries
        try:
            kept = entries.setdefault(key, entry)
            if kept is not entry:
                kept.value, kept.size = entry.value, None
                shelf.refresh(key)
            elif next(shelf.added) >= self.maxsize:  # one goes for each that comes
                entries.popitem(False)
        except KeyboardInterrupt:
            self.mend(shelf)
            raise

    def mend(self, shelf: Shelf) -> None:
        """See to the bound on entries where an interrupt came in the middle of a `store`."""
        with self.lock:
            while seen_of(shelf.added) < len(shelf.entries):
                next(shelf.added)
            while len(shelf.entries) > self.maxsize:
                shelf.entries.popitem(False)

    def clear(self) -> None:
        """Forget all entries; a compute that is under way now will not store its value."""
        with self.lock:
            self.shelf = Shelf(self.evictions)
            self._nbytes = 0

    def wait(self, shelf: Shelf, key: Hashable, entry: Entry) -> Any | Literal[MissType.MISS]:
        """Wait until an entry of another thread is not under way any more.

        Returns:
            Its value, or `MISS` where there is none because the pass failed.
        """
        with self.lock:
            joined = entry.joined
            if joined is None:
                joined = threading.Lock()
                joined.acquire()
                entry.joined = joined
        # whoever leads looks for `joined` when it has released the key, so one sees the other
        if shelf.under_way.get(key) is entry:
            with joined:  # held by no one in particular, and passed on by each who waits
                pass
        return entry.value

    def __len__(self) -> int:
        return len(self.shelf.entries)

    def __repr__(self) -> str:
        return f"<ForwardCache {len(self)}/{self.maxsize} entries, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        """Bytes held now: values and the characters of keys.

        Without a bound on bytes nobody needs them before this is read, and what has come in
        since is measured then.
        """
        if self.max_bytes is not None:
            return self._nbytes
        with self.lock:
            entries, total = self.shelf.entries, 0
            kept = [(key, entries.get(key)) for key in list(entries)]
        for key, entry in kept:
            if entry is None:  # evicted since
                continue
            value, size = entry.value, entry.size
            if size is None:
                size = entry.size = self._size(key, value)
                if entry.value is not value:  # replaced meanwhile
                    entry.size = None
            total += size
        return total

    @property
    def evictions(self) -> int:
        """Entries removed for room since the cache was made."""
        shelf = self.shelf  # one read: both counts are of one shelf
        return shelf.evicted + max(0, seen_of(shelf.added) - self.maxsize)

    @property
    def rejections(self) -> int:
        """Values never stored, being larger than the whole cache."""
        return self._rejections

    def _size(self, key: Hashable, value: Any) -> int:
        return self._sizeof(value) + size_of_strings(key)

    def _store_measured(self, shelf: Shelf, key: Hashable, entry: Entry, most: int) -> None:
        entries = shelf.entries
        size = entry.size = self._size(key, entry.value)
        with self.lock:
            if shelf is not self.shelf:
                return
            if key in entries:
                self._nbytes -= entries.pop(key).size or 0
            if size > most:
                self._rejections += 1
                return
            entries[key] = entry
            self._nbytes += size
            while len(entries) > self.maxsize or self._nbytes > most:
                self._nbytes -= entries.popitem(False)[1].size or 0
                shelf.evicted += 1


class DisabledCache(ForwardCache):
    """A cache that keeps nothing, for a run that shall pay for every question."""

    def store(self, shelf: Shelf, key: Hashable, entry: Entry) -> None:
        """Keep nothing."""
