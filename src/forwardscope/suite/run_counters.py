"""Counts of one run from the ledger, trace, cache and spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from forwardscope.core.cache import DisabledCache
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.core.server_requests import RequestCounts
from forwardscope.core.stats import BackendStats
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.base import StoreStats
from forwardscope.suite.result import (
    CacheUse,
    PromptTokens,
    Reconciliation,
    SeriesResult,
    ServerUse,
    StoreUse,
    Tally,
)
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import SpanOutcome

__all__ = ["RunCounters"]

_FLUSH_S: Final = 1.0


class RunCounters:
    """Counters of a backend since this object was created.

    Args:
        instrumentation: Instrumentation of the backend; may have been used before.
    """

    def __init__(self, instrumentation: BackendInstrumentation) -> None:
        self._inst = instrumentation
        self._before = instrumentation.ledger.snapshot()
        self._total_before = self._before.total()
        self._traced = instrumentation.trace.enabled
        self._records = instrumentation.trace.records
        self._write_errors = instrumentation.trace.write_errors
        self._evictions = instrumentation.cache.evictions
        tier = instrumentation.store_tier
        self._store_before = StoreStats() if tier is None else tier.store.stats()
        self._requests_before = _requests_of(instrumentation)
        instrumentation.spans.flush(_FLUSH_S)  # spans from before the run do not count
        self._spans = instrumentation.spans.outcomes()
        self._elided = instrumentation.spans.elided()

    def series(self) -> dict[SeriesKey, Counts]:
        """Return the counts of each series with lookups in the run."""
        return self._since(self._inst.ledger.snapshot().series)

    def series_results(self, planned: Mapping[SeriesKey, Counts]) -> list[SeriesResult]:
        """Return the counts and the planned forward passes of each series."""
        return [
            SeriesResult.of_series(key, counts, planned.get(key))
            for key, counts in self.series().items()
        ]

    def tally(self, probe: str | None) -> Tally:
        """Return the counts of one probe over all views; None means outside any probe."""
        series = self._since(self._inst.ledger.series_of(probe))
        return Tally.of(sum(series.values(), Counts()))

    def total(self) -> Counts:
        """Return the counts of the whole run."""
        return self._inst.ledger.snapshot().total() - self._total_before

    @property
    def evictions(self) -> int:
        """Entries evicted in the run."""
        return self._inst.cache.evictions - self._evictions

    @property
    def trace_write_errors(self) -> int:
        """Trace records of the run that could not be written."""
        return self._inst.trace.write_errors - self._write_errors

    @property
    def elided(self) -> int:
        """Lookups of the run without a span: beyond the span budget, or not sampled."""
        return self._inst.spans.elided() - self._elided

    @property
    def spans_dropped(self) -> int:
        """Spans of the run, of any kind, that were dropped."""
        return sum(n for (_, outcome), n in self._outcomes().items() if outcome == "dropped")

    def backend_stats(self) -> BackendStats:
        """Return the totals of the run; `max_batch_size` covers all runs of the backend."""
        before, now = self._before.totals(), self._inst.ledger.totals()
        return BackendStats(
            cache_hits=now.cache_hits - before.cache_hits,
            cache_misses=now.cache_misses - before.cache_misses,
            forward_passes=now.forward_passes - before.forward_passes,
            scoring_wall_s=now.scoring_wall_s - before.scoring_wall_s,
            batches_sent=now.batches_sent - before.batches_sent,
            batched_prompts=now.batched_prompts - before.batched_prompts,
            max_batch_size=now.max_batch_size,
        )

    def cache_use(self) -> CacheUse:
        """Return the current contents and the bounds of the cache."""
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

    def store_use(self, *, flush: bool = True) -> StoreUse | None:
        """Return what the run had from its store so far; None without one.

        Args:
            flush: Whether to wait, for a bounded time, until all is stored.
        """
        if (tier := self._inst.store_tier) is None:
            return None
        if flush:
            tier.store.flush(_FLUSH_S)
        before, stats = self._store_before, tier.store.stats()
        total = self.total()
        return StoreUse(
            name=tier.store.name,
            tier=tier.store.tier,
            hits=total.store_hits,
            verified=total.matches,
            mismatches=total.mismatches,
            entries=stats.entries,
            bytes=stats.bytes,
            max_bytes=stats.max_bytes,
            corrupt=stats.corrupt - before.corrupt,
            dropped=stats.dropped - before.dropped,
            errors=sum(stats.errors.values()) - sum(before.errors.values()),
            unavailable=stats.unavailable,
            unidentified_views=tier.unidentified,
        )

    def server_use(self) -> ServerUse | None:
        """Return the requests of the run so far to the server of its model; None without one."""
        if (server := self._inst.server_requests) is None:
            return None
        before, now = self._requests_before, _requests_of(self._inst)
        return ServerUse(
            address=server.address,
            port=server.port,
            requests=now.requests - before.requests,
            retries=now.retries.total() - before.retries.total(),
            throttled=now.throttled.total() - before.throttled.total(),
            failed=now.failed - before.failed,
        )

    def prompt_tokens(self) -> PromptTokens:
        """Return the computed and the reused tokens of the run."""
        before, now = self._before, self._inst.ledger.snapshot()
        return PromptTokens(
            computed=now.tokens_computed - before.tokens_computed,
            reused=now.tokens_reused - before.tokens_reused,
        )

    def reconciliation(self) -> Reconciliation:
        """Compare the lookups of the run so far with its trace records and spans."""
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

    def _since(self, now: Mapping[SeriesKey, Counts]) -> dict[SeriesKey, Counts]:
        before = self._before.series
        since = {key: counts - before.get(key, Counts()) for key, counts in now.items()}
        return {key: counts for key, counts in since.items() if counts.lookups}

    def _lookup_spans(self) -> dict[str, int] | None:
        if not self._inst.spans.used:
            return None
        now = self._outcomes()
        return {outcome: n for (kind, outcome), n in now.items() if kind == names.LOOKUP.kind and n}

    def _outcomes(self) -> Counter[tuple[str, SpanOutcome]]:
        """Count the run's spans by kind and outcome.

        `pending` is negative if spans from before the run have ended since.
        """
        now = self._inst.spans.outcomes()
        now.subtract(self._spans)
        return now


def _requests_of(instrumentation: BackendInstrumentation) -> RequestCounts:
    """Return the requests of a backend so far; none without a server."""
    requests = instrumentation.server_requests
    return RequestCounts() if requests is None else requests.snapshot()
