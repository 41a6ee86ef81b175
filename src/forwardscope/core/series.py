"""One series of the ledger: what is counted of one probe, view and op."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from forwardscope.core.histogram import Histogram

__all__ = ["QUEUED", "Counts", "Series", "SeriesKey"]

#: Hits of a series, or passes, that are put down before someone adds them up.
QUEUED: Final = 256


class SeriesKey(NamedTuple):
    """Who asked (None outside any probe), which view, and what."""

    probe: str | None
    view_id: str
    op: str


@dataclass(slots=True)
class Counts:
    """What was counted in one series, or in a sum of several.

    Attributes:
        hits: Lookups answered by a stored value.
        coalesced: Lookups answered by a pass that was already under way.
        forward_passes: Lookups that led a pass which succeeded.
        errors: Lookups that led a pass which failed, by exception class.
        scoring_ns: Wall time of the calls in nanoseconds, waiting included.
        forward_ns: The part of it spent in computes.
    """

    hits: int = 0
    coalesced: int = 0
    forward_passes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    scoring_ns: int = 0
    forward_ns: int = 0

    @property
    def forward_errors(self) -> int:
        """Passes that failed, of all classes."""
        return self.errors.total()

    @property
    def misses(self) -> int:
        """Lookups that led a pass."""
        return self.forward_passes + self.forward_errors

    @property
    def lookups(self) -> int:
        """All lookups; a coalesced one is neither counted twice nor as a miss."""
        return self.hits + self.coalesced + self.misses

    @property
    def hit_rate(self) -> float:
        """Share of lookups that paid no pass; 0.0 when nothing was asked."""
        return (self.hits + self.coalesced) / self.lookups if self.lookups else 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.coalesced + other.coalesced,
            self.forward_passes + other.forward_passes,
            self.errors + other.errors,
            self.scoring_ns + other.scoring_ns,
            self.forward_ns + other.forward_ns,
        )

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(
            self.hits - earlier.hits,
            self.coalesced - earlier.coalesced,
            self.forward_passes - earlier.forward_passes,
            self.errors - earlier.errors,
            self.scoring_ns - earlier.scoring_ns,
            self.forward_ns - earlier.forward_ns,
        )


class Series:
    """One series while it is counted.

    What is put down in its two queues is not in the counts yet. Any thread may append to them,
    which is one step in Python; whoever brings one to a multiple of `QUEUED` lookups calls
    `Ledger.relieve`.

    Args:
        durations: Of the passes of its op.

    Attributes:
        counts: To be changed by whoever holds the ledger's lock.
        durations: The same, likewise.
        hits: Wall time of each hit, in nanoseconds.
        passes: Two numbers for each miss of a single pass that succeeded: its wall time, and
            the part of it spent in the compute, in nanoseconds.
    """

    __slots__ = ("counts", "durations", "hits", "passes")

    def __init__(self, durations: Histogram) -> None:
        self.counts: Final = Counts()
        self.durations: Final = durations
        self.hits: Final[list[int]] = []
        self.passes: Final[list[int]] = []

    def add_up(self, hits: int, passes: int) -> None:
        """Count the first ones of both queues; the lock is held."""
        if hits:
            self._add_hits(self.hits, hits)
        if passes:
            self._add_passes(self.passes, passes)

    # In both, an interrupt comes before all of the last steps or after them: Python looks for
    # one at a call and at a loop's end alone.

    def _add_hits(self, queue: list[int], n: int) -> None:
        counts, spent = self.counts, sum(queue[:n])
        counts.hits += n
        counts.scoring_ns += spent
        del queue[:n]

    def _add_passes(self, queue: list[int], n: int) -> None:
        counts, durations, taken = self.counts, self.durations, queue[: 2 * n]
        spent, computed = sum(taken[::2]), taken[1::2]
        forward_ns = sum(computed)
        buckets = durations.buckets_with(computed, 1e9)
        counts.forward_passes += n
        counts.scoring_ns += spent
        counts.forward_ns += forward_ns
        durations.buckets = buckets
        durations.total += forward_ns / 1e9
        del queue[: 2 * n]
