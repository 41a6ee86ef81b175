"""Backends on a Prometheus registry: a scrape has the counts of the ledger."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.multiprocess import MultiProcessCollector

from forwardscope import BackendInstrumentation
from forwardscope.telemetry import ForwardscopeCollector, names, register, unregister
from forwardscope.testing import InMemoryTelemetry

pytestmark = pytest.mark.timeout(900)

_PATIENCE_S = 60.0


def _fail(*_: object) -> Any:
    raise ValueError("no")


def _look_up(backend: BackendInstrumentation) -> None:
    backend.cached("op", "base", "prompt", 0, lambda: None)


def _of(registry: CollectorRegistry, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one metric by the values of some labels."""
    every = [sample for family in registry.collect() for sample in family.samples]
    chosen = [sample for sample in every if sample.name == metric]
    read = {tuple(one.labels[label] for label in labels): one.value for one in chosen}
    assert len(read) == len(chosen), f"{labels} do not distinguish the samples of {metric}"
    return read


def _names(registry: CollectorRegistry) -> set[str]:
    return {sample.name for family in registry.collect() for sample in family.samples}


def test_samples_are_the_counts_of_the_ledger(registry: CollectorRegistry, tmp_path: Path) -> None:
    """Hits, misses, errors, batches, cache and trace."""
    backend = BackendInstrumentation(
        cache_maxsize=3, cache_max_bytes=4096, trace_path=tmp_path / "t.jsonl"
    )
    register(backend, registry)
    for prompt in ("a", "a", "b"):
        backend.cached("op", "base", prompt, 0, lambda: None)
    with pytest.raises(ValueError, match="no"):
        backend.cached("op", "base", "broken", 0, _fail)
    backend.cached("op", "base", "large", 0, lambda: bytes(5000))
    backend.set_current_probe("probe")
    backend.cached_batch("other", "ft", ["a", "b", "a", "c"], 0, lambda indices: indices)
    read = lambda name, **labels: registry.get_sample_value(  # noqa: E731
        f"forwardscope_{name}", {"backend": "default", **labels}
    )
    outside = {"probe": "", "view": "base", "op": "op"}
    inside = {"probe": "probe", "view": "ft", "op": "other"}
    by_result = [
        [
            read("cache_lookups_total", **series, result=result, tier=tier)
            for result, tier in (("hit", "memory"), ("miss", ""), ("coalesced", "memory"))
        ]
        for series in (outside, inside)
    ]
    assert by_result == [[1, 4, 0], [0, 3, 1]]
    assert read("forward_passes_total", **outside) == 3
    assert read("forward_passes_total", **inside) == 3
    assert read("forward_errors_total", **outside, error_type="ValueError") == 1
    assert read("forward_duration_seconds_count", op="op") == 3
    assert read("forward_duration_seconds_bucket", op="other", le="+Inf") == 3
    sizes = [read("batch_prompts_bucket", le=le) for le in ("1.0", "2.0", "4.0", "8.0", "+Inf")]
    assert sizes == [0, 0, 1, 1, 1]
    assert (read("batch_prompts_count"), read("batch_prompts_sum")) == (1, 3)
    assert read("batch_prompts_max") == 3
    snapshot, cache = backend.ledger.snapshot(), backend.cache
    seconds = _of(registry, "forwardscope_scoring_seconds_total", "op")
    spent = {(key.op,): counts.scoring_ns / 1e9 for key, counts in snapshot.series.items()}
    assert seconds == spent
    for op, seen in snapshot.durations.items():
        assert read("forward_duration_seconds_sum", op=op) == seen.total
    assert (read("cache_entries"), read("cache_bytes")) == (len(cache), cache.nbytes)
    assert (read("cache_max_entries"), read("cache_max_bytes")) == (3, 4096)
    assert (read("cache_evictions_total"), read("cache_rejections_total")) == (2, 1)
    assert (read("trace_records_total"), read("trace_write_errors_total")) == (9, 0)
    assert read("probe_names_folded") == 0
    backend.close()


def test_unused_metrics_have_no_sample(registry: CollectorRegistry) -> None:
    """The metrics of trace, byte bound and spans are absent where these are off."""
    backend = BackendInstrumentation(cache_enabled=False)
    register(backend, registry)
    _look_up(backend)
    absent = (names.TRACE_RECORDS, names.TRACE_WRITE_ERRORS, names.CACHE_MAX_BYTES)
    assert _names(registry).isdisjoint(metric.name for metric in (*absent, names.SPANS_TOTAL))
    assert registry.get_sample_value("forwardscope_cache_entries", {"backend": "default"}) == 0


def test_several_backends_share_a_registry(registry: CollectorRegistry) -> None:
    """Each has samples of its own name; the build has one."""
    backends = [BackendInstrumentation(name=name) for name in ("one", "two")]
    collectors = {register(backend, registry) for backend in backends}
    assert len(collectors) == 1
    _look_up(backends[1])
    _look_up(backends[1])
    entries = _of(registry, "forwardscope_cache_entries", "backend")
    assert entries == {("one",): 0, ("two",): 1}
    assert len(_of(registry, "forwardscope_build_info", "version", "python")) == 1
    assert _of(registry, "forwardscope_cache_lookups_total", "backend", "result") == {
        ("two", "hit"): 1,
        ("two", "miss"): 1,
        ("two", "coalesced"): 0,
    }


def test_second_backend_of_one_name_is_an_error(registry: CollectorRegistry) -> None:
    """The message names the fix, and the first one stays; it may be registered again."""
    first = BackendInstrumentation(name="mine")
    register(first, registry)
    register(first, registry)
    with pytest.raises(ValueError, match=r"'mine' is registered already; give each .* own name="):
        register(BackendInstrumentation(name="mine"), registry)
    _look_up(first)
    assert _of(registry, "forwardscope_cache_entries", "backend") == {("mine",): 1}


def test_threads_share_the_first_collector_of_a_registry(
    together: Callable[[int, Callable[[int], Any]], list[Any]],
) -> None:
    """Eight threads that register at once get the same collector."""

    class SlowRegistry(CollectorRegistry):
        def register(self, collector: Any) -> None:
            super().register(collector)
            time.sleep(0.01)

    registry = SlowRegistry()
    backends = [BackendInstrumentation(name=f"backend {number}") for number in range(8)]
    assert len(set(together(8, lambda me: register(backends[me], registry)))) == 1
    assert len(_of(registry, "forwardscope_cache_entries", "backend")) == 8


def test_metrics_of_another_collector_are_an_error(
    registry: CollectorRegistry,
) -> None:
    """Metrics of the same names raise prometheus_client's error; another registry works."""
    Gauge("forwardscope_cache_entries", "Not ours.", registry=registry)
    backend = BackendInstrumentation()
    with pytest.raises(ValueError, match="forwardscope_cache_entries"):
        register(backend, registry)
    free = CollectorRegistry()
    register(backend, free)
    assert _of(free, "forwardscope_cache_entries", "backend") == {("default",): 0}


def test_backend_can_be_unregistered(registry: CollectorRegistry) -> None:
    """Its samples are gone and its name is free; a backend that is not registered is ignored."""
    first, second = (BackendInstrumentation(name="mine") for _ in range(2))
    unregister(first, registry)
    register(first, registry)
    _look_up(first)
    unregister(second, registry)
    assert _of(registry, "forwardscope_cache_entries", "backend") == {("mine",): 1}
    unregister(first, registry)
    unregister(first, registry)
    assert _of(registry, "forwardscope_cache_entries", "backend") == {}
    register(second, registry)
    assert _of(registry, "forwardscope_cache_entries", "backend") == {("mine",): 0}


def test_backend_on_two_registries() -> None:
    """Removing a backend from one registry leaves the other unchanged."""
    one, two = CollectorRegistry(), CollectorRegistry()
    backend = BackendInstrumentation()
    assert register(backend, one) is not register(backend, two)
    _look_up(backend)
    assert _of(one, "forwardscope_cache_entries", "backend") == {("default",): 1}
    unregister(backend, one)
    assert _names(one) == {"forwardscope_build_info"}
    assert _of(two, "forwardscope_cache_entries", "backend") == {("default",): 1}


def test_describe_reads_no_ledger() -> None:
    """It returns all families without samples."""

    class Unreadable:
        name = "unreadable"

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} was read")

    collector = ForwardscopeCollector()
    collector.add(Unreadable())  # type: ignore[arg-type]
    families = list(collector.describe())
    assert len(families) == len(names.BACKEND_METRICS)
    assert [family.samples for family in families] == [[]] * len(families)
    with pytest.raises(AssertionError, match="was read"):
        list(collector.collect())


def test_scrape_is_of_one_moment(telemetry: InMemoryTelemetry, in_thread: Any) -> None:
    """Beside lookups of other threads, misses = passes + errors, and no counter falls."""
    # large enough that no prompt is evicted
    backend = telemetry.instrumentation(span_budget=10, cache_maxsize=10**6)
    scraped, start = threading.Event(), threading.Barrier(4)

    def look_up(name: str) -> int:
        start.wait(_PATIENCE_S)
        rounds = 0
        while True:
            backend.cached("op", "base", f"{name} {rounds}", 0, lambda: None)
            with pytest.raises(ValueError, match="no"):
                backend.cached("op", "base", f"{name} {rounds} broken", 0, _fail)
            backend.cached_batch("op", "base", [name, f"{name} {rounds} batch"], 0, list)
            rounds += 1
            if scraped.is_set():
                return rounds

    futures = [in_thread(lambda name=name: look_up(name)) for name in "abc"]
    start.wait(_PATIENCE_S)
    before: dict[Any, float] = {}
    try:
        for _ in range(40):
            every = [one for family in telemetry.registry.collect() for one in family.samples]
            now = {(one.name, tuple(one.labels.items())): one.value for one in every}
            counted: Counter[str] = Counter()
            for (name, labels), value in now.items():
                counted[f"{name} {dict(labels).get('result', '')}"] += int(value)
            passes = counted["forwardscope_forward_passes_total "]
            failed = counted["forwardscope_forward_errors_total "]
            assert counted["forwardscope_cache_lookups_total miss"] == passes + failed
            assert counted["forwardscope_forward_duration_seconds_count "] == passes
            grows = [key for key in before if key[0].endswith(("_total", "_count", "_bucket"))]
            assert all(now[key] >= before[key] for key in grows)
            before = now
    finally:
        scraped.set()
    rounds = sum(future.result(_PATIENCE_S) for future in futures)
    stats = backend.stats
    assert stats.forward_passes == 2 * rounds + 3
    assert stats.cache_misses == 3 * rounds + 3
    read = _of(telemetry.registry, "forwardscope_cache_lookups_total", "result")
    assert read["miss",] == 3 * rounds + 3


def test_multiprocess_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that is not served is warned of; that of the mode's collector has the counts."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    backend = BackendInstrumentation(name="multiprocess")
    with pytest.warns(RuntimeWarning, match="on the registry of your MultiProcessCollector"):
        register(backend)
    unregister(backend)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))
    register(backend, registry)
    _look_up(backend)
    assert _of(registry, "forwardscope_forward_passes_total", "backend") == {("multiprocess",): 1}
