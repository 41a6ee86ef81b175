"""The hit rate of a trace at every cache size, from one reading of it."""

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

#: Parts of what an endless cache would answer.
SHARES: Final = (0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class At:
    """What a cache of one size would have done.

    Attributes:
        size: In entries.
        hits: Lookups that it would have answered.
        saved_s: What they would have cost, each the mean duration of a forward pass of
            its op and view, in seconds.
    """

    size: int
    hits: int
    saved_s: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What a least-recently-used cache of each size would have done with a trace.

    Attributes:
        lookups: The trace's lookups that did not fail.
        hits: By size, from 0 to the smallest that answers all that any can, shape
            (largest + 1,).
        saved_s: The same in seconds, as `At` has it.
    """

    lookups: Lookups
    hits: IntArray
    saved_s: FloatArray

    @property
    def total(self) -> int:
        """How many lookups there were."""
        return int(self.lookups.questions.size)

    @property
    def largest(self) -> int:
        """The smallest size that answers all that an endless cache would."""
        return self.hits.size - 1

    def at(self, size: int) -> At:
        """Return what a cache of a size would have done."""
        place = min(size, self.largest)
        return At(size, int(self.hits[place]), float(self.saved_s[place]))

    def worth(self, share: float) -> int:
        """Return the smallest size that gives a share of what an endless cache would."""
        wanted = math.ceil(share * int(self.hits[-1]))
        return int(np.searchsorted(self.hits, wanted))


def curve_of(events: Iterable[TraceEvent]) -> Curve:
    """Work out the curve of a trace; the order of its lookups is the file's.

    Lookups that failed do not count. Each run begins with an empty cache.
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
    """Yield, for each size, what no policy can beat; see `optimal_hits`.

    Its hits are the most that there can be. Its seconds are those of one choice of so
    many hits, and not the most that could be saved.
    """
    before = previous(curve.lookups.questions)
    for size in sizes:
        if size == 0:
            yield At(0, 0, 0.0)
            continue
        hits = optimal_hits(before, size)
        yield At(size, int(hits.sum()), float(curve.lookups.pass_s[hits].sum()))


def sizes_to_show(curve: Curve, most: int = 12) -> list[int]:
    """Return at most so many sizes, evenly spread by ratio; those of `SHARES` among them."""
    if curve.largest == 0:
        return []
    worth = {curve.worth(share) for share in SHARES}
    steps = np.geomspace(1, curve.largest, num=max(1, most - len(worth)))
    return sorted(worth.union(int(step) for step in np.rint(steps)))
