"""What a run asked and paid: the ledger's counts since the run began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from forwardscope.core.cache import DisabledCache
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.core.stats import BackendStats
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.result import CacheUse, PromptTokens, Reconciliation, SeriesResult, Tally
from forwardscope.telemetry import names
from forwardscope.telemetry.maker import Outcome

__all__ = ["RunCounters"]

_FLUSH_S: Final = 1.0
_INTERRUPT: Final = KeyboardInterrupt.__name__


class RunCounters:
    """Reads a backend's counters as the difference to when this object was made.

    Args:
        instrumentation: Of the backend; may have been used before.
    """

    def __init__(self, instrumentation: BackendInstrumentation) -> None:
        self._inst = instrumentation
        self._series = instrumentation.ledger.snapshot()
        self._stats = instrumentation.ledger.totals()
        self._tokens = instrumentation.ledger.tokens()
        self._traced = instrumentation.trace.enabled
        self._records = instrumentation.trace.records
        self._write_errors = instrumentation.trace.write_errors
        self._evictions = instrumentation.cache.evictions
        instrumentation.spans.flush(_FLUSH_S)  # what was asked before is not the run's
        self._spans = instrumentation.spans.outcomes()
        self._elided = instrumentation.spans.elided()

    def series(self) -> dict[SeriesKey, Counts]:
        """Return the counts of each series that was asked anything."""
        now = self._inst.ledger.snapshot()
        since = {key: counts - self._series.get(key, Counts()) for key, counts in now.items()}
        return {key: counts for key, counts in since.items() if counts.lookups}

    def series_results(self, planned: Mapping[SeriesKey, Counts]) -> list[SeriesResult]:
        """Return the counts of each series, for the result, beside what was planned of it."""
        return [
            SeriesResult.of_series(key, counts, planned.get(key))
            for key, counts in self.series().items()
        ]

    def tally(self, probe: str | None) -> Tally:
        """Return the counts of one probe over all views; None means outside any."""
        own = (counts for key, counts in self.series().items() if key.probe == probe)
        return Tally.of(sum(own, Counts()))

    def total(self) -> Tally:
        """Return the counts of the whole run."""
        return Tally.of(sum(self.series().values(), Counts()))

    @property
    def interrupted(self) -> int:
        """Forward passes of the run that an interrupt ended, which are among those that failed."""
        return sum(counts.errors[_INTERRUPT] for counts in self.series().values())

    @property
    def evictions(self) -> int:
        """Entries evicted in the run."""
        return self._inst.cache.evictions - self._evictions

    @property
    def trace_write_errors(self) -> int:
        """Records of the run that are missing in its trace."""
        return self._inst.trace.write_errors - self._write_errors

    @property
    def elided(self) -> int:
        """Lookups of the run that have no span on purpose."""
        return self._inst.spans.elided() - self._elided

    @property
    def spans_dropped(self) -> int:
        """Spans of the run, of any name, that were not delivered."""
        return sum(n for (_, outcome), n in self._outcomes().items() if outcome == "dropped")

    def backend_stats(self) -> BackendStats:
        """Return the totals; `max_batch_size` is over the backend's life."""
        now = self._inst.ledger.totals()
        return BackendStats(
            cache_hits=now.cache_hits - self._stats.cache_hits,
            cache_misses=now.cache_misses - self._stats.cache_misses,
            forward_passes=now.forward_passes - self._stats.forward_passes,
            scoring_wall_s=now.scoring_wall_s - self._stats.scoring_wall_s,
            batches_sent=now.batches_sent - self._stats.batches_sent,
            batched_prompts=now.batched_prompts - self._stats.batched_prompts,
            max_batch_size=now.max_batch_size,
        )

    def cache_use(self) -> CacheUse:
        """Return how full the cache is now, against its bounds."""
        cache = self._inst.cache
        return CacheUse(
            enabled=not isinstance(cache, DisabledCache),
            max_entries=cache.maxsize,
            max_bytes=cache.max_bytes,
            entries=len(cache),
            bytes=cache.nbytes,
            evictions=cache.evictions,
            rejections=cache.rejections,
        )

    def prompt_tokens(self) -> PromptTokens:
        """Return how many tokens were computed, and how many taken over from shared prefixes."""
        now = self._inst.ledger.tokens()
        return PromptTokens(computed=now[0] - self._tokens[0], reused=now[1] - self._tokens[1])

    def reconciliation(self) -> Reconciliation:
        """Compare what was counted with what trace and spans say of it, now."""
        lookups = self.backend_stats().total_lookups
        records = failed = None
        spans = self._lookup_spans()
        sides = [] if spans is None else [sum(spans.values())]
        if self._traced:
            records = self._inst.trace.records - self._records
            failed = self.trace_write_errors
            sides.append(records + failed)
        return Reconciliation(
            lookups=lookups,
            trace_records=records,
            trace_write_errors=failed,
            spans=spans,
            holds=all(side == lookups for side in sides),
        )

    def _lookup_spans(self) -> dict[str, int] | None:
        if not self._inst.spans.used:
            return None
        now = self._outcomes()
        return {outcome: n for (name, outcome), n in now.items() if name == names.LOOKUP.name and n}

    def _outcomes(self) -> Counter[tuple[str, Outcome]]:
        """Count the run's spans; what was pending before it may have become something since."""
        now = self._inst.spans.outcomes()
        now.subtract(self._spans)
        return now
