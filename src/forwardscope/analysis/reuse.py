"""Reuse distances: the number of other distinct lookups between two equal ones."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from forwardscope.trace import TraceEvent

__all__ = [
    "NEVER",
    "FloatArray",
    "IntArray",
    "Lookups",
    "lookups_of",
    "previous",
    "reuse_distances",
]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Previous index and reuse distance of a lookup without an equal one before it.
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Lookups:
    """The lookups of a trace that had a place in a cache, run after run, each in file order.

    Those that failed or bypassed the cache are left out.

    Attributes:
        key_ids: Id of each lookup's key (view, op, prompt and top_k), from 0, shape (n,).
            Runs share no ids, because each run starts with an empty cache.
        pass_s: Duration of each lookup's forward pass, in seconds, shape (n,): the mean
            over the passes of its key in the run; without any, the mean over its op and
            view, or over its op; 0 if the trace has no such pass either.
        hits: Number of these lookups that were hits in the recorded run.
    """

    key_ids: IntArray
    pass_s: FloatArray
    hits: int


def lookups_of(events: Iterable[TraceEvent]) -> Lookups:
    """Collect the lookups of a trace, coalesced ones included.

    Memory use is 32 bytes for each record, plus about 200 for each distinct lookup.
    """
    runs: dict[str | None, int] = {}
    prompts: dict[tuple[int, str, str, int], dict[str, int]] = {}
    views: dict[tuple[str, str], int] = {}
    keys = count()
    run_ids, key_ids, view_ids = array("q"), array("q"), array("q")
    durations_ms = array("d")  # NaN for a hit
    for event in events:
        if event.error is not None or event.bypassed:
            continue
        run = runs.setdefault(event.run_id, len(runs))
        group = prompts.setdefault((run, event.view_id, event.op, event.top_k), {})
        key_id = group.get(event.prompt_hash)
        if key_id is None:
            key_id = group[event.prompt_hash] = next(keys)
        run_ids.append(run)
        key_ids.append(key_id)
        view_ids.append(views.setdefault((event.view_id, event.op), len(views)))
        durations_ms.append(math.nan if event.hit else event.wall_ms)
    order = np.argsort(_integers(run_ids), kind="stable")
    wall_ms = np.frombuffer(durations_ms, dtype=np.float64)
    ops = {op: number for number, (_, op) in enumerate(views)}
    op_of_view = np.array([ops[op] for _, op in views], dtype=np.int64)
    pass_ms = np.full(wall_ms.size, np.nan)
    for ids in (_integers(key_ids), _integers(view_ids), op_of_view[_integers(view_ids)]):
        pass_ms = np.where(np.isnan(pass_ms), _mean_ms(ids, wall_ms), pass_ms)
    return Lookups(
        key_ids=_integers(key_ids)[order],
        pass_s=np.nan_to_num(pass_ms)[order] / 1e3,
        hits=int(np.isnan(wall_ms).sum()),
    )


def _mean_ms(group_ids: IntArray, wall_ms: FloatArray) -> FloatArray:
    """Return the mean duration of the passes of each lookup's group; NaN without any."""
    passes = ~np.isnan(wall_ms)
    groups = int(group_ids.max(initial=-1)) + 1
    number = np.bincount(group_ids[passes], minlength=groups)
    total_ms = np.bincount(group_ids[passes], wall_ms[passes], minlength=groups)
    mean_ms = np.full(groups, np.nan)
    np.divide(total_ms, number, out=mean_ms, where=number > 0)
    return mean_ms[group_ids]


def previous(key_ids: IntArray) -> IntArray:
    """Return the index of the previous equal lookup, for each lookup.

    Args:
        key_ids: Ids of the lookups' keys, shape (n,).

    Returns:
        Indices, shape (n,); `NEVER` for the first lookup of a key.
    """
    order = np.argsort(key_ids, kind="stable")
    equal = key_ids[order[1:]] == key_ids[order[:-1]]
    indices = np.full(key_ids.size, NEVER, dtype=np.int64)
    indices[order[1:][equal]] = order[:-1][equal]
    return indices


def reuse_distances(key_ids: IntArray) -> IntArray:
    """Return the number of other distinct lookups since the previous equal lookup.

    A lookup is a hit in a least-recently-used cache of C entries if and only if its
    distance is smaller than C (Mattson, Gecsei, Slutz and Traiger, 1970).

    Between a lookup at i and its previous equal one at p there are i - p - 1 lookups.
    One of them repeats another of them if and only if its own previous equal lookup is
    after p. The number of the remaining ones is the distance.

    Args:
        key_ids: Ids of the lookups' keys, shape (n,).

    Returns:
        Distances, shape (n,); `NEVER` for the first lookup of a key.
    """
    before = previous(key_ids)
    distances = np.full(key_ids.size, NEVER, dtype=np.int64)
    (repeated,) = np.nonzero(before != NEVER)
    ranks = np.empty(repeated.size, dtype=np.int64)
    ranks[np.argsort(before[repeated])] = np.arange(repeated.size)
    distances[repeated] = repeated - before[repeated] - 1 - _larger_before(ranks)
    return distances


def _larger_before(ranks: IntArray) -> IntArray:
    """Count, for each number of a permutation of 0 … n - 1, the larger ones before it.

    Uses a wavelet tree, built from the highest bit down. At each level, the numbers that
    agree in all higher bits form a group and keep their original order within it. A
    number whose bit is 0 adds the count of numbers before it in its group whose bit is 1.
    Because every number below n occurs, the higher bits of a number are the index at
    which its group starts.
    """
    larger = np.zeros(ranks.size, dtype=np.int64)
    ordered = ranks  # in the order of this level; `origins` has the original indices
    origins = np.arange(ranks.size)
    for bit in reversed(range(int(ranks.size - 1).bit_length() if ranks.size else 0)):
        ones = (ordered >> bit) & 1
        ones_before = np.concatenate(([0], np.cumsum(ones)))
        starts = (ordered >> (bit + 1)) << (bit + 1)
        ones_in_group = ones_before[:-1] - ones_before[starts]
        zero = ones == 0
        larger[origins[zero]] += ones_in_group[zero]
        within = np.where(zero, np.arange(ranks.size) - starts - ones_in_group, ones_in_group)
        places = ((ordered >> bit) << bit) + within
        moved, moved_origins = np.empty_like(ordered), np.empty_like(origins)
        moved[places], moved_origins[places] = ordered, origins
        ordered, origins = moved, moved_origins
    return larger


def _integers(values: array[int]) -> IntArray:
    return np.frombuffer(values, dtype=np.int64)
