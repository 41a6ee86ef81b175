"""Prometheus collector that reads the ledgers of backends at scrape time.

It counts nothing itself and adds no work to a lookup. One line registers a backend:

    register(backend.instrumentation)            # or registry=my_registry
"""

from __future__ import annotations

import os
import platform
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol

from forwardscope.core.cache import ForwardCache
from forwardscope.core.keys import view_family
from forwardscope.core.ledger import OTHER, Ledger, LedgerSnapshot
from forwardscope.core.series import Counts
from forwardscope.core.server_requests import ServerRequests
from forwardscope.telemetry import names
from forwardscope.telemetry.families import add_histogram, add_sample, new_family
from forwardscope.telemetry.names import Metric
from forwardscope.telemetry.server_samples import add_requests
from forwardscope.telemetry.spans import LookupSpans
from forwardscope.telemetry.store_samples import CountedStore, add_stores
from forwardscope.text import printable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client import Metric as Family

__all__ = ["MAX_PROBES", "ForwardscopeCollector", "Source", "register", "unregister"]

#: Probe names with a label value of their own; later names are folded into `_other`.
MAX_PROBES: Final = 100


class TraceCounts(Protocol):
    """Path and counts of a trace writer."""

    @property
    def path(self) -> object | None:
        """Path of the trace file, or None without a trace."""
        ...

    @property
    def records(self) -> int:
        """Records that are complete in the file."""
        ...

    @property
    def write_errors(self) -> int:
        """Records that are missing or incomplete in the file."""
        ...


class Source(Protocol):
    """What the collector reads from a backend; `BackendInstrumentation` provides it."""

    @property
    def name(self) -> str:
        """Backend name, the value of the label `backend`."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Ledger with the counts of the backend."""
        ...

    @property
    def cache(self) -> ForwardCache:
        """In-memory cache of the backend."""
        ...

    @property
    def store(self) -> CountedStore | None:
        """Store below the cache, or None without one."""
        ...

    @property
    def server_requests(self) -> ServerRequests | None:
        """Requests to the server that holds the model, or None without one."""
        ...

    @property
    def spans(self) -> LookupSpans:
        """Lookup spans of the backend."""
        ...

    @property
    def trace(self) -> TraceCounts:
        """Trace writer of the backend."""
        ...


class ForwardscopeCollector:
    """Exports any number of backends on one registry. Thread-safe.

    Use `register`, which creates one collector for each registry and adds backends to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, Source] = {}

    def add(self, source: Source) -> None:
        """Export a backend until it is removed.

        Raises:
            ValueError: Another backend of the same name is exported.
        """
        with self._lock:
            if self._sources.setdefault(source.name, source) is not source:
                raise ValueError(
                    f"a backend named {source.name!r} is registered already; give each "
                    "BackendInstrumentation its own name="
                )

    def remove(self, source: Source) -> None:
        """Stop exporting a backend; does nothing if the backend is not exported."""
        with self._lock:
            if self._sources.get(source.name) is source:
                del self._sources[source.name]

    def describe(self) -> Iterable[Family]:
        """Return all families without samples, so that registration reads no ledger."""
        return [new_family(metric) for metric in names.BACKEND_METRICS]

    def collect(self) -> Iterator[Family]:
        """Yield all families with the current counts."""
        with self._lock:
            sources = list(self._sources.values())
        families = {metric: new_family(metric) for metric in names.BACKEND_METRICS}
        for source in sources:
            _Reading(source, families).add_all()
            add_requests(families, source.name, source.server_requests)
        add_stores(families, [(source.name, source.store) for source in sources])
        build = (version("forwardscope"), platform.python_version())
        add_sample(families[names.BUILD_INFO], names.BUILD_INFO, build, 1)
        yield from families.values()


class _Reading:
    """Samples of one backend for one scrape, based on one ledger snapshot."""

    def __init__(self, source: Source, families: dict[Metric, Family]) -> None:
        self._source = source
        self._families = families
        self._tier = None if source.store is None else source.store.tier
        # Spans and records follow a counted lookup. They are read before the
        # ledger, so that their counts never exceed the lookups of the snapshot.
        self._outcomes = source.spans.outcomes()
        self._records = (source.trace.records, source.trace.write_errors)
        self._snapshot = source.ledger.snapshot()

    def add_all(self) -> None:
        self._add_series()
        self._add_verifications()
        self._add_batches()
        self._add_cache()
        self._add_records()

    def _add(self, metric: Metric, value: float, *labels: str) -> None:
        add_sample(self._families[metric], metric, (self._source.name, *labels), value)

    def _add_series(self) -> None:
        folded, beyond = _by_label(self._snapshot)
        self._add(names.PROBES_FOLDED, beyond)
        for series, counts in folded.items():
            for result, tier, n in (
                ("hit", "memory", counts.memory_hits),
                ("hit", "disk", counts.disk_hits),
                ("hit", "remote", counts.remote_hits),
                ("miss", "", counts.misses),
                ("coalesced", "memory", counts.coalesced - counts.remote_coalesced),
                ("coalesced", "remote", counts.remote_coalesced),
            ):
                if n or tier in ("memory", "", self._tier):
                    self._add(names.LOOKUPS, n, *series, result, tier)
            self._add(names.BYPASSES, counts.bypasses, *series)
            self._add(names.FORWARD_PASSES, counts.forward_passes, *series)
            self._add(names.SCORING_SECONDS, counts.scoring_ns / 1e9, *series)
            for error, n in counts.errors.items():
                self._add(names.FORWARD_ERRORS, n, *series, error)

    def _add_verifications(self) -> None:
        by_view: dict[str, Counts] = {}
        for key, counts in self._snapshot.series.items():
            view = printable(view_family(key.view_id))
            by_view[view] = by_view.get(view, Counts()) + counts
        for view, counts in by_view.items():
            if counts.store_hits or self._tier is not None:
                self._add(names.VERIFICATIONS, counts.matches, view, "match")
                self._add(names.VERIFICATIONS, counts.mismatches, view, "mismatch")

    def _add_batches(self) -> None:
        for op, seen in self._snapshot.durations.items():
            family = self._families[names.FORWARD_DURATION]
            add_histogram(family, names.FORWARD_DURATION, (self._source.name, op), seen)
        sizes = self._snapshot.batch_prompts
        family = self._families[names.BATCH_PROMPTS]
        add_histogram(family, names.BATCH_PROMPTS, (self._source.name,), sizes)
        self._add(names.BATCH_PROMPTS_MAX, self._snapshot.max_batch_size)
        self._add(names.PREFIX_TOKENS, self._snapshot.tokens_computed, "computed")
        self._add(names.PREFIX_TOKENS, self._snapshot.tokens_reused, "reused")

    def _add_cache(self) -> None:
        cache = self._source.cache
        self._add(names.CACHE_ENTRIES, len(cache))
        self._add(names.CACHE_BYTES, cache.nbytes)
        self._add(names.CACHE_MAX_ENTRIES, cache.maxsize)
        if cache.max_bytes is not None:
            self._add(names.CACHE_MAX_BYTES, cache.max_bytes)
        self._add(names.CACHE_EVICTIONS, cache.evictions)
        self._add(names.CACHE_REJECTIONS, cache.rejections)

    def _add_records(self) -> None:
        if self._source.trace.path is not None:
            self._add(names.TRACE_RECORDS, self._records[0])
            self._add(names.TRACE_WRITE_ERRORS, self._records[1])
        for (span, outcome), n in sorted(self._outcomes.items()):
            if outcome != "pending":  # this count can fall, but a counter must not
                self._add(names.SPANS_TOTAL, n, span, outcome)


def _by_label(snapshot: LedgerSnapshot) -> tuple[dict[tuple[str, str, str], Counts], int]:
    """Sum series of equal (probe, view family, op), and count the folded probe names.

    The probes that were counted first keep their names, so no label value
    changes its meaning between two scrapes.
    """
    probes = dict.fromkeys(printable(key.probe) for key in snapshot.series if key.probe)
    probes.pop(OTHER, None)  # already folded by the ledger
    own_label = {"", *list(probes)[:MAX_PROBES]}
    folded: dict[tuple[str, str, str], Counts] = {}
    for key, counts in snapshot.series.items():
        probe, op = printable(key.probe or ""), printable(key.op)
        view = key.view_id if key.view_id == OTHER else printable(view_family(key.view_id))
        label = (probe if probe in own_label else OTHER, view, op)
        folded[label] = folded.get(label, Counts()) + counts
    return folded, max(0, len(probes) - MAX_PROBES)


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, ForwardscopeCollector] = (
    weakref.WeakKeyDictionary()
)
_registering = threading.Lock()


def register(source: Source, registry: CollectorRegistry | None = None) -> ForwardscopeCollector:
    """Export a backend on a Prometheus registry.

    Args:
        source: A backend's `BackendInstrumentation`; kept alive until
            `unregister` or for as long as the registry.
        registry: The registry; None means prometheus_client's global one.

    Returns:
        The registry's collector, shared by all of its backends.

    Raises:
        ValueError: The registry has a backend of the same name, or another
            collector's metrics of the same names.
    """
    from prometheus_client import REGISTRY  # noqa: PLC0415 - import registers collectors

    if registry is None:
        registry = REGISTRY
        _warn_of_multiprocess_mode()
    with _registering:
        collector = ForwardscopeCollector()
        try:
            registry.register(collector)
        except ValueError:  # the metric names are registered by our collector or another
            if registry not in _collectors:
                raise
            collector = _collectors[registry]
        else:
            _collectors[registry] = collector
        collector.add(source)
    return collector


def _warn_of_multiprocess_mode() -> None:
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        warnings.warn(
            "PROMETHEUS_MULTIPROC_DIR is set: in this mode the global registry is not served, so "
            "no metric of forwardscope is; register the backend on the registry of your "
            "MultiProcessCollector, with register(backend.instrumentation, registry)",
            RuntimeWarning,
            stacklevel=3,
        )


def unregister(source: Source, registry: CollectorRegistry | None = None) -> None:
    """Stop exporting a backend; does nothing if the backend is not registered."""
    from prometheus_client import REGISTRY  # noqa: PLC0415 - import registers collectors

    collector = _collectors.get(REGISTRY if registry is None else registry)
    if collector is not None:
        collector.remove(source)
