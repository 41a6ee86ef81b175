"""`forwardscope demo` with every way out open, against real servers and the real model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from forwardscope.telemetry.names import kind_of

from .demos import Demo
from .processes import Prometheus, Pushgateway, Samples, free_port, run_pushgateway
from .receivers import Receiver, attributes


@dataclass(frozen=True)
class Watched:
    """A run with every way out open, and what arrived."""

    demo: Demo
    spans: list[Any]
    scraped: Samples
    pushed: Samples


@pytest.fixture(scope="module")
def watched(
    demo: Callable[..., Demo],
    otlp_http: Receiver,
    prometheus: Callable[..., Prometheus],
    tmp_path_factory: pytest.TempPathFactory,
) -> Watched:
    port = free_port()
    server = prometheus(f"127.0.0.1:{port}")
    with run_pushgateway(tmp_path_factory.mktemp("gateway")) as gateway:
        options = ("--otlp", otlp_http.url, "--metrics-port", port, "--metrics-linger", 60)
        ran = demo(*options, "--pushgateway", gateway.url)
        pushed = Pushgateway.samples(gateway)
    (exported,) = (one for one in ran.result["delivery"] if one["to"].startswith("OTLP"))
    number = int(exported["what"].split()[0])
    spans = otlp_http.wait_for(ran.result["trace_id"], number)
    scraped = server.query('last_over_time({__name__=~"forwardscope_.*"}[10m])')
    return Watched(ran, spans, scraped, pushed)


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all samples of a name that have some labels."""
    wanted = set(labels.items())
    return sum(n for (found, own), n in samples.items() if found == name and wanted <= own)


def test_the_numbers_are_the_same_on_every_side(watched: Watched) -> None:
    """Lookups are as many in the result, the trace, on the wire, in Prometheus and the gateway."""
    result = watched.demo.result
    lookups = result["reconciliation"]["lookups"]
    assert result["reconciliation"]["holds"] is True
    assert lookups == len(watched.demo.records) > 100
    kinds = Counter(kind_of(span.name) for span in watched.spans)
    elided = result["reconciliation"]["spans"].get("elided", 0)
    assert kinds["lookup"] + elided == lookups
    assert kinds["probe"] == len(result["probes"]) + 1 == 5  # and the check for finite values
    assert kinds["suite"] == 1
    assert total(watched.scraped, "forwardscope_cache_lookups_total") == lookups
    assert total(watched.scraped, "forwardscope_run_lookups") == lookups
    assert total(watched.pushed, "forwardscope_run_lookups") == lookups
    assert total(watched.scraped, "forwardscope_trace_records_total") == lookups
    exported = {"span": "lookup", "outcome": "exported"}
    assert total(watched.scraped, "forwardscope_spans_total", **exported) == lookups - elided


def test_hits_and_passes_are_the_same_on_every_side(watched: Watched) -> None:
    """So are the lookups that paid no forward pass, and the passes."""
    stats = watched.demo.result["backend_stats"]
    results = Counter(
        attributes(span)["forwardscope.cache.result"]
        for span in watched.spans
        if kind_of(span.name) == "lookup"
    )
    assert results["hit"] + results["coalesced"] == stats["cache_hits"]
    assert sum(record["hit"] for record in watched.demo.records) == stats["cache_hits"]
    assert total(watched.pushed, "forwardscope_run_hits") == stats["cache_hits"]
    passes = stats["forward_passes"]
    assert results["miss"] == passes
    forwards = [attributes(span) for span in watched.spans if kind_of(span.name) == "forward"]
    assert sum(one["forwardscope.batch.size"] for one in forwards) == passes
    assert total(watched.scraped, "forwardscope_forward_passes_total") == passes
    assert total(watched.scraped, "forwardscope_forward_duration_seconds_count") == passes
    assert total(watched.pushed, "forwardscope_run_forward_passes") == passes


def test_tokens_on_the_wire_are_those_of_the_trace(watched: Watched) -> None:
    """The model tells how many tokens each pass had; spans and records have the same sum."""
    forwards = [attributes(span) for span in watched.spans if kind_of(span.name) == "forward"]
    tokens = sum(one["gen_ai.usage.input_tokens"] for one in forwards)
    assert tokens == sum(record.get("tokens", 0) for record in watched.demo.records) > 1000
    models = {one["gen_ai.request.model"] for one in forwards}
    model, adapter = watched.demo.result["model"], watched.demo.result["adapter"]
    assert models == {model, f"{adapter} on {model}"}


def test_the_report_says_that_all_of_it_arrived(watched: Watched) -> None:
    """Every way out is named with what went there."""
    assert [one["ok"] for one in watched.demo.result["delivery"]] == [True, True, True]
    for one in watched.demo.result["delivery"]:
        assert f"{one['to']}: {one['what']}" in watched.demo.stdout


def test_telemetry_changes_no_value(watched: Watched, demo: Callable[..., Demo]) -> None:
    """What the probes measure is equal bit for bit without any of it."""
    assert demo().values == watched.demo.values
