"""A run that a real Prometheus scrapes, compared with the run's own result number for number."""

from __future__ import annotations

import math
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from forwardscope.core.keys import view_family
from forwardscope.telemetry.names import METRICS
from forwardscope.telemetry.sweep_names import SWEEP_METRICS

from .processes import Prometheus, Samples, get, key, program, until
from .receivers import Receiver
from .runs import MODEL, NAME, Cli, Run, suite_with_trouble

LAST = "last_over_time({}[10m])"  # a process that has gone leaves no current sample
RUN = {"suite": NAME, "model": MODEL}


@dataclass(frozen=True)
class Scraped:
    """One run, and what Prometheus knows of it.

    Attributes:
        prometheus: To be asked more.
        live: Samples while the run was held in its third probe.
        metadata: Type and help of each family, as Prometheus read them then.
        text: What the endpoint said then.
        final: The last samples after its end.
        run: What it left behind.
    """

    prometheus: Prometheus
    live: Samples
    metadata: dict[str, list[dict[str, str]]]
    text: str
    final: Samples
    run: Run

    def of_run(self, name: str) -> float:
        """The last value of a run gauge."""
        return self.final[key(f"forwardscope_run_{name}", **RUN)]

    def of_backend(self, name: str, **labels: str) -> float:
        """The last value of a backend's metric."""
        return self.final[key(f"forwardscope_{name}", backend=NAME, **labels)]

    def all_of(self, name: str) -> list[tuple[dict[str, str], float]]:
        """The last samples of a name, each with its labels."""
        full = f"forwardscope_{name}"
        return [(dict(labels), n) for (found, labels), n in self.final.items() if found == full]


@pytest.fixture(scope="module")
def scraped(cli: Cli, otlp_grpc: Receiver, prometheus: Callable[..., Prometheus]) -> Scraped:
    options = ("--otlp", otlp_grpc.url, "--metrics-port", 0, "--metrics-linger", 60)
    live = cli.start(suite_with_trouble(), *options, hold=True).until_held()
    text = get(live.metrics_url)
    server = prometheus(urlsplit(live.metrics_url).netloc)
    while_held = until(
        lambda: server.query('{__name__=~"forwardscope_.*"}'), "Prometheus has scraped"
    )
    metadata = server.ask("metadata")
    live.release()
    run = live.finish()
    until(lambda: server.query("up == 0"), "Prometheus notices the end")
    everything = server.query(LAST.format('{__name__=~"forwardscope_.*"}'))
    return Scraped(server, while_held, metadata, text, everything, run)


def test_a_held_run_is_seen_at_work(scraped: Scraped) -> None:
    """While it runs it is active, has no end, and shows verdicts of the probes so far."""
    live = scraped.live
    assert live[key("forwardscope_run_active", **RUN)] == 1
    names = {name for name, _ in live}
    assert "forwardscope_run_end_timestamp_seconds" not in names
    assert "forwardscope_run_last_success_timestamp_seconds" not in names
    finished = {
        dict(labels)["probe"]
        for (name, labels), value in live.items()
        if name.endswith("_probe_verdict") and value == 1
    }
    assert finished == {"noise", "change"}
    before = [one for one in scraped.run.result["series"] if one["probe"] in (None, *finished)]
    assert live[key("forwardscope_run_lookups", **RUN)] == sum(one["lookups"] for one in before)


def test_the_run_had_all_that_is_counted(scraped: Scraped) -> None:
    """The comparisons below are not between zeros."""
    result = scraped.run.result
    assert scraped.run.status == 1
    assert {probe["verdict"] for probe in result["probes"]} == {"pass", "fail", "error"}
    assert min(sum(one[kind] for one in result["series"]) for kind in KINDS) > 0
    assert result["cache"]["evictions"] > 0


KINDS = ("cache_hits", "coalesced", "cache_misses", "forward_passes", "forward_errors")


def _series(result: dict[str, Any], kind: str) -> Counter[tuple[str, str, str]]:
    """Counts of the result by the labels that metrics have."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for one in result["series"]:
        counts[one["probe"] or "", view_family(one["view_id"]), one["op"]] += one[kind]
    return counts


def _by_labels(samples: list[tuple[dict[str, str], float]]) -> dict[tuple[str, str, str], float]:
    """Counts by labels; what was expected and never asked stays at 0 and is left out."""
    assert {labels["backend"] for labels, _ in samples} == {NAME}
    return {(lab.get("probe", ""), lab["view"], lab["op"]): n for lab, n in samples if n}


def test_lookups_are_those_of_the_result(scraped: Scraped) -> None:
    """By probe, view family and op, hits, misses and coalesced lookups are the result's."""
    result, samples = scraped.run.result, scraped.all_of("cache_lookups_total")
    by_result = {
        kind: _by_labels([one for one in samples if one[0]["result"] == kind])
        for kind in ("hit", "miss", "coalesced")
    }
    hits, coalesced = _series(result, "cache_hits"), _series(result, "coalesced")
    assert by_result["coalesced"] == +coalesced
    assert by_result["hit"] == hits - coalesced
    assert by_result["miss"] == +_series(result, "cache_misses")


def test_passes_and_seconds_are_those_of_the_result(scraped: Scraped) -> None:
    """Forward passes are equal, and so are seconds but for the rounding of their sum."""
    result = scraped.run.result
    passes = _by_labels(scraped.all_of("forward_passes_total"))
    assert passes == +_series(result, "forward_passes")
    seconds = _by_labels(scraped.all_of("scoring_seconds_total"))
    assert seconds == pytest.approx(dict(_series(result, "scoring_wall_s")))


def test_errors_are_told_by_type(scraped: Scraped) -> None:
    """Each failed pass is counted under the class of its exception."""
    samples = scraped.all_of("forward_errors_total")
    assert {labels["error_type"] for labels, _ in samples} == {"RuntimeError"}
    errors = +_series(scraped.run.result, "forward_errors")
    assert _by_labels(samples) == errors


def test_histograms_count_passes_and_batches(scraped: Scraped) -> None:
    """Durations are as many as passes that succeeded, batches as the result has them."""
    stats = scraped.run.result["backend_stats"]
    counts = scraped.all_of("forward_duration_seconds_count")
    assert sum(n for _, n in counts) == stats["forward_passes"]
    spent = sum(one["forward_s"] for one in scraped.run.result["series"])
    assert 0 < sum(n for _, n in scraped.all_of("forward_duration_seconds_sum")) <= spent
    assert scraped.of_backend("batch_prompts_count") == stats["batches_sent"]
    assert scraped.of_backend("batch_prompts_sum") == stats["batched_prompts"]
    assert scraped.of_backend("batch_prompts_max") == stats["max_batch_size"]


def test_cache_is_that_of_the_result(scraped: Scraped) -> None:
    """Entries, bytes, bounds, evictions and rejections are the result's."""
    cache = scraped.run.result["cache"]
    assert scraped.of_backend("cache_entries") == cache["entries"]
    assert scraped.of_backend("cache_bytes") == cache["bytes"]
    assert scraped.of_backend("cache_max_entries") == cache["max_entries"]
    assert scraped.of_backend("cache_evictions_total") == cache["evictions"]
    assert scraped.of_backend("cache_rejections_total") == cache["rejections"]
    assert not scraped.all_of("cache_max_bytes")


def test_records_and_spans_are_those_of_the_result(scraped: Scraped) -> None:
    """After the last scrape, records and spans by outcome are what the run reconciled."""
    reconciled = scraped.run.result["reconciliation"]
    assert scraped.of_backend("trace_records_total") == len(scraped.run.records)
    assert scraped.of_backend("trace_records_total") == reconciled["trace_records"]
    assert scraped.of_backend("trace_write_errors_total") == 0
    spans = scraped.all_of("spans_total")
    lookups = {labels["outcome"]: n for labels, n in spans if labels["span"] == "lookup"}
    assert lookups == reconciled["spans"] == {"exported": scraped.run.lookups}
    assert sum(n for _, n in spans) == scraped.run.spans_exported


def test_run_gauges_are_those_of_the_result(scraped: Scraped) -> None:
    """The gauges of a run that did not pass: over, without a success, with its totals."""
    result = scraped.run.result
    stats, series = result["backend_stats"], result["series"]
    assert scraped.of_run("active") == 0
    assert scraped.of_run("lookups") == scraped.run.lookups
    assert scraped.of_run("hits") == stats["cache_hits"]
    assert scraped.of_run("forward_passes") == stats["forward_passes"]
    assert scraped.of_run("forward_seconds") == pytest.approx(sum(s["forward_s"] for s in series))
    assert scraped.of_run("errors") == sum(one["forward_errors"] for one in series)
    assert scraped.of_run("evictions") == result["cache"]["evictions"]
    assert scraped.of_run("wall_seconds") == result["wall_s"]
    assert scraped.of_run("period_seconds") == result["period_s"]
    assert scraped.of_run("spans_dropped") == scraped.of_run("trace_write_errors") == 0
    assert not scraped.all_of("run_last_success_timestamp_seconds")
    start, end = scraped.of_run("start_timestamp_seconds"), scraped.of_run("end_timestamp_seconds")
    assert start < scraped.of_run("progress_timestamp_seconds") == end


def test_run_info_names_the_run(scraped: Scraped) -> None:
    """One sample tells adapter, run id, trace id and device."""
    result = scraped.run.result
    ids = {name: result[name] for name in ("adapter", "run_id", "trace_id", "device")}
    assert scraped.all_of("run_info") == [({**RUN, **ids}, 1)]


def test_probe_gauges_are_those_of_the_result(scraped: Scraped) -> None:
    """Scores, durations and verdicts of all probes are the result's."""
    probes = scraped.run.result["probes"]
    fields = {
        "score": "score",
        "raw": "raw",
        "z_score": "z_score",
        "duration_seconds": "duration_s",
    }
    for metric, field in fields.items():
        samples = [(of, n) for of, n in scraped.all_of(f"probe_{metric}") if not math.isnan(n)]
        expected = {one["name"]: one[field] for one in probes if one[field] is not None}
        assert {labels["probe"]: n for labels, n in samples} == expected
    verdicts = scraped.all_of("probe_verdict")
    given = {labels["probe"]: labels["verdict"] for labels, n in verdicts if n == 1}
    assert given == {one["name"]: one["verdict"] for one in probes}
    assert len(verdicts) == 4 * len(probes) == 4 * sum(n for _, n in verdicts)


def test_exemplars_lead_to_the_trace(scraped: Scraped) -> None:
    """Prometheus stores exemplars of the histogram, and their trace is the run's."""
    until(lambda: _exemplars(scraped.prometheus), "exemplars are stored", patience_s=10)
    assert _exemplars(scraped.prometheus) == {scraped.run.result["trace_id"]}


def _exemplars(prometheus: Prometheus) -> set[str]:
    found = prometheus.ask(
        "query_exemplars",
        query="forwardscope_forward_duration_seconds_bucket",
        start="2000-01-01T00:00:00Z",
        end="2100-01-01T00:00:00Z",
    )
    return {exemplar["labels"]["trace_id"] for one in found for exemplar in one["exemplars"]}


def test_promtool_has_nothing_to_say(scraped: Scraped) -> None:
    """The exposition of a live run passes promtool's checks without a remark."""
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=scraped.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_examples_are_promql(scraped: Scraped, metric: Any) -> None:
    """Prometheus accepts the example query of each metric, which is about that metric."""
    assert metric.name.removesuffix("_total") in metric.example
    scraped.prometheus.ask("query", query=metric.example)


def test_every_metric_came_out_of_the_run(scraped: Scraped) -> None:
    """There is a sample of each, but for what the run did not have: a bound, a store, a sweep."""
    absent = {
        "forwardscope_cache_max_bytes",
        "forwardscope_cache_verifications_total",
        "forwardscope_run_last_success_timestamp_seconds",
    }
    absent |= {metric.name for metric in METRICS if {"store", "server"} & {*metric.labels}}
    absent |= {metric.name for metric in SWEEP_METRICS}
    seen = {name.removesuffix("_count") for name, _ in scraped.final}
    assert {metric.name for metric in METRICS} - seen == absent


def test_prometheus_reads_type_and_help(scraped: Scraped) -> None:
    """What Prometheus says of each metric is what names.py says."""
    known = {one.name.removesuffix("_total"): (one.kind, one.help) for one in METRICS}
    read = {
        name.removesuffix("_total"): (one["type"], one["help"])
        for name, (one, *_) in scraped.metadata.items()
        if name.startswith("forwardscope_")
    }
    assert read == {name: known[name] for name in read}
    assert len(read) > len(known) / 2
