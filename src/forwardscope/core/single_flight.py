"""Single flight: threads that miss one key pay one forward pass between them.

A flight is one forward call and the keys that it computes. Its lock says whether
it is in flight: the leader holds it from before the keys are registered until the
values are stored, or the call has failed (a single lookup also until it is recorded).
`with lock` releases it however the block ends, so an interrupt at any moment leaves no
waiter stuck. A registration that an interrupt left behind has a free lock, and the next
lookup of its key replaces it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from itertools import islice
from typing import Any, Final, TypeVar

from forwardscope.core.cache import Entry, ForwardCache
from forwardscope.core.forks import reset_in_children

__all__ = ["Flight", "SingleFlight"]

T = TypeVar("T")


class Flight:
    """One forward call: what it computes, for its leader and its waiters.

    Args:
        generation: The cache's generation when the flight begins.
        leader: The id of the leader's thread; 0 if that thread makes no other lookup.

    Attributes:
        lock: Held by the leader while the flight lasts.
        leader: The id of the leader's thread.
        generation: The cache's generation when the flight began.
        keys: What it computes, in order.
        origins: The origin of each value; see `Entry`.
        entries: The entries of those keys that are computed.
        start_ns: The clock when compute began; 0 before.
        end_ns: The clock when compute ended.
        waiters: Lookups that have begun to wait for it, for any of its keys; counted
            under the cache's lock.
        tokens: What the compute reported of its prompts' tokens, or None.
        reused: What it reported of the tokens that an earlier prompt had computed.
        error: Class of the exception where it failed.
        call: Ids of the call's span, or None; see `Entry`.
        bypass: Whether its values are for this one call alone, and are not kept.
        answer: What a store answered for its keys; opaque to the core.
        later: Further calls of its leader, which share its entries.
    """

    keys: Sequence[Any] = ()
    origins: Sequence[Any] = ()
    start_ns = end_ns = waiters = 0
    tokens: Iterable[Any] | None = None
    reused: Iterable[Any] | None = None
    error: str | None = None
    call: Any = None
    bypass = False
    answer: Any = None
    later: Sequence[Flight] = ()
    _counts: list[tuple[int | None, int | None]] | None = None

    def __init__(self, generation: int, leader: int = 0) -> None:
        self.lock: Final = threading.Lock()
        self.leader: Final = leader
        self.generation: Final = generation
        self.entries: dict[Any, Entry] = {}

    @staticmethod
    def current() -> Flight | None:
        """Return the innermost flight, of any backend, whose compute this context is inside of."""
        return _current.get()

    def run(self, compute: Callable[[], T]) -> T:
        """Call compute, with this flight as the current one.

        It runs in a copy of the caller's context (contextvars): what is set inside,
        OpenTelemetry's current span included, ends with it, also at an interrupt.
        """
        return copy_context().run(self._run, compute)

    def wait(self, key: Hashable) -> Entry | None:
        """Wait until the flight is over; return the key's entry, or None where it failed."""
        with self.lock:
            return self.entries.get(key)

    def token_counts(self) -> list[tuple[int | None, int | None]]:
        """Return (tokens, reused tokens) of each prompt; None where none was reported.

        To be called when the call has ended; what was reported is read once.
        """
        if self._counts is None:
            size = len(self.keys)
            tokens = _counts(self.tokens, size)
            reused = _counts(None if self.tokens is None else self.reused, size)
            self._counts = list(zip(tokens, reused, strict=True))
        return self._counts

    def _run(self, compute: Callable[[], T]) -> T:
        _current.set(self)
        return compute()


_current: ContextVar[Flight | None] = ContextVar("current_flight", default=None)


def _counts(reported: Iterable[Any] | None, size: int) -> list[int | None]:
    """Return one count a prompt. Counts that cannot be read are none: no lookup fails for them."""
    counts: list[int | None] = []
    if reported is not None:
        with suppress(Exception):  # it may be an array or a tensor of any kind
            counts = [max(0, int(count)) for count in islice(reported, size)]
    return [*counts, *[None] * (size - len(counts))]


class SingleFlight:
    """The flights of one cache, by key. Safe under threads.

    It shares the cache's lock, so that a key leaves flight in the step that stores
    its value. A forked child begins without flights: it computes what its parent
    had in flight.

        flight = Flight(cache.generation)
        with flight.lock:  # in flight until this block ends, however it ends
            found = flights.claim(key, flight)
            if found is None:
                ...  # compute, then flights.land(...), or flights.release(...) at a failure

    Args:
        cache: Where computed values are stored.
    """

    def __init__(self, cache: ForwardCache) -> None:
        self._cache = cache
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Begin without flights."""
        self._flights: dict[Hashable, Flight] = {}

    def claim(self, key: Hashable, flight: Flight) -> Entry | Flight | None:
        """Register a flight for a key, unless the key is stored or another computes it.

        Args:
            key: Any hashable.
            flight: The caller holds its lock.

        Returns:
            The key's entry; the flight to wait for, once the caller's own is over;
            or None, where the caller computes the key. A thread that leads the
            key's flight (in a signal handler or a finaliser) or is inside a compute
            never waits, since that could deadlock: it computes the key itself,
            unregistered. A flight from before a `clear` is not joined.
        """
        with self._cache.lock:
            entry = self._cache.find(key)
            if entry is not None:
                return entry
            other = self._flights.get(key)
            if other is None or other.generation < flight.generation or not other.lock.locked():
                self._flights[key] = flight
                return None
            inside = other.leader == threading.get_ident() or _current.get() is not None
            if inside or other.generation > flight.generation:
                return None
            other.waiters += 1
            return other

    def waiters(self, key: Hashable) -> int:
        """Return how many lookups have begun to wait for the flight of a key, or 0 without one."""
        with self._cache.lock:
            flight = self._flights.get(key)
            return flight.waiters if flight is not None and flight.lock.locked() else 0

    def land(self, key: Hashable, flight: Flight, value: Any, origin: Any, call: Any) -> Entry:
        """Keep a value and take its key out of flight, in one step.

        Origin and call are those of its `Entry`. After a `clear` since the flight began,
        the value is not kept.
        """
        cache = self._cache
        entry = flight.entries[key] = cache.new_entry(key, value, origin, call)
        removed: object = None
        with cache.lock:
            if flight.generation == cache.generation:
                removed = cache.store(key, entry)
            if self._flights.get(key) is flight:
                del self._flights[key]
        del removed  # after the lock: a finaliser is foreign code
        return entry

    def release(self, flight: Flight, keys: Iterable[Hashable]) -> None:
        """Unregister a flight that failed from those keys that are still in flight."""
        with self._cache.lock:
            for key in keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]
