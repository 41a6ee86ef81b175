"""The forward cache: a bounded least-recently-used map, and how it measures values."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from enum import Enum
from typing import Any, Final, Literal

from forwardscope.core.forks import reset_in_children

__all__ = [
    "MISS",
    "DisabledCache",
    "Entry",
    "ForwardCache",
    "MissType",
    "size_of",
    "size_of_strings",
]


class MissType(Enum):
    """The type of `MISS`, so that `value is MISS` narrows for type checkers."""

    MISS = "MISS"

    def __repr__(self) -> str:
        return "MISS"


#: What `ForwardCache.get` returns for an unknown key; a stored None is a value.
MISS: Final = MissType.MISS


class Entry:
    """A value with its size and its origin. Never changed once it is made.

    Args:
        value: As it was put in.
        size: Bytes that it counts for, those of its key's strings included.
        origin: What the caller knows of the question that the value answers;
            opaque to the cache.
        call: Ids of the forward call that computed the value, or None; opaque
            to the cache.
    """

    __slots__ = ("call", "origin", "size", "value")

    def __init__(self, value: Any, size: int, origin: Any, call: Any) -> None:
        self.value: Final = value
        self.size: Final = size
        self.origin: Final = origin
        self.call: Final = call


class ForwardCache:
    """A least-recently-used map bounded by entries and, optionally, by bytes.

    Safe under threads: one lock is held for a few dictionary operations, and
    values are measured and released outside it. It is reentrant, so a signal
    handler may read the cache that its own thread is changing. Values are
    returned as they were put in.

    An interrupt leaves both bounds kept. `_nbytes` is None while a change is
    under way; where an interrupt ended one, the next change counts again.

    Args:
        maxsize: The most entries to keep.
        max_bytes: The most bytes to keep over all entries, or None for no bound.
        sizeof: Bytes that a value holds; by default arrays, containers and
            dataclasses are measured. The characters of the key's strings are
            added to it in either case.

    Raises:
        ValueError: A bound is not positive.

    Attributes:
        lock: The cache's lock, which its `SingleFlight` shares.
        generation: How often the cache was cleared.
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
        self.generation = 0
        self._sizeof = size_of if sizeof is None else sizeof
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()
        self._nbytes: int | None = 0
        self._evictions = 0
        self._rejections = 0
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self.lock = threading.RLock()

    def get(self, key: Hashable) -> Any | Literal[MissType.MISS]:
        """Return the value of a key and make it the most recently used, or return `MISS`."""
        entry = self.find(key)
        return MISS if entry is None else entry.value

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value as the most recently used; evict the oldest until both bounds hold.

        A value larger than `max_bytes` alone is not stored but counted as a
        rejection; what its key held before is removed all the same.

        Args:
            key: Any hashable.
            value: Anything, None included.
        """
        entry = self.new_entry(key, value)
        with self.lock:
            removed = self.store(key, entry)
        del removed  # after the lock: a finaliser is foreign code

    def find(self, key: Hashable) -> Entry | None:
        """Return the entry of a key and make it the most recently used."""
        with self.lock:
            return self._refresh(key)

    def find_all(self, keys: Iterable[Hashable]) -> dict[Any, Entry]:
        """Return the entries of those keys that have one; refresh each as often as it occurs."""
        found = {}
        with self.lock:
            for key in keys:
                entry = self._refresh(key)
                if entry is not None:
                    found[key] = entry
        return found

    def new_entry(self, key: Hashable, value: Any, origin: Any = None, call: Any = None) -> Entry:
        """Measure a value and return its entry for `store`."""
        return Entry(value, self._sizeof(value) + size_of_strings(key), origin, call)

    def store(self, key: Hashable, entry: Entry) -> list[Any]:
        """Store an entry, as `put` does, while the caller holds the lock.

        Room is made first, so that both bounds hold at any moment.

        Returns:
            What was removed, to be released after the lock.
        """
        entries, most = self._entries, self.max_bytes
        removed: list[Any] = []
        nbytes, self._nbytes = self._count_bytes(), None
        old = entries.get(key)
        if old is not None:
            removed.append(old)
            nbytes -= old.size
        if most is not None and entry.size > most:
            self._rejections += 1
            entries.pop(key, None)
        else:
            if old is not None:  # its key stays, so that no finaliser of a key runs here
                entries.move_to_end(key)
            while len(entries) + (old is None) > self.maxsize or (
                most is not None and nbytes + entry.size > most
            ):
                evicted = entries.popitem(last=False)
                removed.append(evicted)
                nbytes -= evicted[1].size
                self._evictions += 1
            entries[key] = entry
            nbytes += entry.size
        # the collector may have run a finaliser that changed the cache as well; then count again
        self._nbytes = nbytes if self._nbytes is None else None
        return removed

    def clear(self) -> None:
        """Remove all entries; a compute that is in flight now does not store its value."""
        with self.lock:
            removed = self._entries  # released after the lock, as in `store`
            self._nbytes = None
            self.generation += 1
            self._entries = OrderedDict()
            self._nbytes = 0
        del removed

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<ForwardCache {len(self)}/{self.maxsize} entries, {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        """Bytes held now: values and the characters of keys."""
        with self.lock:
            return self._count_bytes()

    @property
    def evictions(self) -> int:
        """Entries removed to make room, since the cache was made."""
        return self._evictions

    @property
    def rejections(self) -> int:
        """Values never stored because each was larger than the whole cache."""
        return self._rejections

    def _refresh(self, key: Hashable) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            try:  # noqa: SIM105 - `suppress` takes half the time of a hit
                self._entries.move_to_end(key)
            except KeyError:  # removed by a finaliser that the collector ran meanwhile
                pass
        return entry

    def _count_bytes(self) -> int:
        if self._nbytes is None:
            return sum(entry.size for entry in self._entries.values())
        return self._nbytes


class DisabledCache(ForwardCache):
    """A cache that keeps nothing, for a run that pays for each lookup."""

    def store(self, key: Hashable, entry: Entry) -> list[Any]:  # noqa: ARG002 - it is its API
        """Keep nothing."""
        return []


_SCALARS = frozenset({float, int, bool, complex, str, bytes, type(None)})
_EMPTY_STRING = sys.getsizeof("")


def size_of(value: Any) -> int:
    """Return the memory that a value holds, in bytes.

    Arrays and tensors (anything with an integer `nbytes`) count their data.
    Dicts, sequences, sets and dataclasses are walked; what is shared inside
    one value counts once, so cycles end. Any other object counts its own
    shallow size.
    """
    if type(value) in _SCALARS:
        return sys.getsizeof(value)
    total = 0
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        nbytes = _array_bytes(item)
        if nbytes is None:
            total += _shallow_size(item)
            waiting.extend(_children(item))
        else:
            total += nbytes
    return total


def size_of_strings(key: Any) -> int:
    """Return the memory of a key's characters, in bytes; the prompt dominates it."""
    total = 0
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, str):
            total += sys.getsizeof(part) - _EMPTY_STRING
    return total


def _shallow_size(item: Any) -> int:
    try:
        return sys.getsizeof(item, 0)
    except Exception:  # noqa: BLE001 - a foreign `__sizeof__` may raise anything
        return 0


def _array_bytes(item: Any) -> int | None:
    try:
        nbytes = item.nbytes
    except Exception:  # noqa: BLE001 - a foreign attribute may raise anything; it is no array then
        return None
    return nbytes if isinstance(nbytes, int) else None


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, list | tuple | set | frozenset | deque):
        return list(item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return [getattr(item, field.name, None) for field in dataclasses.fields(item)]
    return []
