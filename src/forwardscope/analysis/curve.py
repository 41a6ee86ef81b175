"""The hit rate of a trace at every cache size, computed from one read of the trace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from forwardscope.analysis.optimum import optimal_hits
from forwardscope.analysis.reuse import (
    FloatArray,
    IntArray,
    Lookups,
    lookups_of,
    previous,
    reuse_distances,
)
from forwardscope.trace import TraceEvent

__all__ = ["SHARES", "At", "Curve", "curve_of", "optimum_at", "sizes_to_show"]

#: Shares of the hits of an unbounded cache.
SHARES: Final = (0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class At:
    """Hits of a cache of one size, and the time that they save.

    Attributes:
        size: Cache size in entries.
        hits: Lookups that the cache answers.
        saved_s: Time that the hits save, in seconds. Each hit saves the mean duration of
            a forward pass of its op and view.
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
        saved_s: Time saved by cache size, in seconds, shape (largest + 1,); see `At`.
    """

    lookups: Lookups
    hits: IntArray
    saved_s: FloatArray

    @property
    def total(self) -> int:
        """Number of lookups."""
        return int(self.lookups.questions.size)

    @property
    def largest(self) -> int:
        """Smallest size with as many hits as an unbounded cache."""
        return self.hits.size - 1

    def at(self, size: int) -> At:
        """Return the hits and the time saved at one cache size."""
        place = min(size, self.largest)
        return At(size, int(self.hits[place]), float(self.saved_s[place]))

    def worth(self, share: float) -> int:
        """Return the smallest size that reaches a share of an unbounded cache's hits."""
        wanted = math.ceil(share * int(self.hits[-1]))
        return int(np.searchsorted(self.hits, wanted))


def curve_of(events: Iterable[TraceEvent]) -> Curve:
    """Compute the curve of a trace from its lookups in file order.

    Failed lookups do not count. Each run starts with an empty cache.
    """
    lookups = lookups_of(events)
    distances = reuse_distances(lookups.questions)
    again = distances >= 0
    enough, pass_s = distances[again] + 1, lookups.pass_s[again]
    largest = int(enough.max(initial=0))
    return Curve(
        lookups,
        hits=np.cumsum(np.bincount(enough, minlength=largest + 1)),
        saved_s=np.cumsum(np.bincount(enough, pass_s, minlength=largest + 1)),
    )


def optimum_at(curve: Curve, sizes: Sequence[int]) -> Iterator[At]:
    """Yield the result of an optimal policy at each size; see `optimal_hits`.

    `hits` is the most that any policy reaches. `saved_s` is the time saved by one choice
    of that many hits; another choice may save more.
    """
    before = previous(curve.lookups.questions)
    for size in sizes:
        if size == 0:
            yield At(0, 0, 0.0)
            continue
        hits = optimal_hits(before, size)
        yield At(size, int(hits.sum()), float(curve.lookups.pass_s[hits].sum()))


def sizes_to_show(curve: Curve, most: int = 12) -> list[int]:
    """Return at most `most` sizes, evenly spaced by ratio, with those of `SHARES` included."""
    if curve.largest == 0:
        return []
    worth = {curve.worth(share) for share in SHARES}
    steps = np.geomspace(1, curve.largest, num=max(1, most - len(worth)))
    return sorted(worth.union(int(step) for step in np.rint(steps)))
