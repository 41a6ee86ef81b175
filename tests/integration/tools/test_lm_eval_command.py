"""`forwardscope lm-eval`: the harness's own command line, run through ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lm_eval.api.registry import register_model

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.integrations.lm_eval_run import run_harness
from forwardscope.integrations.tool_run import ToolRun
from forwardscope.suite.result import SuiteResult
from forwardscope.suite.spec import SuiteSpec

from ..conftest import Zoo
from .harness import CountingLM, write_tasks

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Tasks over local files."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    return write_tasks(folder)


def _harness(*arguments: str, ours: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the harness, through ours where options of ours are given."""
    program = ["lm_eval"] if ours is None else ["forwardscope", "lm-eval", *ours, "--"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", *program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def _arguments(zoo: Zoo, tasks: Path, *more: str) -> list[str]:
    model = f"pretrained={zoo.path('llama')},dtype=float32"
    return [
        *("run", "--model", "hf", "--model_args", model, "--device", "cpu", "--batch_size", "4"),
        *("--include_path", str(tasks), "--tasks", "choice,rolling,generate,sampled", *more),
    ]


def _values(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("|") and "sampled" not in line]


def test_a_run_is_as_without_us_and_the_second_computes_nothing(
    zoo: Zoo, tasks: Path, tmp_path: Path
) -> None:
    """Equal tables on stdout; result, trace and metrics file agree and name the tasks."""
    plain = _harness(*_arguments(zoo, tasks))
    assert plain.returncode == 0, plain.stderr
    files = {name: tmp_path / name for name in ("s.db", "r.json", "t.jsonl", "m.prom")}
    ours = [
        *("--store", str(files["s.db"]), "--json", str(files["r.json"]), "--name", "nightly"),
        *("--trace", str(files["t.jsonl"]), "--metrics-file", str(files["m.prom"])),
    ]
    for expected in ({"choice": 15, "rolling": 5, "generate": 5, "sampled": 10}, {"sampled": 10}):
        files["t.jsonl"].unlink(missing_ok=True)
        done = _harness(*_arguments(zoo, tasks), ours=ours)
        assert done.returncode == 0, done.stderr
        assert _values(done.stdout) == _values(plain.stdout)
        result = SuiteResult.model_validate_json(files["r.json"].read_text())
        assert {one.name: one.stats.forward_passes for one in result.probes} == {
            **dict.fromkeys(("choice", "rolling", "generate"), 0),
            **expected,
        }
        assert (result.suite, result.model) == ("nightly", str(zoo.path("llama")))
        assert result.reconciliation.holds
        records = list(TraceReader(files["t.jsonl"]))
        assert sum(one.bypassed is True for one in records) == 10
        assert len(records) == 35
        assert "10 bypassed it" in done.stderr
    choice = next(one for one in result.probes if one.name == "choice")
    (shown,) = re.findall(r"\|choice *\|.*\|acc *\|.*\|(\d\.\d+)\|", plain.stdout.replace(" ", ""))
    assert choice.raw == pytest.approx(float(shown), abs=1e-4)
    assert (choice.n, choice.lower_is_better) == (5, False)
    metrics = files["m.prom"].read_text()
    assert re.search(r'forwardscope_probe_raw\{[^}]*probe="choice"[^}]*suite="nightly"', metrics)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["runn"], 2, "invalid choice: 'runn'"),
        (["run", "--model", "hf", "--tasks", "nothing-like-it"], 1, "nothing-like-it"),
        (["run", "--model", "no-model", "--tasks", "choice"], 1, "no-model"),
    ],
    ids=["sub-command", "task", "model"],
)
def test_mistakes_end_as_without_us(
    tasks: Path, arguments: list[str], status: int, said: str
) -> None:
    """The harness's own word and its own exit status."""
    more = ["--include_path", str(tasks)] if arguments[0] == "run" else []
    plain = _harness(*arguments, *more)
    done = _harness(*arguments, *more, ours=[])
    assert (plain.returncode, done.returncode) == (status, status)
    assert said in plain.stderr
    assert said in done.stderr


def test_other_commands_are_passed_on() -> None:
    """Those that evaluate nothing print what they print, and no summary of ours."""
    plain, done = _harness("ls", "tasks"), _harness("ls", "tasks", ours=[])
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    assert "lookups" not in done.stderr


def test_a_harness_that_makes_its_models_elsewhere_is_told(
    tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later release whose models we do not see says so in the result, not in silence."""
    register_model("counting-elsewhere")(CountingLM)
    monkeypatch.setattr("lm_eval.evaluator.lm_eval.api.registry", _Elsewhere)
    runs: list[ToolRun] = []

    def open_run(spec: SuiteSpec) -> ToolRun:
        runs.append(ToolRun(spec, BackendInstrumentation()))
        return runs[-1]

    arguments = ["run", "--model", "counting-elsewhere", "--tasks", "choice"]
    run_harness([*arguments, "--include_path", str(tasks)], open_run)
    assert runs[0].result is not None
    (warning,) = runs[0].result.warnings
    assert "nothing was cached" in warning


class _Elsewhere:
    """A registry of another place."""

    @staticmethod
    def get_model(_: str) -> type[CountingLM]:
        return CountingLM


def test_the_model_without_identity_is_told(tasks: Path, tmp_path: Path) -> None:
    """One sentence with the way out, and nothing stored."""
    arguments = ["run", "--model", "dummy", "--include_path", str(tasks), "--tasks", "choice"]
    store = tmp_path / "s.db"
    done = _harness(*arguments, ours=["--store", str(store)])
    assert done.returncode == 0, done.stderr
    assert "give --model-revision" in " ".join(done.stderr.split())
    done = _harness(*arguments, ours=["--store", str(store), "--model-revision", "1"])
    assert "answers are not stored" not in done.stderr
    done = _harness(
        *arguments,
        ours=["--store", str(store), "--model-revision", "1", "--json", str(tmp_path / "r.json")],
    )
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["backend_stats"]["forward_passes"] == 0


def test_one_revision_of_two_models_is_two_identities(tasks: Path, tmp_path: Path) -> None:
    """A model that is made with other arguments gets no answer of the first one."""
    arguments = ["run", "--model", "dummy", "--include_path", str(tasks), "--tasks", "choice"]
    ours = ["--store", str(tmp_path / "s.db"), "--model-revision", "1"]
    paid = []
    for given in ("model=a", "model=b", "model=a"):
        file = tmp_path / "r.json"
        done = _harness(*arguments, "--model_args", given, ours=[*ours, "--json", str(file)])
        assert done.returncode == 0, done.stderr
        paid.append(json.loads(file.read_text())["backend_stats"]["forward_passes"])
    assert paid == [15, 15, 0]
