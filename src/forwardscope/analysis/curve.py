"""The hit rate of a trace at every cache size, from one read of the trace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from forwardscope.analysis.optimum import optimal_hits
from forwardscope.analysis.reuse import (
    NEVER,
    FloatArray,
    IntArray,
    Lookups,
    lookups_of,
    previous,
    reuse_distances,
)
from forwardscope.trace import TraceEvent

__all__ = ["SHARES", "Curve", "CurvePoint", "curve_of", "optimum_at", "representative_sizes"]

#: Shares of an unbounded cache's hits, for which the smallest cache size is reported.
SHARES: Final = (0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Hits of a cache of one size, and the time that they save.

    Attributes:
        size: Cache size in entries.
        hits: Number of hits.
        saved_s: Time that the hits save, in seconds; see `Lookups.pass_s`.
    """

    size: int
    hits: int
    saved_s: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Hits and time saved of a least-recently-used cache of each size, for one trace.

    Attributes:
        lookups: The trace's lookups that did not fail.
        hits: Hits by cache size, from 0 to the smallest size with the most hits, shape
            (largest + 1,).
        saved_s: Time saved by cache size, in seconds, shape (largest + 1,); see `CurvePoint`.
    """

    lookups: Lookups
    hits: IntArray
    saved_s: FloatArray

    @property
    def total(self) -> int:
        """Number of lookups."""
        return int(self.lookups.key_ids.size)

    @property
    def largest(self) -> int:
        """Smallest size with as many hits as an unbounded cache."""
        return self.hits.size - 1

    def at(self, size: int) -> CurvePoint:
        """Return the hits and the time saved at one cache size."""
        index = min(size, self.largest)
        return CurvePoint(size, int(self.hits[index]), float(self.saved_s[index]))

    def smallest_size(self, share: float) -> int:
        """Return the smallest size that reaches a share of an unbounded cache's hits."""
        hits = math.ceil(share * int(self.hits[-1]))
        return int(np.searchsorted(self.hits, hits))


def curve_of(events: Iterable[TraceEvent]) -> Curve:
    """Compute the curve of a trace.

    Lookups are taken in file order. Failed ones do not count. Each run starts with an
    empty cache.
    """
    lookups = lookups_of(events)
    distances = reuse_distances(lookups.key_ids)
    repeated = distances != NEVER
    needed, pass_s = distances[repeated] + 1, lookups.pass_s[repeated]
    largest = int(needed.max(initial=0))
    return Curve(
        lookups,
        hits=np.cumsum(np.bincount(needed, minlength=largest + 1)),
        saved_s=np.cumsum(np.bincount(needed, pass_s, minlength=largest + 1)),
    )


def optimum_at(curve: Curve, sizes: Sequence[int]) -> Iterator[CurvePoint]:
    """Yield the hits of an optimal policy at each size; see `optimal_hits`.

    `saved_s` is the time saved by one choice of that many hits; another may save more.
    """
    before = previous(curve.lookups.key_ids)
    for size in sizes:
        if size == 0:
            yield CurvePoint(0, 0, 0.0)
            continue
        hits = optimal_hits(before, size)
        yield CurvePoint(size, int(hits.sum()), float(curve.lookups.pass_s[hits].sum()))


def representative_sizes(curve: Curve, most: int = 12) -> list[int]:
    """Return at most `most` cache sizes, evenly spaced by ratio, including those of `SHARES`."""
    if curve.largest == 0:
        return []
    required = {curve.smallest_size(share) for share in SHARES}
    steps = np.geomspace(1, curve.largest, num=max(1, most - len(required)))
    return sorted(required.union(int(step) for step in np.rint(steps)))
