"""The thread that writes to a server, and renews leases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from forwardscope.store.base import NewEntry
from forwardscope.store.counting import StoreCounts
from forwardscope.store.queued_writer import QueuedWriter
from forwardscope.store.redis_entries import pack
from forwardscope.store.redis_leases import RENEW_S

__all__ = ["Change", "Deletion", "Description", "RedisWriter", "Written"]

#: Changes of one transaction.
_BATCH: Final = 64
_EXIT_S: Final = 1.0
#: Uses are written so often where nothing else is.
_USES_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Deletion:
    """An entry to remove."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Description:
    """What an identity is made of, as JSON."""

    identity: bytes
    info: str


#: An entry as (digest, packed), or another change.
Written = tuple[bytes, bytes] | Deletion | Description
Change = NewEntry | Deletion | Description


class _Server(Protocol):
    def write(self, changes: Sequence[Written], used: Sequence[bytes]) -> bool:
        """Write changes in one transaction, and note uses; return whether it succeeded."""
        ...

    def renew(self, digests: Sequence[bytes]) -> None:
        """Renew leases."""
        ...

    def release(self, digests: Sequence[bytes]) -> None:
        """Delete leases of this store."""
        ...


class RedisWriter(QueuedWriter[Change, bytes]):
    """Writes entries to a server, and keeps leases while their values are computed.

    What a failed transaction had is counted as dropped. A forked child has no leases.

    Args:
        server: What is written to.
        counts: Where losses are counted.
    """

    def __init__(self, server: _Server, counts: StoreCounts) -> None:
        self._server = server
        super().__init__(counts, _BATCH, _EXIT_S)

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._leases: dict[bytes, bool] = {}
        self._renewed = self._uses_written = time.monotonic()

    def touch(self, used: Sequence[bytes]) -> None:
        """Note that entries were used, in this order; it is written within about a second."""
        super().touch(used)
        self._ensure_worker()

    def hold(self, digests: Sequence[bytes]) -> None:
        """Renew the leases of entries from now on, until they are stored or given up."""
        with self._lock:
            self._leases |= dict.fromkeys(digests, False)
        self._ensure_worker()

    def not_held(self, digests: Sequence[bytes]) -> set[bytes]:
        """Return those whose leases are not renewed."""
        with self._lock:
            return set(digests) - self._leases.keys()

    def forget_leases(self, digests: Sequence[bytes]) -> list[bytes]:
        """Renew leases no longer, unless their entries are queued; return them."""
        with self._lock:
            ended = [one for one in digests if self._leases.get(one) is False]
            for one in ended:
                del self._leases[one]
        return ended

    def _accept(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, NewEntry) and change.digest in self._leases:
                self._leases[change.digest] = True

    def _is_needed(self) -> bool:
        return bool(self._leases)

    def _uses_are_due(self) -> bool:
        """Return whether uses have waited long enough; each write of them takes time from gets."""
        now = time.monotonic()
        due = now - self._uses_written >= _USES_S
        if due:
            self._uses_written = now
        return due

    def _write(self, changes: Sequence[Change], used: Sequence[bytes]) -> None:
        written = [one for change in changes if (one := self._packed(change)) is not None]
        done = self._server.write(written, used)
        if not done:
            self._counts.add("dropped", sum(isinstance(one, tuple) for one in written))
        stored = {one[0] for one in written if isinstance(one, tuple)} if done else set()
        self._end_leases([one.digest for one in changes if isinstance(one, NewEntry)], stored)

    def _packed(self, change: Change) -> Written | None:
        if not isinstance(change, NewEntry):
            return change
        content = self._encoded(change, pack)
        return None if content is None else (change.digest, content)

    def _end_leases(self, digests: Sequence[bytes], stored: set[bytes]) -> None:
        """Hold the leases of written entries no longer; release those of entries that are lost."""
        with self._lock:
            held = [one for one in digests if self._leases.pop(one, None) is not None]
        if lost := [one for one in held if one not in stored]:
            self._server.release(lost)

    def _maintain(self) -> None:
        """Renew leases."""
        with self._lock:
            held = list(self._leases)
        now = time.monotonic()
        if not held:
            self._renewed = now
        elif now - self._renewed >= RENEW_S:
            self._renewed = now
            self._server.renew(held)

    def _release(self) -> None:
        with self._lock:
            held, self._leases = list(self._leases), {}
        if held:
            self._server.release(held)
