"""A scrape has the counts of stores, each once."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from forwardscope import BackendInstrumentation
from forwardscope.core.ledger import OPERATION_BOUNDS_S, Histogram
from forwardscope.store.base import Store
from forwardscope.telemetry import names, register, unregister
from forwardscope.telemetry.names import Metric

from .conftest import CountingStore

_OF_STORES = [one for one in names.BACKEND_METRICS if "store" in one.labels]


def _backend(name: str, store: Store) -> BackendInstrumentation:
    return BackendInstrumentation(name=name, store=store, view_identity=lambda view_id: view_id)


def _of(registry: CollectorRegistry, metric: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of some labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == metric.name
    }


@pytest.fixture
def seen() -> Histogram:
    """Return a histogram of three operations."""
    seen = Histogram(OPERATION_BOUNDS_S)
    for seconds in (0.00002, 0.003, 9.0):
        seen.observe(seconds)
    return seen


def test_samples_are_the_counts_of_the_store(registry: CollectorRegistry, seen: Histogram) -> None:
    """Each number is the one of `stats()` when it is scraped."""
    store = CountingStore("s.db")
    register(_backend("main", store), registry)
    store.counts = {
        "entries": 3,
        "bytes": 400,
        "max_bytes": 5000,
        "evictions": 6,
        "corrupt": 7,
        "unsupported": 8,
        "dropped": 9,
        "expired_waits": 12,
        "errors": {("get", "SQLITE_BUSY"): 10, ("put", "SQLITE_FULL"): 11},
        "unavailable": True,
        "durations": {"get": seen},
    }
    own = {"backend": "main", "store": "s.db"}

    def read(metric: Metric, part: str = "", **labels: str) -> float | None:
        return registry.get_sample_value(metric.name + part, {**own, **labels})

    single = (names.STORE_ENTRIES, names.STORE_BYTES, names.STORE_MAX_BYTES)
    single += (names.STORE_EVICTIONS, names.STORE_CORRUPT, names.STORE_UNAVAILABLE)
    single += (names.STORE_EXPIRED_WAITS,)
    assert [read(metric) for metric in single] == [3, 400, 5000, 6, 7, 1, 12]
    assert read(names.STORE_DROPPED, reason="unsupported") == 8
    assert read(names.STORE_DROPPED, reason="lost") == 9
    assert _of(registry, names.STORE_ERRORS, "operation", "error_type") == {
        ("get", "SQLITE_BUSY"): 10,
        ("put", "SQLITE_FULL"): 11,
    }
    duration = names.STORE_DURATION
    assert read(duration, "_bucket", operation="get", le="0.0025") == 1
    assert read(duration, "_bucket", operation="get", le="0.005") == 2
    assert read(duration, "_count", operation="get") == 3
    assert read(duration, "_sum", operation="get") == seen.total


def test_a_store_of_two_backends_is_counted_once(registry: CollectorRegistry) -> None:
    """Its samples are those of the first backend that is registered; another store has its own."""
    shared, other = CountingStore("shared.db", entries=5), CountingStore("other.db", entries=7)
    backends = [_backend(name, shared) for name in ("one", "two")] + [_backend("three", other)]
    for backend in backends:
        register(backend, registry)
    labels = ("backend", "store")
    entries = _of(registry, names.STORE_ENTRIES, *labels)
    assert entries == {("one", "shared.db"): 5, ("three", "other.db"): 7}
    unregister(backends[0], registry)
    entries = _of(registry, names.STORE_ENTRIES, *labels)
    assert entries == {("two", "shared.db"): 5, ("three", "other.db"): 7}


def test_two_stores_of_one_file_are_two(registry: CollectorRegistry) -> None:
    """Each has counted what its own backend did."""
    for name in ("one", "two"):
        register(_backend(name, CountingStore("s.db", evictions=2)), registry)
    evictions = _of(registry, names.STORE_EVICTIONS, "backend", "store")
    assert evictions == {("one", "s.db"): 2, ("two", "s.db"): 2}


@pytest.mark.parametrize(
    "settings", [{}, {"store": CountingStore(), "cache_enabled": False}], ids=["none", "no cache"]
)
def test_a_backend_without_a_store_has_no_such_samples(
    registry: CollectorRegistry, settings: dict[str, Any]
) -> None:
    """Nor has one whose cache is off, which uses no store."""
    register(BackendInstrumentation(**settings), registry)
    assert len(_OF_STORES) == 10
    assert all(_of(registry, metric) == {} for metric in _OF_STORES)


def test_operations_are_counted_from_zero(registry: CollectorRegistry) -> None:
    """Before the first operation there is a histogram, so that its first count is an increase."""
    register(_backend("main", CountingStore()), registry)
    count = Metric(f"{names.STORE_DURATION.name}_count", "counter", "", "", (), "")
    assert _of(registry, count, "operation") == {("get",): 0, ("put",): 0}


def test_hits_and_verifications_are_counted_from_zero(registry: CollectorRegistry) -> None:
    """A series of the store's tier begins with the series of its probe, view and op."""
    backend = _backend("main", CountingStore())
    register(backend, registry)
    backend.cached("op", "base", "prompt", 0, lambda: 1.0)
    hits = _of(registry, names.LOOKUPS, "view", "result", "tier")
    assert {one: n for one, n in hits.items() if one[1] == "hit"} == {
        ("base", "hit", "memory"): 0,
        ("base", "hit", "disk"): 0,
    }
    outcomes = _of(registry, names.VERIFICATIONS, "view", "outcome")
    assert outcomes == {("base", "match"): 0, ("base", "mismatch"): 0}
    backend.cache.clear()
    backend.cached("op", "base", "prompt", 0, lambda: 1.0)
    assert _of(registry, names.LOOKUPS, "view", "result", "tier")["base", "hit", "disk"] == 1
