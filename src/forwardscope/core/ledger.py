"""The one ledger behind every number that forwardscope shows.

Totals, the result file, the report and the metrics all read it, so they cannot
disagree. It counts by series of (probe, view id, op).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from forwardscope.core.forks import reset_in_children
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.core.stats import BackendStats

__all__ = [
    "BATCH_BOUNDS",
    "DURATION_BOUNDS_S",
    "MAX_ERROR_CLASSES",
    "MAX_SERIES",
    "OPERATION_BOUNDS_S",
    "OTHER",
    "Exemplar",
    "Histogram",
    "Ledger",
    "LedgerSnapshot",
]

#: Series that are counted apart; later ones are folded into one series of `OTHER`.
MAX_SERIES: Final = 4096
#: Ops whose durations are counted apart.
MAX_OPS: Final = 64
#: Exception classes that are counted apart, over all series; later ones count as `OTHER`.
MAX_ERROR_CLASSES: Final = 32
OTHER: Final = "_other"
#: Upper bounds of the buckets for a forward pass's duration, in seconds.
DURATION_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
#: Upper bounds of the buckets for the prompts of a forward batch.
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
#: Upper bounds of the buckets for the duration of an operation of a store, in seconds.
OPERATION_BOUNDS_S: Final = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


class Exemplar(NamedTuple):
    """One observation that stands for its bucket.

    Attributes:
        trace_id: The trace in which it was made, 32 hex digits.
        value: What was observed.
        ts: When, in seconds since the epoch.
    """

    trace_id: str
    value: float
    ts: float


class Histogram:
    """Observations counted in buckets, with the latest exemplar of each.

    Not safe under threads: the ledger's lock is held around each call.

    Args:
        bounds: Upper bounds of the buckets, ascending; one without bound follows.

    Attributes:
        buckets: Observations in each bucket, not cumulated; the last is the
            one without bound.
        exemplars: The latest exemplar of each bucket, or None.
        total: The sum of all observations.
    """

    __slots__ = ("bounds", "buckets", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds: Final = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self.buckets)

    def observe(self, value: float, exemplar: Exemplar | None = None) -> None:
        """Count one value; the bound of a bucket belongs to it."""
        index = bisect_left(self.bounds, value)
        self.buckets[index] += 1
        self.total += value
        if exemplar is not None:
            self.exemplars[index] = exemplar

    def copy(self) -> Histogram:
        """Return one of the same counts that later observations do not change."""
        other = Histogram(self.bounds)
        other.buckets = self.buckets.copy()
        other.exemplars = self.exemplars.copy()
        other.total = self.total
        return other


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """A copy of all that the ledger knows, as of one moment.

    Attributes:
        series: Counts by series, in the order in which each was first counted
            or expected.
        durations: Seconds of the forward passes that succeeded, by op.
        batch_prompts: Number of prompts in each call of `compute_misses`.
        max_batch_size: Prompts in the largest of them.
        tokens_computed: Tokens that forward passes which succeeded computed, where
            they reported them.
        tokens_reused: Tokens of their prompts that an earlier prompt's forward
            pass had computed.
    """

    series: dict[SeriesKey, Counts]
    durations: dict[str, Histogram]
    batch_prompts: Histogram
    max_batch_size: int
    tokens_computed: int = 0
    tokens_reused: int = 0

    def total(self) -> Counts:
        """Return the sum over all series."""
        return sum(self.series.values(), Counts())

    def totals(self) -> BackendStats:
        """Return the sum over all series as a plain value."""
        total = self.total()
        return BackendStats(
            cache_hits=total.hits + total.coalesced,
            cache_misses=total.misses,
            forward_passes=total.forward_passes,
            scoring_wall_s=total.scoring_ns / 1e9,
            batches_sent=self.batch_prompts.count,
            batched_prompts=int(self.batch_prompts.total),
            max_batch_size=self.max_batch_size,
        )


class Ledger:
    """Counts of every lookup, by series.

    Safe under threads: one lock, held for each change and each copy. It is
    reentrant, so a signal handler may read what its own thread is counting.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str | None, str, str], Counts] = {}
        self._of_probe: dict[str | None, list[tuple[str | None, str, str]]] = {}
        self._durations: dict[str, Histogram] = {}
        self._error_classes = {KeyboardInterrupt.__name__}  # interrupts are always counted apart
        self._batch_prompts = Histogram(BATCH_BOUNDS)
        self._max_batch_size = 0
        self._tokens_computed = 0
        self._tokens_reused = 0
        self.after_fork()
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds."""
        self._lock = threading.RLock()

    def expect(self, keys: Iterable[SeriesKey]) -> None:
        """Begin series at 0, so that a scraper sees their first counts as an increase."""
        with self._lock:
            for key in keys:
                self._begin(key)

    def add(
        self,
        series: tuple[str | None, str, str],
        outcomes: Iterable[Any],
        scoring_ns: int,
        batches: Iterable[int] = (),
        ts: float = 0.0,
    ) -> None:
        """Count the lookups of one call of `cached` or `cached_batch`.

        Args:
            series: The current probe (None outside any), the view and the op.
            outcomes: Of the lookups, each a `recorder.Outcome`.
            scoring_ns: Wall time of the call in nanoseconds.
            batches: Number of prompts in each call of `compute_misses`.
            ts: The time of exemplars, in seconds since the epoch.
        """
        with self._lock:
            counts = self._series.get(series) or self._begin(series)
            counts.scoring_ns += scoring_ns
            for outcome in outcomes:
                if outcome.result == "hit":
                    counts.hits += 1
                    if outcome.tier is not None:
                        _add_store_hit(counts, outcome)
                elif outcome.result == "coalesced":
                    counts.coalesced += 1
                    counts.remote_coalesced += outcome.tier is not None
                else:
                    self._add_miss(counts, series[2], outcome, ts)
            for size in batches:
                self._batch_prompts.observe(size)
                self._max_batch_size = max(self._max_batch_size, size)

    def snapshot(self) -> LedgerSnapshot:
        """Return a copy of everything, as of one moment."""
        with self._lock:
            return LedgerSnapshot(
                series={
                    SeriesKey(*key): replace(counts, errors=counts.errors.copy())
                    for key, counts in list(self._series.items())
                },
                durations={op: seen.copy() for op, seen in self._durations.items()},
                batch_prompts=self._batch_prompts.copy(),
                max_batch_size=self._max_batch_size,
                tokens_computed=self._tokens_computed,
                tokens_reused=self._tokens_reused,
            )

    def series_of(self, probe: str | None) -> dict[SeriesKey, Counts]:
        """Return a copy of the series of one probe; None means outside any probe."""
        with self._lock:
            return {
                SeriesKey(*key): replace(self._series[key], errors=self._series[key].errors.copy())
                for key in self._of_probe.get(probe, ())
            }

    def totals(self) -> BackendStats:
        """Return the sum over all series as a plain value, as of one moment."""
        return self.snapshot().totals()

    # The lock is held in all of these.

    def _add_miss(self, counts: Counts, op: str, outcome: Any, ts: float) -> None:
        counts.forward_ns += outcome.wall_ns
        counts.bypasses += outcome.bypassed
        if outcome.error is not None:
            counts.errors[self._error_class(outcome.error)] += 1
            return
        counts.forward_passes += 1
        seconds, exemplar = outcome.wall_ns / 1e9, None
        if outcome.trace_id is not None:
            exemplar = Exemplar(outcome.trace_id, seconds, ts)
        self._durations_of(op).observe(seconds, exemplar)
        if outcome.tokens is not None:
            reused = min(outcome.reused or 0, outcome.tokens)
            self._tokens_computed += outcome.tokens - reused
            self._tokens_reused += reused

    def _begin(self, key: tuple[str | None, str, str]) -> Counts:
        if key not in self._series and len(self._series) >= MAX_SERIES:
            key = (OTHER, OTHER, OTHER)
        self._durations_of(key[2])  # the histogram begins with the series
        if key not in self._series:
            self._series[key] = Counts()
            self._of_probe.setdefault(key[0], []).append(key)
        return self._series[key]

    def _error_class(self, name: str) -> str:
        if name not in self._error_classes:
            if len(self._error_classes) >= MAX_ERROR_CLASSES:
                return OTHER
            self._error_classes.add(name)
        return name

    def _durations_of(self, op: str) -> Histogram:
        seen = self._durations.get(op)
        if seen is None:
            if len(self._durations) >= MAX_OPS:
                op = OTHER
            seen = self._durations.setdefault(op, Histogram(DURATION_BOUNDS_S))
        return seen


def _add_store_hit(counts: Counts, outcome: Any) -> None:
    if outcome.tier == "disk":
        counts.disk_hits += 1
    else:
        counts.remote_hits += 1
    if outcome.verified is not None:
        counts.matches += outcome.verified
        counts.mismatches += not outcome.verified
