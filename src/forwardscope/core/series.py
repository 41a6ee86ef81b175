"""What the ledger counts for one probe, view and op."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import NamedTuple

__all__ = ["Counts", "SeriesKey"]


class SeriesKey(NamedTuple):
    """The probe that was current (None outside any), the view and the op."""

    probe: str | None
    view_id: str
    op: str


@dataclass(slots=True)
class Counts:
    """The counts of one series, or the sum of several.

    Attributes:
        hits: Lookups answered by a value of the cache or of the store.
        coalesced: Lookups answered by a forward pass that was in flight.
        forward_passes: Misses whose forward pass succeeded.
        errors: Misses whose forward pass failed, by exception class.
        scoring_ns: Wall time of the calls in nanoseconds, waiting included.
        forward_ns: The part of it spent in computes.
        disk_hits: Those of `hits` that a store on this machine answered.
        remote_hits: Those of `hits` that a store on a server answered.
        remote_coalesced: Those of `coalesced` that another machine computed and stored there.
        matches: Hits of a store that were computed again and agreed.
        mismatches: Hits of a store that were computed again and did not.
        bypasses: Misses for which no cache was asked.
    """

    hits: int = 0
    coalesced: int = 0
    forward_passes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    scoring_ns: int = 0
    forward_ns: int = 0
    disk_hits: int = 0
    remote_hits: int = 0
    matches: int = 0
    mismatches: int = 0
    bypasses: int = 0
    remote_coalesced: int = 0

    @property
    def memory_hits(self) -> int:
        """Those of `hits` that the cache answered."""
        return self.hits - self.disk_hits - self.remote_hits

    @property
    def store_hits(self) -> int:
        """Lookups that a store answered."""
        return self.disk_hits + self.remote_hits + self.remote_coalesced

    @property
    def demand(self) -> int:
        """Forward passes that an empty store would have needed."""
        return self.forward_passes + self.store_hits

    @property
    def forward_errors(self) -> int:
        """Forward passes that failed, of all classes."""
        return self.errors.total()

    @property
    def misses(self) -> int:
        """Lookups that led a forward pass."""
        return self.forward_passes + self.forward_errors

    @property
    def lookups(self) -> int:
        """All lookups; a coalesced one is counted once, and not as a miss."""
        return self.hits + self.coalesced + self.misses

    @property
    def hit_rate(self) -> float:
        """Share of lookups that paid no forward pass; 0.0 without lookups."""
        return (self.hits + self.coalesced) / self.lookups if self.lookups else 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(operator.add, _values(self), _values(other)))

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(*map(operator.sub, _values(self), _values(earlier)))


_values = operator.attrgetter(*(field.name for field in fields(Counts)))
