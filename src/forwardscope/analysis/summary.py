"""The summary of a trace: lookups, hits and forward passes by probe, view and op.

A distinct lookup is a combination of view, op, prompt and `top_k`, which is also the key of the
forward cache. Lookups with the same combination are equal.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple

from forwardscope.core.series import Counts, SeriesKey
from forwardscope.trace import TraceEvent

__all__ = ["PromptCounts", "Slowest", "Summary", "Totals", "summarize"]

#: Length of the lists of slowest passes and most repeated prompts.
_TOP: Final = 10


class PromptCounts(NamedTuple):
    """Lookups and forward passes of one prompt, over all probes, views and ops."""

    prompt_hash: str
    lookups: int
    forward_passes: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of a whole trace, or of one probe, view or op in it.

    Attributes:
        counts: Counts as in a live run. `scoring_ns` (time in calls, with waiting) is 0: a
            trace lacks it.
        saved_s: Time that the hits saved, those of a store included, in seconds. Each hit
            saves the mean duration of the forward passes of equal lookups; without any in
            the trace, the mean over its op and view, or over its op. None if the trace has
            no forward pass of the op of a hit.
    """

    counts: Counts
    saved_s: float | None

    @property
    def forward_s(self) -> float:
        """Wall time of the forward passes, failed ones included, in seconds."""
        return self.counts.forward_ns / 1e9


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a trace.

    Attributes:
        series: Counts by probe, view and op, in the order of their first lookups.
        saved_s: Time that the hits saved, by probe, view and op; see `Totals`.
        distinct_lookups: Number of distinct lookups.
        slowest: The longest successful forward passes, longest first.
        slowest_numbers: The number of each of them among the misses of the trace, from 1.
        most_repeated: The prompts with the most lookups, in descending order.
    """

    series: Mapping[SeriesKey, Counts]
    saved_s: Mapping[SeriesKey, float | None]
    distinct_lookups: int
    slowest: list[TraceEvent]
    slowest_numbers: list[int]
    most_repeated: list[PromptCounts]

    @property
    def total(self) -> Totals:
        """Counts of the whole trace."""
        return self._totals(self.series)

    def by_probe(self) -> dict[str | None, Totals]:
        """Return the counts of each probe; None is for lookups outside any probe."""
        return self._by(lambda key: key.probe)

    def by_view(self) -> dict[str | None, Totals]:
        """Return the counts of each view."""
        return self._by(lambda key: key.view_id)

    def by_op(self) -> dict[str | None, Totals]:
        """Return the counts of each op."""
        return self._by(lambda key: key.op)

    def _by(self, group: Callable[[SeriesKey], str | None]) -> dict[str | None, Totals]:
        members: dict[str | None, list[SeriesKey]] = defaultdict(list)
        for key in self.series:
            members[group(key)].append(key)
        return {name: self._totals(keys) for name, keys in members.items()}

    def _totals(self, keys: Iterable[SeriesKey]) -> Totals:
        counts, saved = Counts(), []
        for key in keys:
            counts += self.series[key]
            saved.append(self.saved_s[key])
        known = [one for one in saved if one is not None]
        return Totals(counts, sum(known) if len(known) == len(saved) else None)


class Slowest:
    """The longest of the successful forward passes added so far.

    Attributes:
        threshold_ms: A pass that is not longer is not among them.
    """

    def __init__(self) -> None:
        self.threshold_ms = -1.0
        self._heap: list[tuple[float, int, int, TraceEvent]] = []
        self._order = count()

    def add(self, event: TraceEvent, number: int = 0) -> None:
        """Add a forward pass that is longer than `threshold_ms`, and its number as a miss."""
        heapq.heappush(self._heap, (event.wall_ms, -next(self._order), number, event))
        if len(self._heap) > _TOP:
            heapq.heappop(self._heap)
            self.threshold_ms = self._heap[0][0]

    def events(self) -> list[TraceEvent]:
        """Return the passes, longest first."""
        return [event for *_, event in sorted(self._heap, reverse=True)]

    def numbers(self) -> list[int]:
        """Return the numbers of the passes, in the same order."""
        return [number for *_, number, _ in sorted(self._heap, reverse=True)]


class _Group(NamedTuple):
    """The probe of a lookup, and its key without the prompt."""

    probe: str | None
    view_id: str
    op: str
    top_k: int


@dataclass(slots=True)
class _GroupCounts:
    """Counts of the lookups of one `_Group`.

    Attributes:
        lookups: Lookups by prompt.
        passes: Successful forward passes by prompt.
        pass_ms: Total duration of the successful forward passes by prompt, in milliseconds.
        failed: Failed forward passes by prompt.
        coalesced: Lookups answered by a forward pass in flight.
        remote_coalesced: Those of them that another machine computed.
        stored: Lookups answered by a store, by tier.
        verified: Those of them that were computed again, by whether they agreed.
        errors: Failed forward passes, by class of the exception.
        error_ms: Total duration of the failed ones, in milliseconds.
    """

    lookups: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    passes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    pass_ms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    failed: Counter[str] = field(default_factory=Counter)
    coalesced: int = 0
    remote_coalesced: int = 0
    stored: Counter[str] = field(default_factory=Counter)
    verified: Counter[bool] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    error_ms: float = 0.0

    def total(self) -> Counts:
        """Return the counts.

        Plain hits are the lookups that were neither coalesced, computed nor failed.
        """
        passes = sum(self.passes.values())
        others = self.coalesced + passes + self.errors.total()
        return Counts(
            hits=sum(self.lookups.values()) - others,
            coalesced=self.coalesced,
            remote_coalesced=self.remote_coalesced,
            disk_hits=self.stored["disk"],
            remote_hits=self.stored["remote"],
            matches=self.verified[True],
            mismatches=self.verified[False],
            forward_passes=passes,
            errors=self.errors,
            forward_ns=round((sum(self.pass_ms.values()) + self.error_ms) * 1e6),
        )


def summarize(events: Iterable[TraceEvent]) -> Summary:
    """Summarize any number of records, in any order.

    Memory use grows with the number of distinct lookups of each probe, not with the number
    of records.
    """
    groups: dict[tuple[str | None, str, str, int], _GroupCounts] = {}
    slowest = Slowest()
    misses = 0
    for event in events:
        misses += not event.hit
        group = (event.probe, event.view_id, event.op, event.top_k)
        counts = groups.get(group)
        if counts is None:
            counts = groups[group] = _GroupCounts()
        counts.lookups[event.prompt_hash] += 1
        if event.hit:
            if event.result is not None:  # set only for coalesced hits
                counts.coalesced += 1
                counts.remote_coalesced += event.tier is not None
            elif event.tier is not None:
                counts.stored[event.tier] += 1
                if event.verified is not None:
                    counts.verified[event.verified] += 1
        elif event.error is None:
            counts.passes[event.prompt_hash] += 1
            counts.pass_ms[event.prompt_hash] += event.wall_ms
            if event.wall_ms > slowest.threshold_ms:
                slowest.add(event, misses)
        else:
            counts.failed[event.prompt_hash] += 1
            counts.errors[event.error] += 1
            counts.error_ms += event.wall_ms
    by_group = {_Group(*group): counts for group, counts in groups.items()}
    return Summary(
        series=_series(by_group),
        saved_s=_saved_s(by_group),
        distinct_lookups=_count_distinct_lookups(by_group),
        slowest=slowest.events(),
        slowest_numbers=slowest.numbers(),
        most_repeated=_most_repeated(by_group),
    )


def _series(groups: Mapping[_Group, _GroupCounts]) -> dict[SeriesKey, Counts]:
    series: dict[SeriesKey, Counts] = defaultdict(Counts)
    for group, counts in groups.items():
        series[SeriesKey(group.probe, group.view_id, group.op)] += counts.total()
    return dict(series)


@dataclass(slots=True)
class _Mean:
    """Mean duration of forward passes in milliseconds."""

    n: int = 0
    total_ms: float = 0.0

    def add(self, n: int, total_ms: float) -> None:
        self.n += n
        self.total_ms += total_ms

    @property
    def ms(self) -> float:
        return self.total_ms / self.n


def _saved_s(groups: Mapping[_Group, _GroupCounts]) -> dict[SeriesKey, float | None]:
    """Return the time that the hits of each series saved, in seconds; see `Totals`."""
    by_key: dict[tuple[str, str, int, str], _Mean] = defaultdict(_Mean)
    by_view: dict[tuple[str, str], _Mean] = defaultdict(_Mean)
    by_op: dict[str, _Mean] = defaultdict(_Mean)
    for group, counts in groups.items():
        for prompt, n in counts.passes.items():
            total_ms = counts.pass_ms[prompt]
            by_key[(*group[1:], prompt)].add(n, total_ms)
            by_view[group.view_id, group.op].add(n, total_ms)
            by_op[group.op].add(n, total_ms)
    saved_s: dict[SeriesKey, float | None] = {}
    for group, counts in groups.items():
        series = SeriesKey(group.probe, group.view_id, group.op)
        fallback = by_view.get((group.view_id, group.op)) or by_op.get(group.op)
        saved = saved_s.get(series, 0.0)
        for prompt, n in counts.lookups.items():
            hits = n - counts.passes.get(prompt, 0) - counts.failed[prompt]
            mean = by_key.get((*group[1:], prompt), fallback)
            if hits and saved is not None:
                saved = None if mean is None else saved + hits * mean.ms / 1e3
        saved_s[series] = saved
    return saved_s


def _count_distinct_lookups(groups: Mapping[_Group, _GroupCounts]) -> int:
    """Return the number of distinct lookups over all probes."""
    prompts: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for group, counts in groups.items():
        prompts[group[1:]].update(counts.lookups)
    return sum(map(len, prompts.values()))


def _most_repeated(groups: Mapping[_Group, _GroupCounts]) -> list[PromptCounts]:
    lookups: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for counts in groups.values():
        lookups.update(counts.lookups)
        passes.update(counts.passes)
    return [PromptCounts(prompt, n, passes[prompt]) for prompt, n in lookups.most_common(_TOP)]
