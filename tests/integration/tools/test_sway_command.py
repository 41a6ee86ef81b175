"""`forwardscope sway`: dlm-sway's own command line, run through ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from forwardscope import TraceReader
from forwardscope.suite.result import SuiteResult

from ..conftest import Zoo
from .sway_suites import PROBES, model

pytestmark = pytest.mark.filterwarnings("default")

_PLAIN = "from dlm_sway.cli.app import app; app(prog_name='sway')"


@pytest.fixture
def suite_file(zoo: Zoo, tmp_path: Path) -> Path:
    """A suite of three probes."""
    spec = json.loads(model(zoo).model_dump_json())
    probes = [{"name": f"my-{one['kind']}", **one} for one in PROBES[:2] + PROBES[4:5]]
    content = {"version": 1, "models": {"base": spec, "ft": spec}, "suite": probes}
    file = tmp_path / "sway.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def _sway(*arguments: str, ours: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run dlm-sway, through ours where options of ours are given."""
    program = ["-c", _PLAIN] if ours is None else ["-m", "forwardscope", "sway", *ours, "--"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def _without_times(output: str) -> list[str]:
    return [line for line in output.splitlines() if "wall" not in line and "wrote" not in line]


def _values(file: Path) -> list[tuple[Any, ...]]:
    probes = json.loads(file.read_text())["probes"]
    return [(one["name"], one["verdict"], one["raw"]) for one in probes]


def test_a_run_is_as_without_us_and_the_second_computes_nothing(
    suite_file: Path, tmp_path: Path
) -> None:
    """Equal reports on stdout; result, trace and metrics agree and name the probes."""
    plain = _sway("run", str(suite_file), "--json", str(tmp_path / "plain.json"))
    assert plain.returncode == 0, plain.stderr
    names = ("s.db", "r.json", "t.jsonl", "m.prom", "sway.json", "sway.jsonl")
    files = {name: tmp_path / name for name in names}
    ours = [
        *("--store", str(files["s.db"]), "--json", str(files["r.json"]), "--name", "nightly"),
        *("--trace", str(files["t.jsonl"]), "--metrics-file", str(files["m.prom"])),
    ]
    given = ["run", str(suite_file), "--json", str(files["sway.json"])]
    for warm in (False, True):
        for name in ("t.jsonl", "sway.jsonl"):
            files[name].unlink(missing_ok=True)
        done = _sway(*given, "--trace", str(files["sway.jsonl"]), ours=ours)
        assert done.returncode == 0, done.stderr
        assert _without_times(done.stdout) == _without_times(plain.stdout)
        result = SuiteResult.model_validate_json(files["r.json"].read_text())
        assert [one.name for one in result.probes] == [
            *("my-null_adapter", "my-delta_kl", "my-calibration_drift")
        ]
        assert result.reconciliation.holds
        assert (result.backend_stats["forward_passes"] == 0) is warm
        assert result.tuned_identity
        traces = [list(TraceReader(files[name])) for name in ("t.jsonl", "sway.jsonl")]
        assert (
            len(traces[0])
            == result.backend_stats["cache_hits"] + (result.backend_stats["cache_misses"])
        )
        assert traces[0] == traces[1]
        assert "forwardscope_probe_score{" in files["m.prom"].read_text()
    values = [
        [
            (one["name"], one["verdict"], one["raw"])
            for one in json.loads(file.read_text())["probes"]
        ]
        for file in (tmp_path / "plain.json", files["sway.json"])
    ]
    assert values[0] == values[1]
    assert _sway("trace", str(files["sway.jsonl"])).returncode == 0


def test_the_status_of_a_gate_is_its_own(suite_file: Path) -> None:
    """It is that of dlm-sway without us, for a threshold that holds and one that does not."""
    for threshold in ("0.0", "1.0"):
        given = ["gate", str(suite_file), "--threshold", threshold]
        plain, done = _sway(*given), _sway(*given, ours=[])
        assert done.returncode == plain.returncode
        assert _without_times(done.stdout) == _without_times(plain.stdout)
        assert "forward passes" in done.stderr


def test_each_of_two_suites_has_its_files(zoo: Zoo, suite_file: Path, tmp_path: Path) -> None:
    """`diff` is two runs, of which the second finds the base in the store."""
    ours = ["--store", str(tmp_path / "s.db"), "--json", str(tmp_path / "r.json"), "-q"]
    adapters = ["--a", str(zoo.path("llama_lora")), "--b", str(zoo.path("llama_other"))]
    done = _sway("diff", str(suite_file), *adapters, ours=ours)
    assert done.returncode == 0, done.stderr
    first, second = (
        SuiteResult.model_validate_json((tmp_path / name).read_text())
        for name in ("r.json", "r-2.json")
    )
    assert first.base_identity == second.base_identity
    assert first.tuned_identity != second.tuned_identity
    passes = [one.backend_stats["forward_passes"] for one in (first, second)]
    assert passes[1] < passes[0]


def test_mistakes_are_one_sentence(suite_file: Path, tmp_path: Path) -> None:
    """Those of dlm-sway are its own; ours come before a model is loaded."""
    for arguments in (["frobnicate"], ["run", "no.yaml"], ["run"]):
        plain, done = _sway(*arguments), _sway(*arguments, ours=[])
        assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    for option in (["--json", str(tmp_path)], ["--store", str(suite_file)]):
        done = _sway("run", str(suite_file), ours=option)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_other_commands_say_that_nothing_was_cached(suite_file: Path) -> None:
    """Their output is dlm-sway's own."""
    for arguments in (["list-probes"], ["run", str(suite_file), "--dry-run"]):
        plain, done = _sway(*arguments), _sway(*arguments, ours=[])
        assert (done.returncode, done.stdout) == (0, plain.stdout)
        assert done.stderr == f"sway {arguments[0]} has run no suite: nothing was cached\n"
