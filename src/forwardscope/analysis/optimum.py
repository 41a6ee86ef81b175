"""What the best of all caches would have answered, had it known what would be asked."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from forwardscope.analysis.reuse import NEVER, IntArray

__all__ = ["optimal_hits"]


def optimal_hits(before: IntArray, size: int) -> npt.NDArray[np.bool_]:
    """Say which lookups the best policy answers; no cache of that size answers more of them.

    This is MIN (Bélády, 1966) with the choice not to admit: what is asked again
    later than all that is kept, or never, is passed by. An entry is held from one
    lookup of its question to the next; of these intervals at most `size` may
    overlap, and dropping the one that ends last whenever there are too many keeps
    the most of them. It is optimal by count: another choice of as many hits may
    save more time.

    Args:
        before: Place of the last lookup of the same question, or `NEVER`, shape (n,).
        size: Entries of the cache, 1 at least.

    Returns:
        Which lookups are hits, shape (n,).
    """
    (again,) = np.nonzero(before != NEVER)
    after = np.full(before.size, NEVER, dtype=np.int64)
    after[before[again]] = again
    kept = (before != NEVER).tolist()
    ends: list[int] = []  # when what is held is asked again, negative: the last of them first
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
        if len(ends) > 2 * size + 64:  # what was asked meanwhile stays in the heap until now
            ends = [one for one in ends if -one > place]
            heapq.heapify(ends)
    return np.asarray(kept, dtype=np.bool_)
