"""Leases of what a forward call computes, where other machines use the same store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from forwardscope.core.keys import LookupKey
from forwardscope.core.single_flight import Flight
from forwardscope.store.base import Lease, StoredEntry
from forwardscope.store.tier import Answer, StoreTier

__all__ = ["LeasedKeys"]


class LeasedKeys:
    """The lookup keys of a lease. Until `claim`, all of them are the caller's.

    Args:
        tier: The store.
        answer: The result of its search for them.
        keys: Lookup keys that it does not have.
    """

    def __init__(self, tier: StoreTier, answer: Answer, keys: Sequence[LookupKey]) -> None:
        self._tier = tier
        self._keys = {answer.digests[key]: key for key in keys}
        self._lease = Lease(list(self._keys))

    def claim(self) -> None:
        """Lease the keys; an interrupt leaves nothing that `release` does not give up.

        A thread that is inside a compute never waits, since that could deadlock: it
        computes all of them.
        """
        if Flight.current() is None:
            self._lease = self._tier.lease(list(self._keys))

    @property
    def owned(self) -> list[LookupKey]:
        """Keys that this process computes now, in their order."""
        return [key for digest, key in self._keys.items() if digest in self._lease.owned]

    @property
    def waits(self) -> bool:
        """Whether others compute some of them."""
        return bool(self._lease.others)

    def found(self) -> dict[LookupKey, StoredEntry]:
        """Return the entries that were stored before they were leased."""
        return self._by_key(self._lease.found)

    def wait(self, stopped: Callable[[], bool]) -> dict[LookupKey, StoredEntry]:
        """Wait for others, as `Lease.wait` does; return the entries that came."""
        return self._by_key(self._lease.wait(stopped))

    def release(self) -> None:
        """Give up what is not saved."""
        self._lease.release()

    def _by_key(self, entries: Mapping[bytes, StoredEntry]) -> dict[LookupKey, StoredEntry]:
        return {self._keys[digest]: entry for digest, entry in entries.items()}
