"""Looking into a store, checking it and making room, through the protocol of all stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from forwardscope.errors import StoreError
from forwardscope.store.base import IMPORTED, IdentityInfo, Store, StoredRow
from forwardscope.store.codec import UnknownValueError, decode
from forwardscope.text import listed, shown

__all__ = [
    "BATCH",
    "Progress",
    "Usage",
    "find_identity",
    "flush",
    "is_sound",
    "no_progress",
    "prune",
    "remove",
    "usage",
    "verify",
    "watched",
]

T = TypeVar("T")

#: Called with the number of entries that are done.
Progress = Callable[[int], object]

#: Entries that are changed at once: half of what a store queues.
BATCH: Final = 512
_FLUSH_S: Final = 60.0
#: Identities that an error lists.
_MAX_LISTED: Final = 5
_REASONS: Final = {
    "SQLITE_BUSY": "another program holds it",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_READONLY": "it is read-only",
}


@dataclass(slots=True)
class Usage:
    """What a view identity takes of a store.

    Attributes:
        info: What the identity is made of; None where it was not described.
        entries: Number of its entries.
        imported: Number of those that came from a file.
        bytes: Size of their encoded values.
        last_used: Latest use of one, in seconds since the epoch.
    """

    info: IdentityInfo | None
    entries: int = 0
    imported: int = 0
    bytes: int = 0
    last_used: float = 0.0

    def add(self, row: StoredRow) -> None:
        """Count an entry."""
        self.entries += 1
        self.imported += row.run_id is not None and row.run_id.startswith(IMPORTED)
        self.bytes += row.nbytes
        self.last_used = max(self.last_used, row.last_used)


def no_progress(done: int) -> None:
    """Show nothing."""


def usage(store: Store, progress: Progress = no_progress) -> dict[str, Usage]:
    """Return what each view identity takes of a store, the largest first.

    Raises:
        StoreError: The store cannot be read.
    """
    described = store.identities()
    found: dict[str, Usage] = {}
    for row in watched(store.scan(), progress):
        if row.identity not in found:
            found[row.identity] = Usage(described.get(row.identity))
        found[row.identity].add(row)
    return dict(sorted(found.items(), key=lambda item: -item[1].bytes))


def verify(store: Store, progress: Progress = no_progress) -> tuple[int, list[bytes]]:
    """Check the checksums of all entries; return the number of sound ones, and the damaged.

    Raises:
        StoreError: The store cannot be read.
    """
    sound, damaged = 0, []
    for row, content in watched(store.contents(), progress):
        if is_sound(content, row.digest):
            sound += 1
        else:
            damaged.append(row.digest)
    return sound, damaged


def is_sound(content: bytes, digest: bytes) -> bool:
    """Return whether an encoded value is that of an entry; its type need not be known."""
    try:
        decode(content, digest)
    except UnknownValueError:
        return True
    except Exception:  # noqa: BLE001 - whatever the columns of a damaged file have
        return False
    return True


def prune(
    store: Store,
    *,
    max_bytes: int | None = None,
    unused_since: float | None = None,
    identity: str | None = None,
    progress: Progress = no_progress,
) -> int:
    """Remove entries, and give back the space; return how many.

    Entries that were not used are removed first, then the least recently used ones while
    the store is too large. Without both bounds all are removed.

    Args:
        store: The store.
        max_bytes: Bound of the store's bytes.
        unused_since: Remove what was last used before this time, in seconds since the epoch.
        identity: Remove only entries of this view identity.
        progress: Called with the number of removed entries.

    Raises:
        StoreError: The store cannot be changed.
    """
    removed = 0
    if unused_since is not None or max_bytes is None:
        since = float("inf") if unused_since is None else unused_since
        rows = store.scan(identity=identity)
        chosen = (row.digest for row in rows if row.last_used < since)
        removed = remove(store, chosen, progress)
    if max_bytes is not None:
        rows = store.scan(identity=identity, oldest_first=True)
        removed += _shrink(store, rows, max_bytes, lambda done: progress(removed + done))
    store.compact()
    return removed


def remove(store: Store, digests: Iterable[bytes], progress: Progress = no_progress) -> int:
    """Remove entries; return how many.

    Raises:
        StoreError: The store cannot be changed.
    """
    removed, rest = 0, iter(digests)
    while batch := list(islice(rest, BATCH)):
        store.delete(batch)
        flush(store)
        removed += len(batch)
        progress(removed)
    return removed


def find_identity(names: Iterable[str], prefix: str) -> str:
    """Return the view identity that begins with a prefix.

    Args:
        names: All identities.
        prefix: The beginning of one, or all of it.

    Raises:
        StoreError: None or several do.
    """
    found = sorted({name for name in names if name.startswith(prefix)})
    if prefix in found:
        return prefix
    if not found:
        raise StoreError(f"the store has no entries of an identity that begins with {prefix}")
    if len(found) > 1:
        first = listed([shown(name) for name in found], _MAX_LISTED)
        raise StoreError(f"{len(found)} identities begin with {prefix}: {first}")
    return found[0]


def flush(store: Store) -> None:
    """Wait until all changes are stored.

    Raises:
        StoreError: One has failed, now or before.
    """
    stored = store.flush(_FLUSH_S)
    failed = sorted({name for _, name in store.stats().errors})
    if failed:
        reason = _REASONS.get(failed[0], failed[0])
        raise StoreError(f"the store {store.name} cannot be changed: {reason}; try again")
    if not stored:
        raise StoreError(f"the store {store.name} took no change within {_FLUSH_S:.0f} s")


def _shrink(store: Store, rows: Iterator[StoredRow], max_bytes: int, progress: Progress) -> int:
    """Remove entries from the first on while the store is larger than a bound."""
    removed = 0
    while (excess := store.stats().bytes - max_bytes) > 0:
        # half at a time, as a value may free more than its own bytes
        batch = list(islice(_until(rows, excess / 2), BATCH))
        if not batch:
            break
        removed += remove(store, [row.digest for row in batch])
        progress(removed)
    return removed


def _until(rows: Iterator[StoredRow], nbytes: float) -> Iterator[StoredRow]:
    """Yield rows until their values have so many bytes."""
    for row in rows:
        yield row
        nbytes -= row.nbytes
        if nbytes <= 0:
            return


def watched(items: Iterable[T], progress: Progress) -> Iterator[T]:
    """Yield items, and report every few hundred of them."""
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if done % BATCH == 0:
            progress(done)
    progress(done)
