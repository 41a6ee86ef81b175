"""Reuse distances: the number of other questions between two lookups of the same one."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forwardscope.trace import TraceEvent

__all__ = ["NEVER", "Lookups", "lookups_of", "previous", "reuse_distances"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: The index of a lookup that does not exist.
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Lookups:
    """The lookups of a trace that did not fail, run after run, each run in file order.

    Attributes:
        questions: Number of each lookup's question, from 0, shape (n,). Runs share no
            questions, because each run starts with an empty cache.
        pass_s: Duration of a forward pass of each lookup's question, in seconds, shape
            (n,): the mean of its own passes in the run; where it has none, the mean over
            its op and view; 0 if the trace has no such pass either.
        hits: Number of these lookups that the recorded cache answered.
    """

    questions: IntArray
    pass_s: FloatArray
    hits: int


def lookups_of(events: Iterable[TraceEvent]) -> Lookups:
    """Collect the lookups of a trace, coalesced ones included.

    Memory use is 32 bytes for each record, plus the distinct questions.
    """
    runs: dict[str | None, int] = {}
    questions: dict[tuple[int, str, str, str, int], int] = {}
    groups: dict[tuple[str, str], int] = {}
    run_of, question_of, group_of = array("q"), array("q"), array("q")
    paid_ms = array("d")  # NaN for a hit
    for event in events:
        if event.error is not None:
            continue
        run = runs.setdefault(event.run_id, len(runs))
        question = (run, event.view_id, event.op, event.prompt_hash, event.top_k)
        run_of.append(run)
        question_of.append(questions.setdefault(question, len(questions)))
        group_of.append(groups.setdefault((event.view_id, event.op), len(groups)))
        paid_ms.append(math.nan if event.hit else event.wall_ms)
    order = np.argsort(_integers(run_of), kind="stable")
    spent_ms = np.frombuffer(paid_ms, dtype=np.float64)
    own, by_kind = (_mean_ms(_integers(of), spent_ms) for of in (question_of, group_of))
    pass_ms = np.where(np.isnan(own), by_kind, own)
    return Lookups(
        questions=_integers(question_of)[order],
        pass_s=np.nan_to_num(pass_ms)[order] / 1e3,
        hits=int(np.isnan(spent_ms).sum()),
    )


def _mean_ms(group_of: IntArray, spent_ms: FloatArray) -> FloatArray:
    """Return the mean duration of the passes of each lookup's group; NaN where it has none."""
    passes = ~np.isnan(spent_ms)
    groups = int(group_of.max(initial=-1)) + 1
    number = np.bincount(group_of[passes], minlength=groups)
    total_ms = np.bincount(group_of[passes], spent_ms[passes], minlength=groups)
    mean_ms = np.full(groups, np.nan)
    np.divide(total_ms, number, out=mean_ms, where=number > 0)
    return mean_ms[group_of]


def previous(questions: IntArray) -> IntArray:
    """Return the index of the previous lookup of the same question, for each lookup.

    Args:
        questions: Numbers of questions, shape (n,).

    Returns:
        Indices, shape (n,); `NEVER` for the first lookup of a question.
    """
    order = np.argsort(questions, kind="stable")
    equal = questions[order[1:]] == questions[order[:-1]]
    indices = np.full(questions.size, NEVER, dtype=np.int64)
    indices[order[1:][equal]] = order[:-1][equal]
    return indices


def reuse_distances(questions: IntArray) -> IntArray:
    """Return the number of other questions since the previous lookup of the same question.

    A least-recently-used cache of C entries answers a lookup if and only if its
    distance is smaller than C (Mattson, Gecsei, Slutz and Traiger, 1970).

    Between a lookup at i and its previous one at p there are i - p - 1 lookups. One of
    them repeats a question of this interval if and only if its own previous lookup is
    after p. The others are distinct questions, and their number is the distance.

    Args:
        questions: Numbers of questions, shape (n,).

    Returns:
        Distances, shape (n,); `NEVER` for the first lookup of a question.
    """
    before = previous(questions)
    distances = np.full(questions.size, NEVER, dtype=np.int64)
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
