"""The calls of `cached` and `cached_batch` that the records of a trace show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from forwardscope.trace import TraceEvent

__all__ = ["ForwardCall", "Interval", "RecordedCall", "recorded_calls"]


class Interval(NamedTuple):
    """Start and end of a span, in nanoseconds since the epoch."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class ForwardCall:
    """A forward call, with the misses that it computed, in the order of the file."""

    misses: list[TraceEvent]
    times: Interval


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call of `cached` or `cached_batch`.

    It ends where its records say, and its parts follow one another without a gap: the
    hits, the forward calls, and the coalesced lookups, which waited for a call. A forward
    call lasts as long as the shares of its misses. A miss of a batch has no length and is
    at the start of its forward call.

    Attributes:
        is_batch: Whether it is one of `cached_batch`.
        times: Its own times.
        hits: Its hits, with their times.
        forwards: Its forward calls.
        coalesced: Its coalesced lookups, with their times.
    """

    is_batch: bool
    times: Interval
    hits: list[tuple[TraceEvent, Interval]]
    forwards: list[ForwardCall]
    coalesced: list[tuple[TraceEvent, Interval]]

    @property
    def records(self) -> Iterator[TraceEvent]:
        """Its records; the hits come first, and the coalesced lookups last."""
        yield from (one for one, _ in self.hits)
        for call in self.forwards:
            yield from call.misses
        yield from (one for one, _ in self.coalesced)


def recorded_calls(events: Iterable[TraceEvent]) -> Iterator[RecordedCall]:
    """Yield the calls of a trace, in the order of the file.

    The records of a batch are one append with one `ts`, so they follow one another and
    agree in it, and in run, probe, parent, view, op and top_k. A miss of a single
    lookup is the one record without `batch`. A batch of one hit has the record of a
    single lookup, and is taken for one.
    """
    for (*_, can_be_batch), group in groupby(events, _call_key):
        records = list(group)
        if can_be_batch:
            yield _call(records, is_batch=len(records) > 1 or records[0].batch is not None)
        else:
            yield from (_call([one], is_batch=False) for one in records)


def _call_key(event: TraceEvent) -> tuple[Any, ...]:
    can_be_batch = event.hit or event.batch is not None
    where = event.run_id, event.probe, event.parent_id
    return (event.ts, *where, event.view_id, event.op, event.top_k, can_be_batch)


def _call(records: list[TraceEvent], *, is_batch: bool) -> RecordedCall:
    hits = [one for one in records if one.hit and one.result is None]
    coalesced = [one for one in records if one.hit and one.result is not None]
    forwards: dict[tuple[Any, ...], list[TraceEvent]] = {}
    for one in records:
        if not one.hit:
            forwards.setdefault(_forward_key(one), []).append(one)
    end_ns = round(records[0].ts * 1e9)
    start_ns = end_ns - _duration_ns(records)
    steps = [*([one] for one in hits), *forwards.values(), *([one] for one in coalesced)]
    times = _successive(start_ns, steps)
    return RecordedCall(
        is_batch,
        Interval(start_ns, end_ns),
        [(one, next(times)) for one in hits],
        [ForwardCall(misses, next(times)) for misses in forwards.values()],
        [(one, next(times)) for one in coalesced],
    )


def _forward_key(event: TraceEvent) -> tuple[Any, ...]:
    """Return what the misses of one forward call have in common within a batch."""
    return event.pass_span_id, event.batch, event.wall_ms, event.error


def _successive(start_ns: int, steps: Iterable[list[TraceEvent]]) -> Iterator[Interval]:
    for step in steps:
        end_ns = start_ns + _duration_ns(step)
        yield Interval(start_ns, end_ns)
        start_ns = end_ns


def _duration_ns(records: Iterable[TraceEvent]) -> int:
    return sum(round(one.wall_ms * 1e6) for one in records)
