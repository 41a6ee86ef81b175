"""The command `sweep`, on scripted models."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.errors import AdapterError
from forwardscope.suite import SuiteSpec
from forwardscope.sweep import SweepFolder
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

from .viewer import Viewer

Invoke = Callable[..., Result]
NAMES = ("checkpoint-900", "checkpoint-1000", "checkpoint-20")


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write three adapters and return a pattern of them; the test is in their folder."""
    for name in NAMES:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps({"name": name}))
    monkeypatch.chdir(tmp_path)
    return "runs/checkpoint-*"


@pytest.fixture(autouse=True)
def behaviour(
    monkeypatch: pytest.MonkeyPatch, terminate: Callable[[BackendInstrumentation], None]
) -> dict[str, str]:
    """Open scripted models; an adapter in the mapping is `broken` or `terminates`."""
    found: dict[str, str] = {}

    class Models:
        notes: Sequence[str] = ()

        def open(
            self, spec: SuiteSpec, instrumentation: BackendInstrumentation, report: Any
        ) -> ScriptedBackend:
            name = Path(spec.model.adapter or "").name

            def script(view: ScriptedView, prompt: str) -> Any:
                if found.get(name) == "terminates":
                    terminate(instrumentation)
                return pseudo_random_logits(view, prompt, change=0.1 * len(name))

            if found.get(name) == "broken":
                raise AdapterError("it does not fit \x1b[31m")
            return ScriptedBackend(
                script,
                instrumentation=instrumentation,
                view_identity=lambda view: view if view == "base" else f"{view} of {name}",
            )

        def close(self) -> None: ...

    monkeypatch.setattr("forwardscope.sweep.worker.SharedModels", Models)
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)
    return found


def _sweep(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


def test_table_of_adapters_and_probes(
    invoke: Invoke, suite_file: Path, adapters: str, tmp_path: Path
) -> None:
    """A row for each checkpoint in natural order, with what was paid and compared."""
    ran = invoke("sweep", suite_file, "--adapters", adapters)
    assert ran.exit_code == 0, ran.output
    rows = re.findall(r"^ *(checkpoint-\d+)", ran.stdout, re.MULTILINE)
    assert rows == ["checkpoint-20", "checkpoint-900", "checkpoint-1000"]
    assert "4 comparisons with the adapter before; p of 4 corrected together" in ran.stdout
    assert "forward passes: 16 of 24 needed were paid, 8 from disk; 1 worker" in ran.stdout
    assert "3 of 3 adapters passed" in ran.stdout
    lines = ran.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "1/3 checkpoint-20",
        "2/3 checkpoint-900",
        "3/3 checkpoint-1000",
    ]
    assert lines[0].endswith("8 of 8 forward passes paid")
    assert lines[1].endswith("4 of 8 forward passes paid")
    folder = tmp_path / "suite-sweep"
    assert sorted(one.name for one in folder.iterdir()) == [
        *("report.html", "runs", "store.db", "sweep.json")
    ]


def test_report_of_each_run_has_its_trace(invoke: Invoke, suite_file: Path, adapters: str) -> None:
    """The page draws the lookups of the run; where the trace is gone, it says what is missing."""
    invoke("sweep", suite_file, "--adapters", adapters, "-o", "out")
    run = Path("out/runs/checkpoint-900")
    assert "use the option --trace FILE" not in (run / "report.html").read_text()
    (run / "report.html").unlink()
    (run / "trace.jsonl").unlink()
    invoke("sweep", suite_file, "--adapters", adapters, "-o", "out")
    assert "use the option --trace FILE" in (run / "report.html").read_text()


@pytest.mark.parametrize("columns", [80, 140])
def test_table_fits_the_terminal(
    invoke: Invoke,
    suite_file: Path,
    adapters: str,
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    """Probes that do not fit beside the adapters have a table of their own."""
    probe = "  - {name: probe-%d-of-some-length, kind: delta_kl, prompts: [a], min_mean: 1.0e-6}\n"
    suite_file.write_text(suite_file.read_text() + "".join(probe % n for n in range(6)))
    monkeypatch.setenv("COLUMNS", str(columns))
    table = invoke("sweep", suite_file, "--adapters", adapters).stdout.partition("each probe")[0]
    assert max(map(len, table.splitlines())) <= columns
    assert table.count("checkpoint-900") == {80: 2, 140: 1}[columns]


def test_broken_adapter(
    invoke: Invoke,
    suite_file: Path,
    adapters: str,
    behaviour: dict[str, str],
) -> None:
    """The sweep goes on, its exit status is 1, and all reports have the reason."""
    behaviour["checkpoint-900"] = "broken"
    ran = invoke("sweep", suite_file, "--adapters", adapters, "-o", "out")
    assert ran.exit_code == 1
    assert "2/3 checkpoint-900: ERROR it does not fit" in ran.stderr
    assert "warning: checkpoint-900: it does not fit" in ran.stdout
    assert "\x1b" not in ran.output
    assert [row["status"] for row in _sweep(Path("out"))["rows"]] == [
        *("finished", "error", "finished")
    ]
    page = Path("out/report.html").read_text()
    assert "checkpoint-900: it does not fit" in page
    assert "\x1b" not in page


def test_interrupted_sweep_goes_on(
    invoke: Invoke, suite_file: Path, adapters: str, behaviour: dict[str, str]
) -> None:
    """SIGTERM ends it with 143; the same command measures what is missing."""
    behaviour["checkpoint-900"] = "terminates"
    ran = invoke("sweep", suite_file, "--adapters", adapters, "-o", "out")
    assert ran.exit_code == 143
    assert ran.stderr.splitlines()[-1] == (
        "interrupted: 1 of 3 adapters ended; the same command measures the others"
    )
    found = _sweep(Path("out"))
    assert [row["label"] for row in found["rows"]] == ["checkpoint-20"]
    assert found["not_run"] == ["checkpoint-900", "checkpoint-1000"]
    page = Path("out/report.html").read_text()
    assert "<h1>suite: 3 adapters</h1>" in page
    assert "interrupted; not measured: checkpoint-900, checkpoint-1000" in page
    assert "1 of 3 adapters on " in page
    behaviour.clear()
    assert invoke("sweep", suite_file, "--adapters", adapters, "-o", "out").exit_code == 0
    assert [row["status"] for row in _sweep(Path("out"))["rows"]] == [
        *("resumed", "finished", "finished")
    ]


def test_all_runs_are_below_the_span_of_the_sweep(
    invoke: Invoke, suite_file: Path, adapters: str, seen: Viewer, tmp_path: Path
) -> None:
    """The receiver has one trace; the metrics file has the last adapter, and no run before."""
    options = ["--otlp", seen.url, "--metrics-file", tmp_path / "sweep.prom"]
    ran = invoke("sweep", suite_file, "--adapters", adapters, "-o", "out", *options)
    assert ran.exit_code == 0, ran.output
    assert "spans exported" in ran.stdout
    [root] = [span for span in seen.spans() if not span.parent_id]
    assert root.name == "sweep suite"
    assert [span.name for span in root.children] == ["suite suite"] * 3
    infos = [
        line
        for line in (tmp_path / "sweep.prom").read_text().splitlines()
        if line.startswith("forwardscope_run_info")
    ]
    assert len(infos) == 1
    assert 'adapter="checkpoint-1000"' in infos[0]


def test_without_a_store_each_adapter_pays_for_all(
    invoke: Invoke, suite_file: Path, adapters: str
) -> None:
    """With --no-store nothing is shared, and no store is in the folder."""
    ran = invoke("sweep", suite_file, "--adapters", adapters, "-o", "out", "--no-store", "-q")
    assert (ran.exit_code, ran.output) == (0, "")
    assert [row["passes"]["forward_passes"] for row in _sweep(Path("out"))["rows"]] == [8, 8, 8]
    assert not Path("out/store.db").exists()


def test_mistakes(error_of: Callable[..., str], suite_file: Path, tmp_path: Path) -> None:
    """Each is one sentence, and exits with 2 before a model is loaded."""
    assert "--adapter PATH or --adapters PATTERN" in error_of("sweep", suite_file)
    assert "matches no folder" in error_of("sweep", suite_file, "--adapters", "none/*")
    (tmp_path / "file").write_text("")
    options = ["--adapter", "org/a", "-o", tmp_path / "file"]
    assert "not a folder" in error_of("sweep", suite_file, *options)
    text = suite_file.read_text().replace("adapter: some-adapter", "tuned: some-model")
    suite_file.write_text(text)
    assert "model.tuned" in error_of("sweep", suite_file, "--adapter", "org/a")


def test_pattern_that_the_shell_expanded(
    error_of: Callable[..., str], suite_file: Path, adapters: str
) -> None:
    """The error says that the pattern is to be quoted, wherever the suite is."""
    expanded = ["--adapters", *sorted(map(str, Path().glob(adapters)))]
    assert "quote the pattern" in error_of("sweep", suite_file, *expanded)
    assert "quote the pattern" in error_of("sweep", *expanded, suite_file)


def test_folder_that_is_an_adapter(
    error_of: Callable[..., str], suite_file: Path, adapters: str, tmp_path: Path
) -> None:
    """A sweep writes into no adapter, neither its report nor a result of an adapter."""
    own = tmp_path / "runs/checkpoint-20/result.json"
    own.write_text("of the training")
    for folder in (".", own.parent):
        error = error_of("sweep", suite_file, "--adapters", adapters, "-o", folder)
        assert "would be written into the adapter" in error
    assert own.read_text() == "of the training"


def test_folder_with_another_report(
    error_of: Callable[..., str], suite_file: Path, adapters: str
) -> None:
    """A report that is of no sweep is not replaced."""
    Path("report.html").write_text("of a run")
    error = error_of("sweep", suite_file, "--adapters", adapters, "-o", ".")
    assert "is the report of something else" in error
    assert Path("report.html").read_text() == "of a run"


@pytest.mark.parametrize("folder", ["o" * 300, "out"])
def test_folder_that_cannot_be_written(
    error_of: Callable[..., str], suite_file: Path, adapters: str, folder: str
) -> None:
    """It is a mistake before a model is loaded, also where only the report cannot be written."""
    Path("out/report.html").mkdir(parents=True)
    assert "cannot be written" in error_of(
        "sweep", suite_file, "--adapters", adapters, "-o", folder
    )
    assert not Path("out/runs").exists()


def test_two_sweeps_in_one_folder(
    invoke: Invoke, error_of: Callable[..., str], suite_file: Path, adapters: str
) -> None:
    """The second is refused while the first runs, and changes nothing."""
    command = "sweep", suite_file, "--adapters", adapters, "-o", "out"
    invoke(*command)
    before = Path("out/sweep.json").read_bytes()
    with SweepFolder(Path("out")).held():
        assert "another sweep is writing to out" in error_of(*command, "--fresh")
    assert Path("out/sweep.json").read_bytes() == before
    assert invoke(*command).stderr.count("kept from before") == 3


def test_earlier_report_of_a_broken_adapter(
    invoke: Invoke, suite_file: Path, adapters: str, behaviour: dict[str, str]
) -> None:
    """It is removed, so that no report of another run stands for the error."""
    command = "sweep", suite_file, "--adapters", adapters, "-o", "out"
    invoke(*command)
    assert "checkpoint-900/report.html" in Path("out/report.html").read_text()
    behaviour["checkpoint-900"] = "broken"
    invoke(*command, "--fresh")
    assert not Path("out/runs/checkpoint-900/report.html").exists()
    assert "checkpoint-900/report.html" not in Path("out/report.html").read_text()


def test_adapter_whose_name_is_not_utf_8(
    error_of: Callable[..., str], suite_file: Path, adapters: str
) -> None:
    """No result can have it, so it is a mistake before a model is loaded."""
    try:
        shutil.copytree("runs/checkpoint-20", os.fsdecode(b"runs/checkpoint-\xff"))
    except OSError:
        pytest.skip("names of files are UTF-8 here")
    error = error_of("sweep", suite_file, "--adapters", adapters)
    assert error == r"the name of runs/checkpoint-\udcff is not UTF-8; rename the folder"


def test_gauges_are_of_the_sweep(
    invoke: Invoke, suite_file: Path, adapters: str, behaviour: dict[str, str]
) -> None:
    """The metrics file has them beside those of the last run, also where one is broken."""
    behaviour["checkpoint-900"] = "broken"
    invoke("sweep", suite_file, "--adapters", adapters, "--metrics-file", "sweep.prom")
    text = Path("sweep.prom").read_text()
    states = dict(re.findall(r'^forwardscope_sweep_adapters{.*state="(\w+)".*} (.+)$', text, re.M))
    assert {state: float(number) for state, number in states.items()} == {
        "pending": 0,
        "running": 0,
        "finished": 2,
        "resumed": 0,
        "error": 1,
    }
    paid = re.search(r"^forwardscope_sweep_forward_passes{.*} (.+)$", text, re.M)[1]
    assert float(paid) == _sweep(Path("suite-sweep"))["passes"]["forward_passes"]
    assert re.search(r"^forwardscope_run_passed{.*} 1.0$", text, re.M)


def test_a_sweep_of_finished_adapters_is_no_run(
    invoke: Invoke, suite_file: Path, adapters: str
) -> None:
    """It exports no run that could not start."""
    invoke("sweep", suite_file, "--adapters", adapters)
    ran = invoke("sweep", suite_file, "--adapters", adapters, "--metrics-file", "sweep.prom")
    assert ran.exit_code == 0
    text = Path("sweep.prom").read_text()
    assert re.search(r'^forwardscope_sweep_adapters{.*state="resumed".*} 3.0$', text, re.M)
    assert "forwardscope_run_" not in text
