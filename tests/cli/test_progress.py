"""Progress bars, which are drawn on stderr if it is a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.cli.progress import RunProgress, steps
from forwardscope.cli.sweep_progress import SweepProgress
from forwardscope.core.series import Counts
from forwardscope.suite import load_suite
from forwardscope.suite.observer import RunStarted
from forwardscope.suite.run_counters import RunCounters
from forwardscope.sweep import AdapterRow, SweepStarted, Task
from forwardscope.testing import ScriptedBackend

_PATIENCE_S = 60.0


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]) -> None:
    """Treat every stream as a terminal of 120 columns, also those of `invoke`."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")


@pytest.mark.usefixtures("terminal")
def test_progress_of_a_run(
    invoke: Callable[..., Result], suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """The bar has the current probe, the computed and the planned passes and the hit rate."""
    drawn = invoke("run", suite_file).stderr
    assert "identifying model and adapter" in drawn
    assert "second (2/2)" in drawn
    assert "8/8 passes, 20 % hits" in drawn


@pytest.mark.usefixtures("terminal")
def test_progress_within_a_forward_call(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar advances and tells the time left while a call computes; it never goes back."""
    spec, instrumentation = load_suite(suite_file), BackendInstrumentation()
    run = RunStarted(spec, "id", None, 0.0, RunCounters(instrumentation), 10, 12)
    drawn = ""

    def drawn_after(computed: int, awaited: str) -> str:
        nonlocal drawn
        instrumentation.computed_in_flight = computed
        deadline = time.monotonic() + _PATIENCE_S
        while awaited not in drawn:
            assert time.monotonic() < deadline, drawn
            time.sleep(0.01)
            drawn += capsys.readouterr().err
        return drawn

    with RunProgress(spec, instrumentation, quiet=False) as progress:
        progress.run_started(run)
        progress.probe_started(0, spec.probes[0])
        assert " left" not in drawn_after(0, "0/10 passes")
        assert " left" in drawn_after(4, "4/10 passes")
        drawn_after(0, "")
        instrumentation.cached("op", "base", "prompt", 0, lambda: drawn_after(6, "6/10 passes"))
    assert "1/10 passes" not in drawn + capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_a_step_that_begins_while_the_bar_is_drawn(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's thread ends the counting at any time; the bar is then that of the step."""
    spec, instrumentation = load_suite(suite_file), BackendInstrumentation()

    class Ending(RunCounters):
        def total(self) -> Counts:
            progress.step("delivering telemetry")
            return super().total()

    with RunProgress(spec, instrumentation, quiet=False) as progress:
        progress.run_started(RunStarted(spec, "id", None, 0.0, Ending(instrumentation), 10, 12))
    drawn = capsys.readouterr().err
    assert "delivering telemetry" in drawn
    assert "0/10 passes" not in drawn


@pytest.mark.usefixtures("terminal")
def test_progress_of_a_run_without_a_plan(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The passes have no total, and no time is left."""
    spec, instrumentation = load_suite(suite_file), BackendInstrumentation()
    with RunProgress(spec, instrumentation, quiet=False) as progress:
        progress.run_started(RunStarted(spec, "id", None, 0.0, RunCounters(instrumentation)))
        instrumentation.cached("op", "base", "prompt", 0, lambda: 1.0)
    drawn = capsys.readouterr().err
    assert "1 passes" in drawn
    assert " left" not in drawn


@pytest.mark.usefixtures("terminal")
def test_progress_of_a_sweep_in_other_processes(
    suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second bar has the adapters that are measured; one that is tried again is there once."""
    tasks = [Task(index, name, name, "", "") for index, name in enumerate(["one", "two"])]
    with SweepProgress(quiet=False) as progress:
        progress.sweep_started(SweepStarted(load_suite(suite_file), tasks, None, 0.0, 2))
        for task in [*tasks, tasks[0]]:
            progress.adapter_started(task, "process 1 on another machine")
        progress.print_line("drawn")
        assert " two, one " in _plain(capsys.readouterr().err)
        for label in ("two", "one"):
            row = AdapterRow(index=0, adapter="", label=label, status="error", error="", folder="")
            progress.adapter_finished(row)
        progress.print_line("drawn")
        assert "waiting for workers" in _plain(capsys.readouterr().err)


@pytest.mark.usefixtures("terminal")
def test_progress_in_a_narrow_terminal(
    suite_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bar is one line: a long name is cut, and without room there is no hit rate."""
    monkeypatch.setenv("COLUMNS", "80")
    suite_file.write_text(suite_file.read_text().replace("first", "a name of many words " * 4))
    spec, instrumentation = load_suite(suite_file), BackendInstrumentation()
    with RunProgress(spec, instrumentation, quiet=False) as progress:
        run = RunStarted(spec, "id", None, 0.0, RunCounters(instrumentation), 1000, 1200)
        progress.run_started(run)
        progress.probe_started(0, spec.probes[0])
        instrumentation.computed_in_flight = 321
    drawn = _plain(capsys.readouterr().err)
    lines = re.split(r"[\r\n]+", drawn)
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "321/1000 passes" in line and "…" in line and "left" in line]
    assert "hits" not in drawn


@pytest.mark.usefixtures("terminal")
def test_quiet_draws_nothing(
    invoke: Callable[..., Result], suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """With --quiet nothing is printed to a terminal."""
    assert invoke("run", suite_file, "--quiet").output == ""


@pytest.mark.usefixtures("terminal")
def test_steps_have_a_bar_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Each step has its own line, and markup in its name is literal."""
    with steps(quiet=False) as report:
        report("unpacking", 1, 4)
        report("training [bold]", 2, 2)
        report("unpacking", 4, 4)
    drawn = capsys.readouterr().err
    assert "unpacking" in drawn
    assert "training [bold]" in drawn
    assert drawn.count("✓") >= 2


@pytest.mark.parametrize("quiet", [True, False])
def test_steps_draw_nothing_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    """No bar is drawn into a file, and none when quiet."""
    if quiet:
        monkeypatch.setenv("FORCE_COLOR", "1")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    with steps(quiet=quiet) as report:
        report("unpacking", 1, 4)
    assert capsys.readouterr().err == ""


def _plain(drawn: str) -> str:
    """Return what a terminal shows of a text."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
