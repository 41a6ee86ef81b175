"""Which prompts of a call take over the keys and values of a token prefix that another computed.

Filler, few-shot examples and system prompts come back word for word. Their keys
and values depend on nothing that follows, so one prompt can compute them for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["ACCELERATOR_STEP", "CPU_STEP", "Ids", "Part", "plan", "shared"]

#: What one more forward batch costs, in tokens: less than this is not worth it.
CPU_STEP: Final = 64
ACCELERATOR_STEP: Final = 1024

#: Token ids of one sequence.
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that can be computed together.

    Attributes:
        places: Which prompts.
        prefix: How many tokens all of them take over from one that was computed before.
        leads: Whether it is a single prompt whose keys and values are kept for later parts.
    """

    places: tuple[int, ...]
    prefix: int
    leads: bool = False


def shared(one: Ids, other: Ids) -> int:
    """Return how many tokens two sequences begin with alike."""
    n = min(len(one), len(other))
    differ = one[:n] != other[:n]
    return int(differ.argmax()) if differ.any() else n


def plan(prompts: Sequence[Ids], known: Sequence[Ids], step: int) -> list[Part]:
    """Decide who computes which prefix, and who takes it over.

    A prompt leads where what the others can take over from it, beyond what
    they could have had, is worth two more batches. Leads are chosen the
    longest first, and may themselves take over from earlier ones.

    Args:
        prompts: Of each prompt, the token ids that it could take over: all but
            those whose logits are needed.
        known: Token ids of sequences that are kept already.
        step: What one more batch costs, in tokens.

    Returns:
        Parts in the order in which they must be computed. Each prompt is in exactly one.
    """
    order = sorted(range(len(prompts)), key=lambda place: prompts[place].tolist())
    alike = [shared(prompts[a], prompts[b]) for a, b in pairwise(order)]
    reused = np.array(
        [max((shared(prompts[place], one) for one in known), default=0) for place in order],
        dtype=np.int64,
    )
    leads: list[int] = []
    for rank in sorted(range(len(order)), key=lambda rank: -len(prompts[order[rank]])):
        common = _common(alike, rank)
        common[[rank, *leads]] = 0
        if np.maximum(common - reused, 0).sum() >= 2 * step:
            leads.append(rank)
            reused = np.maximum(reused, common)
    parts = [Part((order[rank],), int(reused[rank]), leads=True) for rank in leads]
    followers = [rank for rank in range(len(order)) if rank not in set(leads)]
    for ranks, prefix in _groups(followers, alike, reused, step):
        parts.append(Part(tuple(order[rank] for rank in ranks), prefix))
    return parts


def _common(alike: Sequence[int], rank: int) -> Ids:
    """Return what each sorted prompt shares with the one at `rank`, given what neighbours share."""
    before = np.minimum.accumulate(np.array(alike[:rank][::-1], dtype=np.int64))[::-1]
    after = np.minimum.accumulate(np.array(alike[rank:], dtype=np.int64))
    return np.concatenate([before, [0], after]).astype(np.int64)


def _groups(
    ranks: Sequence[int], alike: Sequence[int], reused: Ids, step: int
) -> list[tuple[list[int], int]]:
    """Put neighbours together while that costs less than a batch of their own.

    What takes over too little to be worth a batch takes over nothing, with the others of its kind.
    """
    groups: list[tuple[list[int], int]] = []
    for rank in ranks:
        if groups:
            members, prefix = groups[-1]
            common = min([prefix, int(reused[rank]), *alike[members[-1] : rank]])
            lost = sum(int(reused[member]) - common for member in [*members, rank])
            if lost < step:
                groups[-1] = ([*members, rank], common)
                continue
        groups.append(([rank], int(reused[rank])))
    whole = [rank for members, prefix in groups if len(members) * prefix < step for rank in members]
    worth = [group for group in groups if len(group[0]) * group[1] >= step]
    return [*([(whole, 0)] if whole else []), *worth]
