"""The summary of a trace: lookups, hits and forward passes by probe, view and op."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple

from forwardscope.core.series import Counts, SeriesKey
from forwardscope.trace import TraceEvent

__all__ = ["Asked", "Line", "Summary", "summarize"]

#: Length of the lists of slowest passes and most repeated prompts.
_TOP: Final = 10


class Asked(NamedTuple):
    """Lookups and forward passes of one prompt, over all probes, views and ops."""

    prompt_hash: str
    lookups: int
    forward_passes: int


@dataclass(frozen=True, slots=True)
class Line:
    """The counts of a whole trace, or of one probe, view or op in it.

    Attributes:
        counts: The ledger's counts; `scoring_ns` is 0, because traces do not record it.
        saved_s: Time that the hits saved, in seconds. Each hit saves the mean duration of
            a forward pass of its op and view, or 0 if the trace has no such pass.
    """

    counts: Counts
    saved_s: float

    @property
    def forward_s(self) -> float:
        """Wall time of the forward passes, failed ones included, in seconds."""
        return self.counts.forward_ns / 1e9


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a trace.

    Attributes:
        series: Counts by probe, view and op, in the order of their first lookups.
        pass_s: Mean duration of a successful forward pass, by view and op, in seconds.
        questions: Number of distinct questions: view, op, prompt and `top_k`.
        slowest: The longest successful forward passes, longest first.
        most_asked: The prompts with the most lookups, in descending order.
    """

    series: Mapping[SeriesKey, Counts]
    pass_s: Mapping[tuple[str, str], float]
    questions: int
    slowest: list[TraceEvent]
    most_asked: list[Asked]

    @property
    def total(self) -> Line:
        """Counts of the whole trace."""
        return self._line(self.series)

    def by_probe(self) -> dict[str | None, Line]:
        """Return the counts of each probe; None is for lookups outside any probe."""
        return self._by(lambda key: key.probe)

    def by_view(self) -> dict[str | None, Line]:
        """Return the counts of each view."""
        return self._by(lambda key: key.view_id)

    def by_op(self) -> dict[str | None, Line]:
        """Return the counts of each op."""
        return self._by(lambda key: key.op)

    def _by(self, group: Callable[[SeriesKey], str | None]) -> dict[str | None, Line]:
        members: dict[str | None, list[SeriesKey]] = defaultdict(list)
        for key in self.series:
            members[group(key)].append(key)
        return {name: self._line(keys) for name, keys in members.items()}

    def _line(self, keys: Iterable[SeriesKey]) -> Line:
        counts, saved_s = Counts(), 0.0
        for key in keys:
            own = self.series[key]
            counts += own
            saved_s += (own.hits + own.coalesced) * self.pass_s.get((key.view_id, key.op), 0.0)
        return Line(counts, saved_s)


class _Kind(NamedTuple):
    """The probe of a lookup, and its question without the prompt."""

    probe: str | None
    view_id: str
    op: str
    top_k: int


@dataclass(slots=True)
class _Cell:
    """Counts of the lookups of one `_Kind`.

    Attributes:
        asked: Lookups by prompt.
        paid: Successful forward passes by prompt.
        coalesced: Lookups answered by a forward pass in flight.
        errors: Failed forward passes, by class of the exception.
        pass_ms: Total duration of the successful forward passes, in milliseconds.
        error_ms: Total duration of the failed ones, in milliseconds.
    """

    asked: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    paid: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    coalesced: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    pass_ms: float = 0.0
    error_ms: float = 0.0

    @property
    def passes(self) -> int:
        return sum(self.paid.values())

    def counts(self) -> Counts:
        """Return the counts; plain hits are the remainder, which keeps the loop short."""
        passes = self.passes
        others = self.coalesced + passes + self.errors.total()
        return Counts(
            hits=sum(self.asked.values()) - others,
            coalesced=self.coalesced,
            forward_passes=passes,
            errors=self.errors,
            forward_ns=round((self.pass_ms + self.error_ms) * 1e6),
        )


def summarize(events: Iterable[TraceEvent]) -> Summary:
    """Summarize any number of records, in any order.

    Memory use grows with the number of distinct questions of each probe, not with the
    number of records.
    """
    cells: dict[tuple[str | None, str, str, int], _Cell] = {}
    slowest: list[tuple[float, int, TraceEvent]] = []
    floor = -1.0
    order = count()
    for event in events:
        kind = (event.probe, event.view_id, event.op, event.top_k)
        cell = cells.get(kind)
        if cell is None:
            cell = cells[kind] = _Cell()
        cell.asked[event.prompt_hash] += 1
        if event.hit:
            if event.result is not None:
                cell.coalesced += 1
        elif event.error is None:
            cell.paid[event.prompt_hash] += 1
            cell.pass_ms += event.wall_ms
            if event.wall_ms > floor:
                heapq.heappush(slowest, (event.wall_ms, -next(order), event))
                if len(slowest) > _TOP:
                    heapq.heappop(slowest)
                    floor = slowest[0][0]
        else:
            cell.errors[event.error] += 1
            cell.error_ms += event.wall_ms
    found = {_Kind(*kind): cell for kind, cell in cells.items()}
    return Summary(
        series=_series(found),
        pass_s=_mean_pass_s(found),
        questions=_distinct(found),
        slowest=[event for *_, event in sorted(slowest, reverse=True)],
        most_asked=_most_asked(found),
    )


def _series(cells: Mapping[_Kind, _Cell]) -> dict[SeriesKey, Counts]:
    series: dict[SeriesKey, Counts] = defaultdict(Counts)
    for kind, cell in cells.items():
        series[SeriesKey(kind.probe, kind.view_id, kind.op)] += cell.counts()
    return dict(series)


def _mean_pass_s(cells: Mapping[_Kind, _Cell]) -> dict[tuple[str, str], float]:
    passes: Counter[tuple[str, str]] = Counter()
    spent_ms: dict[tuple[str, str], float] = defaultdict(float)
    for kind, cell in cells.items():
        passes[kind.view_id, kind.op] += cell.passes
        spent_ms[kind.view_id, kind.op] += cell.pass_ms
    return {key: spent_ms[key] / n / 1e3 for key, n in passes.items() if n}


def _distinct(cells: Mapping[_Kind, _Cell]) -> int:
    """Return the number of distinct questions over all probes."""
    prompts: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for kind, cell in cells.items():
        prompts[kind[1:]].update(cell.asked)
    return sum(map(len, prompts.values()))


def _most_asked(cells: Mapping[_Kind, _Cell]) -> list[Asked]:
    lookups: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for cell in cells.values():
        lookups.update(cell.asked)
        passes.update(cell.paid)
    return [Asked(prompt, n, passes[prompt]) for prompt, n in lookups.most_common(_TOP)]
