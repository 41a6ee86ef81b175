"""Samples of the stores below the caches of backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from forwardscope.core.ledger import Histogram
from forwardscope.telemetry import names
from forwardscope.telemetry.families import add_histogram, add_sample
from forwardscope.telemetry.names import Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["CountedStore", "StoreCounts", "add_stores"]


class StoreCounts(Protocol):
    """The counts of a store, as in `forwardscope.store.base.StoreStats`."""

    @property
    def entries(self) -> int:
        """Entries in the store, of all processes."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes that they take."""
        ...

    @property
    def max_bytes(self) -> int | None:
        """Bound of `bytes`, or None."""
        ...

    @property
    def evictions(self) -> int:
        """Entries removed to make room."""
        ...

    @property
    def corrupt(self) -> int:
        """Entries that were found damaged."""
        ...

    @property
    def unsupported(self) -> int:
        """Values not stored because of their type."""
        ...

    @property
    def dropped(self) -> int:
        """Values lost before they were stored."""
        ...

    @property
    def expired_waits(self) -> int:
        """Values that another machine did not store in time."""
        ...

    @property
    def errors(self) -> Mapping[Any, int]:
        """Failed operations, by operation and class of the error."""
        ...

    @property
    def unavailable(self) -> bool:
        """Whether the store was given up."""
        ...

    @property
    def durations(self) -> Mapping[Any, Histogram]:
        """Seconds of each operation, by operation."""
        ...


class CountedStore(Protocol):
    """What the collector reads from a store."""

    @property
    def name(self) -> str:
        """Value of the label `store`."""
        ...

    @property
    def tier(self) -> str:
        """Tier of its hits, `disk` or `remote`."""
        ...

    def stats(self) -> StoreCounts:
        """Return the counts of now, without waiting for long."""
        ...


def add_stores(
    families: Mapping[Metric, Family], stores: Iterable[tuple[str, CountedStore | None]]
) -> None:
    """Add the samples of stores, each once: a sum over backends must not count one twice.

    Args:
        families: Families by metric; the samples are added to them.
        stores: Names of backends and their stores. A store of several backends has the
            name of the first one.
    """
    first: dict[int, tuple[str, CountedStore]] = {}
    for backend, store in stores:
        if store is not None:
            first.setdefault(id(store), (backend, store))
    for backend, store in first.values():
        _add(families, (backend, store.name), store.stats())


def _add(families: Mapping[Metric, Family], own: tuple[str, str], stats: StoreCounts) -> None:
    values = {
        names.STORE_ENTRIES: stats.entries,
        names.STORE_BYTES: stats.bytes,
        names.STORE_MAX_BYTES: stats.max_bytes,
        names.STORE_EVICTIONS: stats.evictions,
        names.STORE_CORRUPT: stats.corrupt,
        names.STORE_EXPIRED_WAITS: stats.expired_waits,
        names.STORE_UNAVAILABLE: int(stats.unavailable),  # OTLP has no boolean
    }
    for metric, value in values.items():
        if value is not None:
            add_sample(families[metric], metric, own, value)
    for reason, value in (("lost", stats.dropped), ("unsupported", stats.unsupported)):
        dropped = names.STORE_DROPPED
        add_sample(families[dropped], dropped, (*own, reason), value)
    for (operation, error), value in stats.errors.items():
        errors = names.STORE_ERRORS
        add_sample(families[errors], errors, (*own, operation, error), value)
    for operation, seen in stats.durations.items():
        durations = names.STORE_DURATION
        add_histogram(families[durations], durations, (*own, operation), seen)
