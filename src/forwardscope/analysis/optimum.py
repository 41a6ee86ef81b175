"""The hits of an optimal cache, which knows all later lookups."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from forwardscope.analysis.reuse import NEVER, IntArray

__all__ = ["optimal_hits"]


def optimal_hits(before: IntArray, size: int) -> npt.NDArray[np.bool_]:
    """Return which lookups an optimal policy answers; no policy answers more at this size.

    The policy is MIN (Bélády, 1966) with bypass: a question without a later lookup is not
    stored, and neither is one whose next lookup is later than those of all entries in a
    full cache. An entry occupies the cache from one lookup of its question to the next.
    At most `size` of these intervals may overlap. Dropping the interval that ends last
    whenever there are too many keeps the most of them. The result is optimal by count:
    another choice of as many hits may save more time.

    Args:
        before: Index of the previous lookup of the same question, or `NEVER`, shape (n,).
        size: Cache size in entries, >= 1.

    Returns:
        Which lookups are hits, shape (n,).
    """
    (again,) = np.nonzero(before != NEVER)
    after = np.full(before.size, NEVER, dtype=np.int64)
    after[before[again]] = again
    kept = (before != NEVER).tolist()
    ends: list[int] = []  # index of each entry's next lookup, negated so that the latest pops first
    held = 0
    for place, end in enumerate(after.tolist()):
        held -= kept[place]
        if end == NEVER:
            continue
        heapq.heappush(ends, -end)
        held += 1
        if held > size:
            kept[-heapq.heappop(ends)] = False
            held -= 1
        if len(ends) > 2 * size + 64:  # bounds the heap, which keeps intervals that have ended
            ends = [one for one in ends if -one > place]
            heapq.heapify(ends)
    return np.asarray(kept, dtype=np.bool_)
