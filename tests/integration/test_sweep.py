"""A sweep of real models, from the command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from forwardscope.cli.app import app
from forwardscope.core.keys import view_family
from forwardscope.suite import SuiteResult
from forwardscope.sweep import SweepResult

SUITE = """version: 1
model: {{path: {model}, adapter: {adapter}, device: cpu}}
exactness: {exactness}
cache: {{verify: 0}}
probes:
  - {{name: baseline, kind: null_adapter, runs: 2, sentinel_prompts: [hello there]}}
  - {{name: change, kind: delta_kl, prompts: [the cat, the other cats, hello world]}}
  - {{name: damage, kind: perplexity_shift, texts: [the cat sat on the mat, hello there world]}}
"""
ADAPTERS = ["llama_lora", "llama_head", "broken", "llama_dora", "llama_other"]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Call a command in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def adapters(zoo: Any, tmp_path: Path, copy_of: Callable[[str], Path]) -> list[str]:
    """Return `--adapter` options of good adapters, with a broken one among them."""
    broken = copy_of("llama_head").rename(tmp_path / "broken")
    weights = broken / "adapter_model.safetensors"
    save_file(dict(list(load_file(weights).items())[:-1]), weights)
    places = [str(broken) if name == "broken" else str(zoo.path(name)) for name in ADAPTERS]
    return [word for place in places for word in ("--adapter", place)]


def _write_suite(zoo: Any, folder: Path, exactness: str) -> Path:
    text = SUITE.format(
        model=zoo.path("llama"), adapter=zoo.path("llama_lora"), exactness=exactness
    )
    (folder / "suite.yaml").write_text(text)
    return folder / "suite.yaml"


def _result(path: Path) -> SuiteResult:
    return SuiteResult.model_validate_json(path.read_bytes())


def _measured(result: SuiteResult) -> list[object]:
    values = [(one.name, one.verdict, one.raw, one.score, one.z_score) for one in result.probes]
    return [values, result.identity, result.tuned_identity, result.base_identity, result.warnings]


@pytest.mark.parametrize("exactness", ["strict", "fast"])
def test_sweep_has_the_results_of_separate_runs(
    zoo: Any, tmp_path: Path, invoke: Callable[..., Result], adapters: list[str], exactness: str
) -> None:
    """Each adapter has the values of a run of its own; a broken one is an ERROR row."""
    suite = _write_suite(zoo, tmp_path, exactness)
    swept = invoke("sweep", suite, *adapters, "-o", "swept")
    assert swept.exit_code == 1, swept.output
    result = SweepResult.model_validate_json((tmp_path / "swept" / "sweep.json").read_bytes())
    assert [row.label for row in result.rows] == ADAPTERS
    assert [row.status == "error" for row in result.rows] == [name == "broken" for name in ADAPTERS]
    assert "lacks 1 tensor" in (result.rows[2].error or "") or "missing" in result.events[0]
    for row in result.rows:
        if row.status != "error":
            alone = tmp_path / f"{row.label}.json"
            invoke("run", suite, "--adapter", row.adapter, "--no-store", "--json", alone)
            own = _result(tmp_path / "swept" / row.folder / "result.json")
            assert _measured(own) == _measured(_result(alone)), row.label


def test_base_is_paid_for_once_and_the_second_sweep_pays_nothing(
    zoo: Any, tmp_path: Path, invoke: Callable[..., Result], adapters: list[str]
) -> None:
    """The first adapter pays for the base; the folder has traces, reports and a page."""
    suite = _write_suite(zoo, tmp_path, "fast")
    invoke("sweep", suite, *adapters, "-o", "swept")
    paid: list[Counter[str]] = []
    for name in ADAPTERS:
        if name == "broken":
            continue
        folder = tmp_path / "swept" / "runs" / name
        result, passes = _result(folder / "result.json"), Counter()
        for one in result.series:
            passes[view_family(one.view_id)] += one.forward_passes
        paid.append(passes)
        assert result.reconciliation.holds
        traced = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
        assert len(traced) == result.reconciliation.lookups
        assert (folder / "report.html").is_file()
    assert paid[0]["base"] > 0
    assert [one["base"] for one in paid[1:]] == [0, 0, 0]
    assert all(one["ft"] == paid[0]["ft"] for one in paid)
    again = invoke("sweep", suite, *adapters, "-o", "swept")
    assert "forward passes: none" in again.stdout
    assert "4 adapters kept from before" in again.stdout
    page = (tmp_path / "swept" / "report.html").read_text()
    assert page.count("<figure>") == 2  # the calibration has no score
    assert "runs/llama_dora/report.html" in page
