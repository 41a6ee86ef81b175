"""A store in memory, for tests of what uses one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from forwardscope.store.base import (
    IdentityInfo,
    Lease,
    NewEntry,
    StoredEntry,
    StoredRow,
    StoreStats,
    Tier,
)
from forwardscope.store.codec import UnknownValueError, decode, encode
from forwardscope.store.counting import StoreCounts

__all__ = ["MemoryStore"]


class MemoryStore:
    """A complete store that lasts as long as the object, and stores at once. Safe under threads.

    Values are encoded and decoded as in other stores.

    Args:
        name: What is shown to users.
        tier: The tier of its hits.
    """

    def __init__(self, name: str = "memory", tier: Tier = "disk") -> None:
        self.name = name
        self.tier: Tier = tier
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, tuple[bytes, StoredRow]] = OrderedDict()
        self._identities: dict[str, IdentityInfo] = {}
        self._counts = StoreCounts(name)
        self._closed = False

    def get_many(self, digests: Sequence[bytes]) -> dict[bytes, StoredEntry]:
        """Return the entries that are there, by digest."""
        found = {}
        with self._lock:
            for digest in digests if not self._closed else ():
                if digest in self._entries:
                    content, row = self._entries.pop(digest)
                    self._entries[digest] = content, row._replace(last_used=time.time())
                    value = decode(content, digest)
                    found[digest] = StoredEntry(value, *row[3:6], len(content))
        return found

    def put_many(self, entries: Sequence[NewEntry]) -> None:
        """Store entries."""
        with self._lock:
            if self._closed:
                self._counts.add("dropped", len(entries))
                return
            for new in entries:
                try:
                    content = encode(new.value, new.digest)
                except UnknownValueError:
                    self._counts.add("unsupported")
                    continue
                ids = new.run_id, new.trace_id, new.span_id, len(content)
                row = StoredRow(new.digest, new.question, new.identity, *ids, time.time())
                self._entries[new.digest] = content, row

    def delete(self, digests: Sequence[bytes]) -> None:
        """Remove entries."""
        with self._lock:
            for digest in digests:
                self._entries.pop(digest, None)

    def scan(
        self,
        *,
        question: bytes | None = None,
        identity: str | None = None,
        oldest_first: bool = False,
    ) -> Iterator[StoredRow]:
        """Yield what is known of the entries of a question, an identity, or all."""
        with self._lock:
            rows = [row for _, row in self._entries.values()]
        if oldest_first:
            rows.sort(key=lambda row: row.last_used)
        for row in rows:
            if question in (None, row.question) and identity in (None, row.identity):
                yield row

    def contents(self) -> Iterator[tuple[StoredRow, bytes]]:
        """Yield all entries with their encoded values."""
        with self._lock:
            entries = list(self._entries.values())
        for content, row in entries:
            yield row, content

    def compact(self) -> None:
        """Forget identities without entries."""
        with self._lock:
            used = {row.identity for _, row in self._entries.values()}
            self._identities = {
                name: info for name, info in self._identities.items() if name in used
            }

    def lease(self, digests: Sequence[bytes]) -> Lease:
        """Return a lease of all."""
        return Lease(digests)

    def describe_identity(
        self,
        identity: str,
        parts: Mapping[str, str],
        *,
        model: str,
        adapter: str | None,
        view_family: str,
    ) -> None:
        """Store what an identity is made of."""
        self._identities[identity] = IdentityInfo(dict(parts), model, adapter, view_family)

    def identities(self) -> dict[str, IdentityInfo]:
        """Return all identities that were described."""
        return dict(self._identities)

    def stats(self) -> StoreStats:
        """Return the counts of now."""
        with self._lock:
            nbytes = sum(row.nbytes for _, row in self._entries.values())
            return self._counts.snapshot(len(self._entries), nbytes, None)

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002 - nothing is queued
        """Return True: nothing is queued."""
        return True

    def close(self, timeout_s: float = 5.0) -> None:  # noqa: ARG002 - nothing is queued
        """Store nothing more and find nothing more."""
        with self._lock:
            self._closed = True
