"""Outcomes of the lookups of a batch, in the order of its prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from forwardscope.core.cache import Entry
from forwardscope.core.keys import LookupKey
from forwardscope.core.single_flight import Flight
from forwardscope.recorder import Outcome, misses_of

__all__ = ["misses_of_batch", "outcomes_of_batch"]


def misses_of_batch(flights: Sequence[Flight]) -> dict[LookupKey, Outcome]:
    """Return the outcomes of a batch's forward calls, by key."""
    return {miss.key: miss for flight in flights for miss in misses_of(flight, batch=True)}


def outcomes_of_batch(
    keys: Sequence[LookupKey],
    entries: Mapping[LookupKey, Entry],
    later: dict[LookupKey, Outcome],
    start_ns: int,
    answered_ns: int | None,
    share_ns: int,
    probes: Sequence[str] | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of each lookup of a batch, in order; also after a failure.

    A repeated prompt is a hit where the cache had the first, and else coalesced. A lookup
    that was still waiting when the call failed has none.

    Args:
        keys: The keys of the batch.
        entries: The entries of those that were answered.
        later: The outcomes of those that the cache did not have at first.
        start_ns: Start of the batch.
        answered_ns: Until when the lookups that did not wait follow one another, evenly from
            the start; None if each is as long as `share_ns`.
        share_ns: Time of a lookup of what the cache had at first.
        probes: The probe of each lookup, where they are of several.
    """
    slot = share_ns if answered_ns is None else (answered_ns - start_ns) // len(keys)
    yielded: set[LookupKey] = set()
    for index, key in enumerate(keys):
        began, first, entry = start_ns + index * slot, later.get(key), entries.get(key)
        probe = None if probes is None else probes[index]
        from_store = first is not None and first.tier is not None
        found = first is not None and first.result == "hit" and not from_store
        if first is not None and (found or key not in yielded):
            yielded.add(key)
            if first.result == "miss" or (from_store and first.result == "hit"):
                first = replace(first, start_ns=began, end_ns=began + slot)
            yield first if probe is None else replace(first, probe=probe)
        elif entry is not None:
            result: Literal["hit", "coalesced"] = "hit" if first is None else "coalesced"
            times = began, began + slot, share_ns
            yield Outcome(key, entry.origin, result, *times, entry.call, probe=probe)
