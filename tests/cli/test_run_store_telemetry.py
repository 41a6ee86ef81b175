"""`forwardscope run` with a store: all outputs have the same number of lookups of each tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import Result

from forwardscope.suite import SuiteResult
from forwardscope.telemetry import names, run_names
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits
from forwardscope.trace.reader import TraceReader

from .metrics_receiver import Receiver, receive_http
from .viewer import NIGHTLY, Span, Viewer

Invoke = Callable[..., Result]
#: Lookups by result and tier, forward passes, and verified values by outcome.
Numbers = dict[str, int]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variable of the machine that names a store."""
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)


def _of_trace(path: Path) -> Numbers:
    events = list(TraceReader(path))
    outcomes = Counter(event.verified for event in events)
    lookups = Counter(
        f"{event.result or 'hit'} {event.tier or 'memory'}" if event.hit else "miss"
        for event in events
    )
    passes = sum(not event.hit and event.error is None for event in events)
    return {**lookups, "passes": passes, "agreed": outcomes[True], "wrong": outcomes[False]}


def _of_spans(spans: list[Span]) -> Numbers:
    def value(span: Span, attribute: names.Attribute) -> object:
        return span.attributes.get(attribute.name)

    lookups = [span for span in spans if span.kind == "lookup"]
    forward = [span for span in spans if span.kind == "forward" and not span.failed]
    outcomes = Counter(value(span, names.VERIFIED) for span in lookups)
    verified = sum(
        int(str(value(span, names.BATCH_SIZE)))
        for span in forward
        if value(span, names.VERIFICATION)
    )
    assert verified == outcomes[True] + outcomes[False]
    results = Counter[str]()
    for span in lookups:
        result, tier = value(span, names.CACHE_RESULT), value(span, names.TIER) or "memory"
        results["miss" if result == "miss" else f"{result} {tier}"] += 1
    computed = sum(int(str(value(span, names.BATCH_SIZE))) for span in forward)
    numbers = {"passes": computed - verified, "agreed": outcomes[True], "wrong": outcomes[False]}
    return {**results, **numbers}


def _of_result(result: SuiteResult) -> Numbers:
    series, store = result.series, result.store
    assert store is not None
    stored = sum(one.store_hits for one in series)
    assert stored == store.hits
    coalesced = sum(one.coalesced for one in series)
    return {
        "hit memory": sum(one.cache_hits for one in series) - stored - coalesced,
        "hit disk": stored,
        "coalesced memory": coalesced,
        "miss": sum(one.cache_misses for one in series),
        "passes": int(result.backend_stats["forward_passes"]),
        "agreed": store.verified,
        "wrong": store.mismatches,
    }


def _of_metrics(received: Receiver) -> Numbers:
    def by(metric: names.Metric, *labels: str) -> Counter[str]:
        counts = Counter[str]()
        for point in received.points(metric.name):
            given = {one.key: one.value.string_value for one in point.attributes}
            value = getattr(point, point.WhichOneof("value"))
            counts[" ".join(given[label] for label in labels if label in given)] += value
        return counts

    outcomes = by(names.VERIFICATIONS, "outcome")
    passes = by(names.FORWARD_PASSES)[""]
    numbers = {"passes": passes, "agreed": outcomes["match"], "wrong": outcomes["mismatch"]}
    return {**by(names.LOOKUPS, "result", "tier"), **numbers}


def _of_gauges(samples: dict[str, float]) -> Numbers:
    """Return the sums that gauges of a run have."""
    lookups, hits, stored, passes, agreed, wrong = (
        int(samples[metric.name])
        for metric in (
            *(
                run_names.RUN_LOOKUPS,
                run_names.RUN_HITS,
                run_names.RUN_STORE_HITS,
                run_names.RUN_FORWARD_PASSES,
            ),
            *(run_names.RUN_STORE_VERIFIED, run_names.RUN_STORE_MISMATCHES),
        )
    )
    numbers = {"hit disk": stored, "passes": passes, "agreed": agreed, "wrong": wrong}
    return {"memory": hits - stored, "miss": lookups - hits, **numbers}


def _gauges_of_file(path: Path) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if set(sample.labels) == {"suite", "model"}
    }


@pytest.mark.filterwarnings("ignore:.*null_adapter gives only later probes")
def test_all_outputs_agree_on_each_tier(
    invoke: Invoke,
    seen: Viewer,
    loaded: list[ScriptedBackend],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JSONL, spans, result, metrics over OTLP and metrics file; of a cold and of a warm store."""
    suite, store = tmp_path / "suite.yaml", tmp_path / "s.db"
    suite.write_text(NIGHTLY)

    def run(name: str) -> list[Numbers]:
        trace, result, gauges = (tmp_path / f"{name}.{kind}" for kind in ("jsonl", "json", "prom"))
        before = len(seen.spans())
        with receive_http() as receiver:
            invoke(
                *("run", suite, "--store", store, "--verify", 0.5, "--span-budget", "all"),
                *("--otlp", seen.url, "--otlp-metrics", receiver.url, "--metrics-file", gauges),
                *("--trace", trace, "--json", result),
            )
        numbers = [
            _of_trace(trace),
            _of_spans(seen.spans()[before:]),
            _of_result(SuiteResult.model_validate_json(result.read_text())),
            _of_metrics(receiver),
        ]
        found = dict(numbers[0])
        memory = found.pop("hit memory") + found.pop("coalesced memory")
        assert _of_gauges(_gauges_of_file(gauges)) == {"memory": memory, "hit disk": 0, **found}
        return numbers

    def changed(view: ScriptedView, prompt: str) -> object:
        return pseudo_random_logits(view, prompt + (" was another" if view.id == "ft" else ""))

    with monkeypatch.context() as patched:  # the stored values of ft are wrong
        patched.setattr("tests.cli.conftest.pseudo_random_logits", changed)
        cold = run("cold")
    warm = run("warm")
    assert len(loaded) == 2
    assert [+Counter(one) for one in cold] == [+Counter(cold[0])] * 4
    assert [+Counter(one) for one in warm] == [+Counter(warm[0])] * 4
    assert min(warm[0][one] for one in ("hit memory", "hit disk", "agreed", "wrong", "miss")) > 0
    assert cold[0]["passes"] == warm[0]["passes"] + warm[0]["hit disk"]
