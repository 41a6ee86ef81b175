"""The demo, run as a user runs it: a real model, a real adapter, all four probes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from forwardscope import TraceReader
from forwardscope.suite import SuiteResult, plan_suite
from forwardscope.suite.loading import parse_suite

EIGHT_KEYS = ["ts", "probe", "view_id", "prompt_hash", "top_k", "op", "wall_ms", "hit"]


@dataclass(frozen=True)
class DemoRun:
    """What one run of the demo left behind."""

    process: subprocess.CompletedProcess[str]
    trace: Path
    result: dict[str, Any]

    def raw_values(self) -> dict[str, float | None]:
        return {probe["name"]: probe["raw"] for probe in self.result["probes"]}


def run_demo(folder: Path, cache: Path, *options: str) -> DemoRun:
    folder.mkdir()
    trace, result = folder / "t.jsonl", folder / "r.json"
    command = [sys.executable, "-m", "forwardscope", "demo", *options]
    process = subprocess.run(
        [*command, "--trace", str(trace), "--json", str(result)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "COLUMNS": "100", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return DemoRun(process, trace, json.loads(result.read_text()))


def store_of(cache: Path) -> str:
    return str(cache / "store.db")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path) -> DemoRun:
    return run_demo(
        tmp_path_factory.mktemp("runs") / "first", demo_cache, "--store", store_of(demo_cache)
    )


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, first: DemoRun) -> DemoRun:
    return run_demo(
        tmp_path_factory.mktemp("runs") / "again", demo_cache, "--store", store_of(demo_cache)
    )


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, first: DemoRun) -> DemoRun:
    return run_demo(tmp_path_factory.mktemp("runs") / "second", demo_cache, "--no-cache")


def test_report_shows_all_four_probes_and_a_hit_rate(first: DemoRun) -> None:
    """The report has a row a probe, and the cache answered something."""
    kinds = {probe["kind"] for probe in first.result["probes"]}
    assert kinds == {"null_adapter", "delta_kl", "adapter_ablation", "prompt_collapse"}
    for probe in first.result["probes"]:
        assert probe["name"] in first.process.stdout
        assert probe["verdict"] in ("pass", "fail")
    assert first.result["backend_stats"]["hit_rate"] > 0
    stats = first.result["backend_stats"]
    lookups = stats["cache_hits"] + stats["cache_misses"]
    assert f"cache: {stats['cache_hits']} of {lookups} lookups" in first.process.stdout
    assert f"reconciled: {lookups} lookups = {lookups} trace records" in first.process.stdout
    assert first.result["expected_forward_passes"] == stats["forward_passes"] == 80


def test_the_plan_is_what_the_demo_did(first: DemoRun) -> None:
    """Pass for pass, by probe, view and op; planned without a model."""
    text = (files("forwardscope.suite") / "demo.yaml").read_text()
    planned = plan_suite(parse_suite(text, "demo.yaml"))
    assert {key: counts.forward_passes for key, counts in planned.series.items()} == {
        (one["probe"], one["view_id"], one["op"]): one["forward_passes"]
        for one in first.result["series"]
    }
    lookups = {(one["probe"], one["view_id"]): one["lookups"] for one in first.result["series"]}
    asked = {(key.probe, key.view_id): counts.lookups for key, counts in planned.series.items()}
    assert asked == lookups


def test_trace_and_result_agree(first: DemoRun) -> None:
    """Lines of the trace are the lookups of the result, hit for hit and miss for miss."""
    lines = [json.loads(line) for line in first.trace.read_text().splitlines()]
    stats = first.result["backend_stats"]
    assert all(list(line)[:8] == EIGHT_KEYS for line in lines)
    assert Counter(line["hit"] for line in lines) == {
        True: stats["cache_hits"],
        False: stats["cache_misses"],
    }
    assert sum(probe["stats"]["lookups"] for probe in first.result["probes"]) == sum(
        line["probe"] is not None for line in lines
    )
    assert {line["run_id"] for line in lines} == {first.result["run_id"]}


def test_trace_is_read_back_whole(first: DemoRun) -> None:
    """The reader skips nothing, and every forward pass tells its tokens."""
    reader = TraceReader(first.trace)
    events = list(reader)
    assert reader.skipped == 0
    assert all(event.tokens for event in events if not event.hit)


def test_result_file_is_read_back(first: DemoRun) -> None:
    """The JSON is a SuiteResult of schema version 1."""
    assert SuiteResult.model_validate(first.result).schema_version == 2


def test_second_run_makes_nothing_again(first: DemoRun, second: DemoRun) -> None:
    """Model, adapter and identity are the first run's, and it says nothing of unpacking."""
    assert second.result["model"] == first.result["model"]
    assert second.result["adapter"] == first.result["adapter"]
    assert second.result["identity"] == first.result["identity"]


def test_cache_changes_no_value(first: DemoRun, second: DemoRun) -> None:
    """With the cache off every question is paid for, and the values are the same."""
    assert second.result["cache"]["entries"] == 0
    assert (
        second.result["backend_stats"]["forward_passes"]
        > (first.result["backend_stats"]["forward_passes"])
    )
    paid_once, paid_each_time = first.raw_values(), second.raw_values()
    assert paid_once["baseline"] is paid_each_time["baseline"] is None
    measured = {name: raw for name, raw in paid_once.items() if name != "baseline"}
    assert measured == pytest.approx({name: paid_each_time[name] for name in measured}, rel=1e-3)


def test_a_store_leaves_verification_alone(
    demo_cache: Path, first: DemoRun, again: DemoRun
) -> None:
    """Every pass of the first run is a hit of the next one; its scores are the same.

    Trace, result and report tell the same of it.
    """
    passes, result = first.result["backend_stats"]["forward_passes"], again.result
    assert result["backend_stats"]["forward_passes"] == 0
    assert again.raw_values() == first.raw_values()

    lines = [json.loads(line) for line in again.trace.read_text().splitlines()]
    assert Counter(line.get("tier") for line in lines) == {
        "disk": passes,
        None: len(lines) - passes,
    }
    verified = sum(line.get("verified") is True for line in lines)
    assert not any(line.get("verified") is False for line in lines)
    views = {one["view_id"] for one in result["series"]}
    assert len(views) <= verified < passes

    store = result["store"]
    assert (store["hits"], store["verified"], store["mismatches"]) == (passes, verified, 0)
    assert sum(one["store_hits"] for one in result["series"]) == passes
    said = f"store: {passes} of {passes} forward passes answered from disk ({store_of(demo_cache)})"
    said += f", {verified} verified"
    assert said.replace(" ", "") in "".join(again.process.stdout.split())
