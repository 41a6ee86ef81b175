"""The one ledger behind every number that forwardscope shows.

Totals, the result file, the report and the metrics all read it, so they cannot
disagree. It is kept by series of (probe, view id, op) and changed under one lock. Single
lookups are many and short, so they wait for no lock: each is put down with its series,
and whoever holds the lock adds them up before anything is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from forwardscope.core.histogram import BATCH_BOUNDS, DURATION_BOUNDS_S, Exemplar, Histogram
from forwardscope.core.series import Counts, Series, SeriesKey
from forwardscope.core.stats import BackendStats

__all__ = [
    "MAX_SERIES",
    "OTHER",
    "Batch",
    "Books",
    "Ledger",
]

#: Series kept apart; what comes later is folded into one series of `OTHER`.
MAX_SERIES: Final = 4096
#: Ops whose durations are kept apart.
MAX_OPS: Final = 64
OTHER: Final = "_other"


_FOLDED: Final = SeriesKey(OTHER, OTHER, OTHER)


class Batch(NamedTuple):
    """One call of `compute_misses`.

    Attributes:
        size: Prompts in it.
        pass_ns: Wall time of each, an even share of the batch's, in nanoseconds.
        error: Class of the exception where it failed.
        exemplar: Stands for its passes in the histogram of durations.
        tokens: Tokens of its prompts that were computed, and that were taken over.
    """

    size: int
    pass_ns: int = 0
    error: str | None = None
    exemplar: Exemplar | None = None
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Books:
    """All that the ledger knows, as of one moment.

    Attributes:
        series: Counts by series, in the order in which each first counted or
            was expected.
        durations: Seconds of the forward passes that succeeded, by op.
        batch_prompts: Prompts of each call of `compute_misses`.
        max_batch_size: Prompts in the largest of them.
        tokens_computed: Tokens of the prompts of passes that succeeded and told
            them, but for those taken over.
        tokens_reused: Those whose keys and values an earlier prompt had computed.
    """

    series: dict[SeriesKey, Counts]
    durations: dict[str, Histogram]
    batch_prompts: Histogram
    max_batch_size: int
    tokens_computed: int = 0
    tokens_reused: int = 0


class Ledger:
    """Counts of every lookup, by series. Safe under threads.

    Attributes:
        lock: Guards the counts; whoever changes several things at once may hold it.
    """

    def __init__(self) -> None:
        self.lock: Final = threading.RLock()
        self._series: dict[tuple[str | None, str, str], Series] = {}
        self._durations: dict[str, Histogram] = {}
        self._batch_prompts = Histogram(BATCH_BOUNDS)
        self._max_batch_size = 0
        self._tokens_computed = 0
        self._tokens_reused = 0

    def expect(self, keys: Iterable[SeriesKey]) -> None:
        """Begin series at 0, so that whoever reads the books at times sees their first counts."""
        with self.lock:
            for key in keys:
                self._one(key)

    def series(self, probe: str | None, view_id: str, op: str) -> Series:
        """Return a series itself; it stays the same, so the way of a hit looks it up once."""
        with self.lock:
            return self._one((probe, view_id, op))

    def relieve(self, series: Series) -> None:
        """Add up the queues of a series, unless another thread holds the lock just now."""
        lock, had, got = self.lock, _owned(self.lock), False
        try:
            got = lock.acquire(blocking=False)
            if got:
                series.add_up(len(series.hits), len(series.passes) // 2)
        finally:
            # an interrupt may come when the lock is held and `got` does not say so yet
            if got or (not had and _owned(lock)):
                lock.release()

    def hit(self, probe: str | None, view_id: str, op: str, ns: int) -> None:
        """Count one lookup that a stored value answered in `ns` nanoseconds."""
        with self.lock:
            counts = self._one((probe, view_id, op)).counts
            counts.hits += 1
            counts.scoring_ns += ns

    def coalesced(self, probe: str | None, view_id: str, op: str, ns: int) -> None:
        """Count one lookup that waited `ns` nanoseconds for another's pass."""
        with self.lock:
            counts = self._one((probe, view_id, op)).counts
            counts.coalesced += 1
            counts.scoring_ns += ns

    def miss(
        self,
        series: Series,
        ns: int,
        forward_ns: int,
        error: str | None = None,
        exemplar: Exemplar | None = None,
        tokens: tuple[int, int] = (0, 0),
    ) -> None:
        """Count one lookup that led a pass of its own, for whoever holds the lock.

        Args:
            series: What it is counted in.
            ns: Wall time of the call in nanoseconds.
            forward_ns: The part of it spent in the compute.
            error: Class of the exception where the pass failed.
            exemplar: Stands for the pass in the histogram of durations.
            tokens: Tokens of the prompt that were computed, and that were taken over.
        """
        counts, durations = series.counts, series.durations
        seconds = forward_ns / 1e9
        bucket = durations.bucket_of(seconds)
        failed = 0 if error is None else counts.errors.get(error, 0) + 1
        computed, reused = tokens
        # no call from here on, so an interrupt comes before all of it or after
        counts.scoring_ns += ns
        counts.forward_ns += forward_ns
        if error is not None:
            counts.errors[error] = failed
            return
        counts.forward_passes += 1
        durations.buckets[bucket] += 1
        durations.total += seconds
        if exemplar is not None:
            durations.exemplars[bucket] = exemplar
        self._tokens_computed += computed
        self._tokens_reused += reused

    def add(
        self,
        probe: str | None,
        view_id: str,
        op: str,
        counts: Counts,
        batches: Sequence[Batch] = (),
    ) -> None:
        """Count the outcome of one call with several questions, all of it at once.

        Args:
            probe: The current probe, None outside any.
            view_id: The view that was asked.
            op: What was asked.
            counts: What the call adds to its series.
            batches: Each call of `compute_misses` that it made.
        """
        with self.lock:
            series = self._one((probe, view_id, op))
            own, durations = series.counts, series.durations
            errors = own.errors + counts.errors
            seen, prompts = durations.copy(), self._batch_prompts.copy()
            largest, computed, reused = self._max_batch_size, 0, 0
            for batch in batches:
                prompts.observe(batch.size)
                largest = max(largest, batch.size)
                if batch.error is None:
                    seen.observe(batch.pass_ns / 1e9, batch.size, batch.exemplar)
                    computed, reused = computed + batch.tokens[0], reused + batch.tokens[1]
            # no call from here on, so an interrupt comes before all of it or after
            own.hits += counts.hits
            own.coalesced += counts.coalesced
            own.forward_passes += counts.forward_passes
            own.errors = errors
            own.scoring_ns += counts.scoring_ns
            own.forward_ns += counts.forward_ns
            durations.buckets = seen.buckets
            durations.exemplars = seen.exemplars
            durations.total = seen.total
            self._batch_prompts = prompts
            self._max_batch_size = largest
            self._tokens_computed += computed
            self._tokens_reused += reused

    def snapshot(self) -> dict[SeriesKey, Counts]:
        """Return a copy of all series, as of one moment."""
        with self.lock:
            return self._copy()

    def books(self) -> Books:
        """Return a copy of everything, as of one moment."""
        with self.lock:
            return Books(
                series=self._copy(),
                durations={op: seen.copy() for op, seen in self._durations.items()},
                batch_prompts=self._batch_prompts.copy(),
                max_batch_size=self._max_batch_size,
                tokens_computed=self._tokens_computed,
                tokens_reused=self._tokens_reused,
            )

    def totals(self) -> BackendStats:
        """Return the sum over all series as a plain value, as of one moment."""
        with self.lock:
            self._add_up()
            every = [series.counts for series in self._series.values()]
            return BackendStats(
                cache_hits=sum(c.hits + c.coalesced for c in every),
                cache_misses=sum(c.misses for c in every),
                forward_passes=sum(c.forward_passes for c in every),
                scoring_wall_s=sum(c.scoring_ns for c in every) / 1e9,
                batches_sent=self._batch_prompts.count,
                batched_prompts=int(self._batch_prompts.total),
                max_batch_size=self._max_batch_size,
            )

    def tokens(self) -> tuple[int, int]:
        """Return how many prompt tokens were computed, and how many taken over; see `Books`."""
        with self.lock:
            return self._tokens_computed, self._tokens_reused

    def live_stats(self) -> BackendStats:
        """Return one object that shows the totals of the moment it is read."""
        return _LiveStats(self)

    def _copy(self) -> dict[SeriesKey, Counts]:
        self._add_up()
        return {
            SeriesKey(*key): replace(one.counts, errors=one.counts.errors.copy())
            for key, one in self._series.items()
        }

    def _add_up(self) -> None:
        """Count all that is put down by now, as of one moment; the lock is held."""
        every = list(self._series.values())
        # one step for Python, so nothing is taken without what its thread had put down before it
        lengths = iter(list(map(len, [q for one in every for q in (one.hits, one.passes)])))
        for series, hits, passes in zip(every, lengths, lengths, strict=True):
            series.add_up(hits, passes // 2)

    def _duration(self, op: str) -> Histogram:
        seen = self._durations.get(op)
        if seen is None:
            if len(self._durations) >= MAX_OPS:
                op = OTHER
            seen = self._durations.setdefault(op, Histogram(DURATION_BOUNDS_S))
        return seen

    def _one(self, key: tuple[str | None, str, str]) -> Series:
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                key = _FOLDED
            series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(self._duration(key[2]))
        return series


def _owned(lock: threading.RLock) -> bool:
    """Whether this thread holds a lock; `threading.Condition` asks it the same."""
    return bool(lock._is_owned())  # type: ignore[attr-defined]


class _LiveStats(BackendStats):
    """Answers each public name, methods included, from one snapshot of the ledger."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        object.__setattr__(self, "_ledger", ledger)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        return getattr(self._ledger.totals(), name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is counted by the backend and cannot be set")

    def __repr__(self) -> str:
        return repr(self._ledger.totals())

    def __reduce__(self) -> Any:
        return self._ledger.totals().__reduce__()
