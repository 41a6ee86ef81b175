"""The counts of a run agree in its ledger, result, trace and spans."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.result import Tally
from forwardscope.testing import (
    InMemoryTelemetry,
    MemoryStore,
    ScriptedBackend,
    ScriptedView,
    pseudo_random_logits,
)

MakeSpec = Callable[..., SuiteSpec]
COUNTED = (
    "lookups",
    "cache_hits",
    "coalesced",
    "cache_misses",
    "forward_passes",
    "forward_errors",
)


def backend_with(trace_path: Path | str | None = None, **settings: object) -> ScriptedBackend:
    """Return a backend whose instrumentation has these settings."""
    instrumentation = BackendInstrumentation(trace_path=trace_path, **settings)
    return ScriptedBackend(instrumentation=instrumentation)


def summed(tallies: Iterable[Tally]) -> dict[str, int]:
    """Return the sums of all counts."""
    total = Counter[str]()
    for tally in tallies:
        total.update({name: getattr(tally, name) for name in COUNTED})
    return {name: total[name] for name in COUNTED}


def check_counts(result: SuiteResult, trace: Path) -> None:
    """Check that totals, probes, series and trace lines of a run agree."""
    stats, series = result.backend_stats, result.series
    assert summed(series)["cache_hits"] == stats["cache_hits"]
    assert summed(series)["cache_misses"] == stats["cache_misses"]
    assert summed(series)["forward_passes"] == stats["forward_passes"]
    for probe in result.probes:
        own = [one for one in series if one.probe == probe.name]
        assert summed([probe.stats]) == summed(own)
    for tally in (*series, *(probe.stats for probe in result.probes)):
        assert tally.lookups == tally.cache_hits + tally.cache_misses
        assert tally.cache_misses == tally.forward_passes + tally.forward_errors
        assert tally.hit_rate == (tally.cache_hits / tally.lookups if tally.lookups else 0.0)
    assert result.prompt_tokens is not None
    own_events = [event for event in TraceReader(trace) if event.run_id == result.run_id]
    assert result.prompt_tokens.computed == sum(
        event.tokens or 0 for event in own_events if event.error is None
    )
    reader = TraceReader(trace)
    lines = Counter(
        (event.probe, event.view_id, event.op, event.hit)
        for event in reader
        if event.run_id == result.run_id
    )
    assert reader.skipped == 0
    for one in series:
        assert lines.pop((one.probe, one.view_id, one.op, True), 0) == one.cache_hits
        assert lines.pop((one.probe, one.view_id, one.op, False), 0) == one.cache_misses
    assert not lines
    assert result.reconciliation.lookups == stats["cache_hits"] + stats["cache_misses"]


def test_counts_agree_everywhere(full_suite: SuiteSpec, tmp_path: Path) -> None:
    """A run of all four kinds of probes reconciles."""
    backend = backend_with(tmp_path / "t.jsonl")
    result = run_suite(full_suite, backend)
    check_counts(result, tmp_path / "t.jsonl")
    lookups = result.reconciliation.lookups
    assert result.reconciliation.model_dump() == {
        "lookups": lookups,
        "trace_records": lookups,
        "trace_write_errors": 0,
        "spans": None,
        "holds": True,
    }
    assert result.backend_stats == backend.instrumentation.stats.to_dict()
    assert result.backend_stats["cache_hits"] > 0
    assert {event.run_id for event in TraceReader(tmp_path / "t.jsonl")} == {result.run_id}


def test_expected_counts_of_a_small_suite(make_spec: MakeSpec) -> None:
    """Of two probes with the same two prompts, the second has only hits."""
    one, two = (DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two"))
    result = run_suite(make_spec(one, two), backend_with())
    assert summed(result.series) == {
        "lookups": 10,
        "cache_hits": 4,
        "coalesced": 0,
        "cache_misses": 6,
        "forward_passes": 6,
        "forward_errors": 0,
    }
    by_probe = [(p.stats.lookups, p.stats.cache_hits) for p in result.probes]
    assert by_probe == [(4, 0), (4, 4)]
    outside = [one for one in result.series if one.probe is None]
    assert [(one.view_id, one.lookups) for one in outside] == [("base", 1), ("ft", 1)]
    assert (result.backend_stats["batches_sent"], result.backend_stats["max_batch_size"]) == (2, 2)
    assert (result.cache.entries, result.cache.evictions) == (6, 0)


def test_counts_of_a_run_with_failures_agree(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Failed passes are misses everywhere, and the trace has their class."""

    def script(view: ScriptedView, prompt: str) -> object:
        if prompt == "b" and view.id == "ft":
            raise RuntimeError("gone")
        return pseudo_random_logits(view, prompt)

    instrumentation = BackendInstrumentation(trace_path=tmp_path / "t.jsonl")
    backend = ScriptedBackend(script, instrumentation=instrumentation)
    one, two = (DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two"))
    result = run_suite(make_spec(one, two), backend)
    check_counts(result, tmp_path / "t.jsonl")
    assert summed(result.series)["forward_errors"] == 4
    errors = [event.error for event in TraceReader(tmp_path / "t.jsonl") if event.error]
    assert errors == ["RuntimeError"] * 4


def test_without_a_trace_nothing_is_compared(make_spec: MakeSpec) -> None:
    """A disabled output is null in the reconciliation."""
    result = run_suite(make_spec(DeltaKL(name="one", prompts=["a"])), backend_with())
    assert result.reconciliation.model_dump() == {
        "lookups": 4,
        "trace_records": None,
        "trace_write_errors": None,
        "spans": None,
        "holds": True,
    }


def test_records_that_cannot_be_written_are_counted(make_spec: MakeSpec) -> None:
    """On a full disk the run continues, and the reconciliation has the lost records."""
    with pytest.warns(RuntimeWarning, match="the run goes on"):
        result = run_suite(make_spec(DeltaKL(name="one", prompts=["a"])), backend_with("/dev/full"))
    assert result.passed
    assert result.reconciliation.model_dump() == {
        "lookups": 4,
        "trace_records": 0,
        "trace_write_errors": 4,
        "spans": None,
        "holds": True,
    }


def test_missing_records_are_detected(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace with fewer records than lookups does not reconcile."""
    backend = backend_with(tmp_path / "t.jsonl")
    monkeypatch.setattr(backend.instrumentation.trace, "write_batch", lambda events: None)
    result = run_suite(make_spec(DeltaKL(name="one", prompts=["a"])), backend)
    assert (result.reconciliation.lookups, result.reconciliation.trace_records) == (4, 0)
    assert not result.reconciliation.holds


def test_counts_of_a_used_backend(full_suite: SuiteSpec, tmp_path: Path) -> None:
    """Each run on a backend has its own counts; the second has only hits."""
    path = tmp_path / "t.jsonl"
    backend = backend_with(path)
    with backend.as_base() as view:
        view.next_token_dist_batch(["before", "the run"])
    first, second = run_suite(full_suite, backend), run_suite(full_suite, backend)
    for result in (first, second):
        check_counts(result, path)
        assert result.reconciliation.holds
        assert result.reconciliation.trace_records == result.reconciliation.lookups
    assert first.reconciliation.lookups == second.reconciliation.lookups
    assert (second.backend_stats["forward_passes"], second.backend_stats["hit_rate"]) == (0, 1.0)
    assert second.backend_stats["batches_sent"] == 0
    lines = sum(1 for _ in TraceReader(path))
    assert lines == 2 + first.reconciliation.lookups + second.reconciliation.lookups


def test_counts_without_a_cache(full_suite: SuiteSpec, tmp_path: Path) -> None:
    """Every lookup is a forward pass, and all counts agree."""
    path = tmp_path / "t.jsonl"
    result = run_suite(full_suite, backend_with(path, cache_enabled=False))
    check_counts(result, path)
    assert result.reconciliation.holds
    assert result.backend_stats["cache_hits"] == 0
    assert result.backend_stats["forward_passes"] == result.reconciliation.lookups
    assert (result.cache.enabled, result.cache.entries) == (False, 0)


def test_counts_with_a_small_cache(full_suite: SuiteSpec, tmp_path: Path) -> None:
    """The result has evictions and bounds, and all counts agree."""
    path = tmp_path / "t.jsonl"
    result = run_suite(full_suite, backend_with(path, cache_maxsize=2, cache_max_bytes=100_000))
    check_counts(result, path)
    assert (result.cache.max_entries, result.cache.max_bytes) == (2, 100_000)
    assert result.cache.entries == 2
    assert result.cache.evictions > 0
    assert 0 < result.cache.bytes <= 100_000


def test_pending_spans_are_counted(make_spec: MakeSpec) -> None:
    """Ended and pending hit spans are each counted once."""
    hits, released = iter(range(1000)), threading.Event()

    class Slow(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            result = (span.attributes or {}).get("forwardscope.cache.result")
            if result == "hit" and next(hits) >= 3:
                assert released.wait(60)

    telemetry = InMemoryTelemetry()
    telemetry.tracer_provider.add_span_processor(Slow())
    prompts = [f"prompt {number}" for number in range(10)]
    spec = make_spec(*(DeltaKL(name=name, prompts=prompts) for name in ("one", "two")))
    result = run_suite(spec, ScriptedBackend(instrumentation=telemetry.instrumentation()))
    released.set()
    assert result.reconciliation.spans is not None
    assert result.reconciliation.spans["pending"] > 0
    assert result.reconciliation.holds


def test_forward_spans_have_the_labels_of_the_suite(make_spec: MakeSpec) -> None:
    """They have the suite's names of model and adapter, not those of the backend."""
    telemetry = InMemoryTelemetry()
    instrumentation = telemetry.instrumentation()
    instrumentation.spans.name_model("/path/of/the/model", "an-adapter")
    spec = make_spec(DeltaKL(name="one", prompts=["a"]))
    run_suite(spec, ScriptedBackend(instrumentation=instrumentation))
    labels = {
        (span.name, span.attributes["gen_ai.request.model"])
        for span in telemetry.spans()
        if "gen_ai.request.model" in span.attributes
    }
    model, adapter = spec.model.label, spec.model.adapter_label
    assert labels == {("forward base", model), ("forward ft", f"{adapter} on {model}")}


def test_views_that_a_store_cannot_keep_are_named(make_spec: MakeSpec) -> None:
    """A view without an identity is in the result, so that no store is off in silence."""
    suite = make_spec(DeltaKL(name="one", prompts=["a"]))
    found = {}
    for known in (None, {"base": "an identity"}.get):
        instrumentation = BackendInstrumentation(store=MemoryStore())
        backend = ScriptedBackend(instrumentation=instrumentation, view_identity=known)
        used = run_suite(suite, backend).store
        assert used is not None
        found[known is None] = used.unidentified_views
    assert found == {True: ["base", "ft"], False: ["ft"]}


def test_losses_of_a_store_are_those_of_the_run(make_spec: MakeSpec) -> None:
    """A second run on one backend does not report what the first one could not store."""
    store = MemoryStore()
    store.close()
    instrumentation = BackendInstrumentation(store=store)
    backend = ScriptedBackend(instrumentation=instrumentation, view_identity=lambda view: view)
    suite = make_spec(DeltaKL(name="one", prompts=["a"]))
    dropped = []
    for _ in range(2):
        used = run_suite(suite, backend).store
        assert used is not None
        dropped.append(used.dropped)
    assert dropped[0] > 0
    assert dropped[1] == 0
