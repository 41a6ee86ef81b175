"""The hits of an optimal cache policy, which knows all later lookups."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from forwardscope.analysis.reuse import NEVER, IntArray

__all__ = ["optimal_hits"]


def optimal_hits(before: IntArray, size: int) -> npt.NDArray[np.bool_]:
    """Return which lookups are hits with an optimal policy; no policy has more hits.

    The policy is MIN (Bélády, 1966) with bypass: a value without a later lookup is not
    stored, and neither is one whose next lookup is later than those of all entries in a
    full cache. An entry occupies the cache from one lookup to the next equal one. At most
    `size` of these intervals may overlap. Whenever more do, the one that ends last is
    removed; this removes the fewest intervals. The number of hits is optimal; the time
    saved may not be, because another choice of as many hits may save more.

    Args:
        before: Index of the previous equal lookup, or `NEVER`, shape (n,).
        size: Cache size in entries, >= 1.

    Returns:
        Which lookups are hits, shape (n,).
    """
    (again,) = np.nonzero(before != NEVER)
    after = np.full(before.size, NEVER, dtype=np.int64)
    after[before[again]] = again
    hits = (before != NEVER).tolist()
    ends: list[int] = []  # a heap of next lookups, negated so that the latest pops first
    occupied = 0
    for index, end in enumerate(after.tolist()):
        occupied -= hits[index]
        if end == NEVER:
            continue
        heapq.heappush(ends, -end)
        occupied += 1
        if occupied > size:
            hits[-heapq.heappop(ends)] = False
            occupied -= 1
        if len(ends) > 2 * size + 64:  # remove intervals that have ended from the heap
            ends = [end for end in ends if -end > index]
            heapq.heapify(ends)
    return np.asarray(hits, dtype=np.bool_)
