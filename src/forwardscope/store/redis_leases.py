"""Leases of entries on a server: one machine computes what others wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from forwardscope.store.base import Lease, StoredEntry

__all__ = ["LEASE_MS", "RENEW_S", "Claims", "RedisLease"]

#: A lease that is not renewed ends after so long; a living holder renews it.
LEASE_MS: Final = 10_000
RENEW_S: Final = 3.0
#: The longest wait for the entries of others.
WAIT_S: Final = 60.0

_FIRST_POLL_S: Final = 0.01
_LAST_POLL_S: Final = 0.2


class Claims(NamedTuple):
    """What became of entries that a lease was requested for.

    Attributes:
        found: Those that are stored.
        owned: Those that are the caller's now: leased, or stored with a value that cannot be
            decoded. What is in neither, others compute.
    """

    found: Mapping[bytes, StoredEntry]
    owned: frozenset[bytes]


class Claiming(Protocol):
    """The part of a store that leases use."""

    def claim(self, digests: Sequence[bytes], held: set[bytes]) -> Claims | None:
        """Claim entries; None if the server failed.

        Args:
            digests: The entries.
            held: Those whose leases are renewed are added to it before they are, so that an
                interrupted caller can give them up.
        """
        ...

    def give_up(self, digests: Sequence[bytes]) -> None:
        """Delete the leases of entries that are not queued to be stored."""
        ...

    def count_expired(self, number: int) -> None:
        """Count entries that were waited for in vain."""
        ...


class RedisLease(Lease):
    """Leases on a server; see `Lease`.

    Args:
        store: The store.
        digests: What to claim.
        wait_s: The longest wait.
    """

    def __init__(self, store: Claiming, digests: Sequence[bytes], wait_s: float = WAIT_S) -> None:
        super().__init__(digests)
        self._store = store
        self._wait_s = wait_s
        self._held: set[bytes] = set()
        self.others = self.owned
        self.owned = frozenset()
        try:
            self.found = self._claim()
        except BaseException:  # an interrupt, as a store raises nothing
            self.release()
            raise

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> dict[bytes, StoredEntry]:
        """Wait for the entries of others; return those that came.

        It ends as soon as the caller owns one, as a machine that waits must not hold what
        it does not compute: then `owned` has it, and `others` what is still to come.
        """
        found: dict[bytes, StoredEntry] = {}
        self.owned = frozenset()
        due, pause = time.monotonic() + self._wait_s, _FIRST_POLL_S
        while self.others and not self.owned and not stopped():
            if (left := due - time.monotonic()) <= 0:
                self._store.count_expired(len(self.others))
                self.owned, self.others = self.others, frozenset()
                break
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LAST_POLL_S)
            found |= self._claim()
        self._wait_s = max(0.0, due - time.monotonic())
        return found

    def release(self) -> None:
        """Give up what is not stored and not queued."""
        if self._held:
            self._store.give_up(list(self._held))
            self._held.clear()

    def _claim(self) -> dict[bytes, StoredEntry]:
        """Claim what others have; where the server fails, all of it is the caller's."""
        claims = self._store.claim(list(self.others), self._held)
        if claims is None:
            self.owned, self.others = self.others, frozenset()
            return {}
        self.owned = claims.owned
        self.others -= claims.owned | claims.found.keys()
        return dict(claims.found)
