"""Plan which prompts of a call compute a shared token prefix and which reuse it.

Many prompts start with the same filler, few-shot examples or system prompt. The
keys and values of a prefix do not depend on later tokens, so they are computed
with one prompt and reused for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ACCELERATOR_STEP", "CPU_STEP", "Ids", "Part", "common_prefix", "plan"]

#: Cost of one more forward batch, in tokens. Reusing fewer tokens than this saves no time.
CPU_STEP: Final = 64
ACCELERATOR_STEP: Final = 1024

#: Token ids of one sequence.
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that can be computed together.

    Attributes:
        indices: Indices of the prompts.
        prefix: Number of tokens that each of them reuses from an earlier prompt.
        is_lead: Whether this is a single prompt whose keys and values later parts reuse.
    """

    indices: tuple[int, ...]
    prefix: int
    is_lead: bool = False


def common_prefix(one: Ids, other: Ids) -> int:
    """Return the length of the longest common prefix of two sequences, in tokens."""
    n = min(len(one), len(other))
    differ = one[:n] != other[:n]
    return int(differ.argmax()) if differ.any() else n


def plan(prompts: Sequence[Ids], stored: Sequence[Ids], step: int) -> list[Part]:
    """Decide which prompts compute a prefix and which reuse it.

    A prompt is a lead if the other prompts can reuse at least two batches' worth of
    tokens from it, beyond what they can already reuse. Leads are chosen longest
    first. A lead can itself reuse a prefix of an earlier lead.

    Args:
        prompts: For each prompt, the token ids that it could reuse: all except
            those whose logits are needed.
        stored: Token ids of the sequences whose keys and values are stored.
        step: Cost of one more batch, in tokens.

    Returns:
        Parts in the order in which they must be computed. Each prompt is in exactly one.
    """
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].tolist())
    neighbours = [common_prefix(prompts[a], prompts[b]) for a, b in pairwise(order)]
    reused = np.array(
        [max((common_prefix(prompts[i], one) for one in stored), default=0) for i in order],
        dtype=np.int64,
    )
    leads: list[int] = []
    for rank in sorted(range(len(order)), key=lambda rank: -len(prompts[order[rank]])):
        common = _common_prefixes(neighbours, rank)
        common[[rank, *leads]] = 0
        if np.maximum(common - reused, 0).sum() >= 2 * step:
            leads.append(rank)
            reused = np.maximum(reused, common)
    followers = [rank for rank in range(len(order)) if rank not in set(leads)]
    waiting = [
        Part(tuple(order[rank] for rank in ranks), prefix)
        for ranks, prefix in _groups(followers, neighbours, reused, step)
    ]
    return [
        *_taken(waiting, prompts, stored),
        *(
            part
            for rank in leads
            for part in (
                Part((order[rank],), int(reused[rank]), is_lead=True),
                *_taken(waiting, prompts, [prompts[order[rank]]]),
            )
        ),
        *waiting,
    ]


def _taken(waiting: list[Part], prompts: Sequence[Ids], stored: Sequence[Ids]) -> list[Part]:
    """Remove and return the parts that can reuse their prefix from one of these sequences.

    They follow these sequences at once, before others take their place in the cache.
    """
    taken = [
        part
        for part in waiting
        if any(common_prefix(prompts[part.indices[0]], one) >= part.prefix > 0 for one in stored)
    ]
    waiting[:] = [part for part in waiting if part not in taken]
    return taken


def _common_prefixes(neighbours: Sequence[int], rank: int) -> Ids:
    """Return how many tokens each sorted prompt shares with the one at `rank`; 0 for itself.

    `neighbours` has the number of tokens that each prompt shares with the next.
    """
    before = np.minimum.accumulate(np.array(neighbours[:rank][::-1], dtype=np.int64))[::-1]
    after = np.minimum.accumulate(np.array(neighbours[rank:], dtype=np.int64))
    return np.concatenate([before, [0], after]).astype(np.int64)


def _groups(
    ranks: Sequence[int], neighbours: Sequence[int], reused: Ids, step: int
) -> list[tuple[list[int], int]]:
    """Group neighbours as long as the lost reuse costs less than another batch.

    Groups that reuse fewer tokens than a batch costs become one group without reuse.
    """
    groups: list[tuple[list[int], int]] = []
    for rank in ranks:
        if groups:
            members, prefix = groups[-1]
            common = min([prefix, int(reused[rank]), *neighbours[members[-1] : rank]])
            lost = sum(int(reused[member]) - common for member in [*members, rank])
            if lost < step:
                groups[-1] = ([*members, rank], common)
                continue
        groups.append(([rank], int(reused[rank])))
    without = [
        rank for members, prefix in groups if len(members) * prefix < step for rank in members
    ]
    reusing = [group for group in groups if len(group[0]) * group[1] >= step]
    return [*([(without, 0)] if without else []), *reusing]
