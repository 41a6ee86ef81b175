"""What a trace says in sum: who asked what, what was answered from the cache, what was paid."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from forwardscope.core.ledger import Counts, SeriesKey
from forwardscope.trace import TraceEvent

__all__ = ["Asked", "Line", "Summary", "summarize"]

#: How many passes and prompts are named.
_TOP: Final = 10


class Asked(NamedTuple):
    """How often one prompt was asked, over all probes, views and ops."""

    prompt_hash: str
    lookups: int
    forward_passes: int


@dataclass(frozen=True, slots=True)
class Line:
    """The counts of a whole trace, or of one probe, view or op in it.

    Attributes:
        counts: As the ledger has them; `scoring_ns` is not known to a trace and stays 0.
        saved_s: What its hits would have cost, each the mean duration of a forward pass
            of its op and view, in seconds. Hits of an op and view of which the trace has
            no pass add nothing.
    """

    counts: Counts
    saved_s: float

    @property
    def forward_s(self) -> float:
        """Wall time of its forward passes, failed ones included, in seconds."""
        return self.counts.forward_ns / 1e9


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace in sum.

    Attributes:
        series: Counts by probe, view and op, in the order in which each was first asked.
        pass_s: Mean duration of a forward pass that succeeded, by view and op, in seconds.
        questions: Distinct ones: of a view, an op, a prompt and a `top_k`.
        slowest: The longest forward passes that succeeded, longest first.
        most_asked: The prompts asked most often, most often first.
    """

    series: Mapping[SeriesKey, Counts]
    pass_s: Mapping[tuple[str, str], float]
    questions: int
    slowest: list[TraceEvent]
    most_asked: list[Asked]

    @property
    def total(self) -> Line:
        """The whole trace."""
        return self._line(self.series)

    def by_probe(self) -> dict[str | None, Line]:
        """Return the counts of each probe; None is outside any."""
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


class _Question(NamedTuple):
    probe: str | None
    view_id: str
    op: str
    prompt_hash: str
    top_k: int


@dataclass(slots=True)
class _Cell:
    """What became of the lookups that asked one question for one probe."""

    hits: int = 0
    coalesced: int = 0
    passes: int = 0
    pass_ms: float = 0.0
    error_ms: float = 0.0
    errors: list[str] = field(default_factory=list)


def summarize(events: Iterable[TraceEvent]) -> Summary:
    """Sum up records, of which there may be any number, in any order.

    What is held grows with the number of distinct questions of each probe and
    of passes that failed, not with that of records.
    """
    cells: dict[tuple[str | None, str, str, str, int], _Cell] = {}
    slowest: list[tuple[float, int, TraceEvent]] = []
    floor = -1.0
    for serial, event in enumerate(events):
        key = (event.probe, event.view_id, event.op, event.prompt_hash, event.top_k)
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = _Cell()
        if event.hit:
            if event.result is None:
                cell.hits += 1
            else:
                cell.coalesced += 1
        elif event.error is None:
            cell.passes += 1
            cell.pass_ms += event.wall_ms
            if event.wall_ms > floor:
                heapq.heappush(slowest, (event.wall_ms, -serial, event))
                if len(slowest) > _TOP:
                    heapq.heappop(slowest)
                    floor = slowest[0][0]
        else:
            cell.errors.append(event.error)
            cell.error_ms += event.wall_ms
    asked = {_Question(*key): cell for key, cell in cells.items()}
    return Summary(
        series=_series(asked),
        pass_s=_mean_pass_s(asked),
        questions=len({question[1:] for question in asked}),
        slowest=[event for *_, event in sorted(slowest, reverse=True)],
        most_asked=_most_asked(asked),
    )


def _series(asked: Mapping[_Question, _Cell]) -> dict[SeriesKey, Counts]:
    series: dict[SeriesKey, Counts] = defaultdict(Counts)
    for question, cell in asked.items():
        counts = series[SeriesKey(question.probe, question.view_id, question.op)]
        counts.hits += cell.hits
        counts.coalesced += cell.coalesced
        counts.forward_passes += cell.passes
        counts.errors.update(cell.errors)
        counts.forward_ns += round((cell.pass_ms + cell.error_ms) * 1e6)
    return dict(series)


def _mean_pass_s(asked: Mapping[_Question, _Cell]) -> dict[tuple[str, str], float]:
    passes: Counter[tuple[str, str]] = Counter()
    spent_ms: dict[tuple[str, str], float] = defaultdict(float)
    for question, cell in asked.items():
        passes[question.view_id, question.op] += cell.passes
        spent_ms[question.view_id, question.op] += cell.pass_ms
    return {key: spent_ms[key] / n / 1e3 for key, n in passes.items() if n}


def _most_asked(asked: Mapping[_Question, _Cell]) -> list[Asked]:
    lookups: Counter[str] = Counter()
    passes: Counter[str] = Counter()
    for question, cell in asked.items():
        prompt = question.prompt_hash
        lookups[prompt] += cell.hits + cell.coalesced + cell.passes + len(cell.errors)
        passes[prompt] += cell.passes
    return [Asked(prompt, n, passes[prompt]) for prompt, n in lookups.most_common(_TOP)]
