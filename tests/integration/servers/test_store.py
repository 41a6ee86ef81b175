"""Runs that share a store: trace, spans, result, Pushgateway and Prometheus agree on each tier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from .processes import Prometheus, Pushgateway, Samples, free_port, key, until
from .receivers import Receiver, attributes
from .runs import MODEL, NAME, Cli, Run, suite

_LAST = 'last_over_time({__name__=~"forwardscope_.*"}[10m])'
#: Lookups by result and tier, forward passes, and verified values by outcome.
Numbers = Counter[str]


def of_result(run: Run) -> Numbers:
    """The numbers of the result."""
    series, store = run.result["series"], run.result["store"]
    names = ("cache_hits", "coalesced", "cache_misses", "store_hits")
    hits, coalesced, misses, stored = (sum(one[name] for one in series) for name in names)
    assert stored == store["hits"]
    return Counter(
        {
            "hit memory": hits - coalesced - stored,
            "hit disk": stored,
            "coalesced memory": coalesced,
            "miss": misses,
            "passes": run.paid,
            "match": store["verified"],
            "mismatch": store["mismatches"],
        }
    )


def of_trace(run: Run) -> Numbers:
    """The numbers of the JSONL trace."""
    numbers: Numbers = Counter()
    for one in run.records:
        tier = one.get("tier", "memory")
        numbers[f"{one.get('result', 'hit')} {tier}" if one["hit"] else "miss"] += 1
        numbers["passes"] += not one["hit"] and "error" not in one
        if "verified" in one:
            numbers["match" if one["verified"] else "mismatch"] += 1
    return numbers


def of_spans(run: Run, receiver: Receiver) -> Numbers:
    """The numbers of the spans that were exported."""
    numbers: Numbers = Counter()
    for span in receiver.wait_for(run.result["trace_id"], run.spans_exported):
        own = {name.removeprefix("forwardscope."): n for name, n in attributes(span).items()}
        if "cache.result" in own:
            result, tier = own["cache.result"], own.get("cache.tier", "memory")
            numbers["miss" if result == "miss" else f"{result} {tier}"] += 1
            if "cache.verified" in own:
                numbers["match" if own["cache.verified"] else "mismatch"] += 1
        elif "batch.size" in own and "verification" not in own:
            numbers["passes"] += own["batch.size"]
    return numbers


def of_prometheus(samples: Samples) -> Numbers:
    """The numbers of the backend's counters."""
    numbers: Numbers = Counter()
    for (name, labels), value in samples.items():
        own = dict(labels)
        if name == "forwardscope_cache_lookups_total":
            numbers[f"{own['result']} {own.get('tier', '')}".strip()] += int(value)
        elif name == "forwardscope_cache_verifications_total":
            numbers[own["outcome"]] += int(value)
        elif name == "forwardscope_forward_passes_total":
            numbers["passes"] += int(value)
    return numbers


def gauges(samples: Samples, **group: str) -> dict[str, float]:
    """The gauges of a run that are about its store and its passes."""
    names = ("store_hits", "store_verified", "store_mismatches", "store_corrupt", "store_dropped")
    return {
        name: samples[key(f"forwardscope_run_{name}", suite=NAME, model=MODEL, **group)]
        for name in (*names, "store_errors", "forward_passes")
    }


def test_all_agree_on_each_tier(
    cli: Cli,
    otlp_http: Receiver,
    pushgateway: Pushgateway,
    prometheus: Callable[..., Prometheus],
    tmp_path: Path,
) -> None:
    """A run fills a store; the next finds most in it, verifies half, and computes what is new."""
    port = free_port()
    server = prometheus(f"127.0.0.1:{port}", urlsplit(pushgateway.url).netloc)
    exported = ("--otlp", otlp_http.url, "--pushgateway", pushgateway.url, "--span-budget", "all")
    scraped = ("--metrics-port", port, "--metrics-linger", 60)
    options = ("--store", tmp_path / "s.db", "--verify", 0.5)
    spec = suite(cache={"max_entries": 64})
    cold = cli.run(spec, *options, *exported)
    assert cold.result["store"]["hits"] == 0
    more = {"name": "more", "kind": "delta_kl", "prompts": ["new", "a"], "min_mean": 0.000001}
    spec["probes"].append({**more, "min_z": 0.000001})
    warm = cli.run(spec, *options, *exported, *scraped)
    assert (cold.status, warm.status) == (0, 0)

    expected = of_result(warm)
    assert min(expected[one] for one in ("hit memory", "hit disk", "miss", "match")) > 0
    assert expected["match"] < expected["hit disk"]
    assert expected["passes"] + expected["hit disk"] == warm.planned
    assert of_trace(warm) == of_spans(warm, otlp_http) == +expected
    info = key("forwardscope_run_info", **_info(warm))
    until(lambda: info in server.query(_LAST), "Prometheus has the run")
    final = server.query(_LAST)
    assert +of_prometheus(final) == +expected

    store = warm.result["store"]
    run = {
        "store_hits": store["hits"],
        "store_verified": store["verified"],
        "store_mismatches": 0,
        "store_corrupt": 0,
        "store_dropped": 0,
        "store_errors": 0,
        "forward_passes": warm.paid,
    }
    assert gauges(final) == gauges(pushgateway.samples(), job="forwardscope", instance="") == run
    pushed = ("forwardscope_run_store_hits", "exported_job", "forwardscope")
    assert any(name == pushed[0] and pushed[1:] in labels for name, labels in final)
    own = {"backend": NAME, "store": store["name"]}
    for name in ("entries", "bytes", "max_bytes"):
        assert final[key(f"forwardscope_store_{name}", **own)] == store[name]
    assert final[key("forwardscope_store_unavailable", **own)] == 0
    operations = "forwardscope_store_operation_duration_seconds_count"
    asked = final[key(operations, operation="get", **own)]
    assert asked > 0


def _info(run: Run) -> dict[str, str]:
    names = ("adapter", "run_id", "trace_id", "device")
    return {"suite": NAME, "model": MODEL} | {name: str(run.result[name]) for name in names}
