"""Counts of observations by size, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["BATCH_BOUNDS", "DURATION_BOUNDS_S", "Exemplar", "Histogram"]

#: Upper bounds of the buckets for a forward pass's duration, in seconds.
DURATION_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
#: Upper bounds of the buckets for the prompts of a forward batch.
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observation that stands for its bucket.

    Attributes:
        trace_id: The trace in which it was made, 32 hex digits.
        value: What was observed.
        ts: When, in seconds since the epoch.
    """

    trace_id: str
    value: float
    ts: float


class Histogram:
    """Observations counted in buckets, with the latest exemplar of each.

    Not safe under threads: its owner's lock is held around each call.

    Args:
        bounds: Upper bounds of the buckets, ascending; one without bound follows.

    Attributes:
        buckets: Observations in each bucket, not cumulated; the last is the
            one without bound.
        exemplars: The latest exemplar of each bucket, or None.
        total: The sum of all that was observed.
    """

    __slots__ = ("bounds", "buckets", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds: Final = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many were observed."""
        return sum(self.buckets)

    def bucket_of(self, value: float) -> int:
        """Return the index of the bucket that a value belongs to."""
        return bisect_left(self.bounds, value)

    def observe(self, value: float, n: int = 1, exemplar: Exemplar | None = None) -> None:
        """Count one value `n` times; the bound of a bucket belongs to it."""
        index = self.bucket_of(value)
        self.buckets[index] += n
        self.total += value * n
        if exemplar is not None:
            self.exemplars[index] = exemplar

    def buckets_with(self, values: Sequence[int], per_unit: float) -> list[int]:
        """Return what `buckets` would be with some more values.

        Args:
            values: At least one.
            per_unit: How many of theirs are one of the bounds' units.
        """
        buckets, last = self.buckets.copy(), self.bucket_of(max(values) / per_unit)
        if self.bucket_of(min(values) / per_unit) == last:  # as it is of passes that are alike
            buckets[last] += len(values)
        else:
            for value in values:
                buckets[self.bucket_of(value / per_unit)] += 1
        return buckets

    def copy(self) -> Histogram:
        """Return one of the same counts that later observations do not change."""
        other = Histogram(self.bounds)
        other.buckets = self.buckets.copy()
        other.exemplars = self.exemplars.copy()
        other.total = self.total
        return other
