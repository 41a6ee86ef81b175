"""Progress bars, which are drawn on stderr if it is a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.cli.progress import steps
from forwardscope.testing import ScriptedBackend


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
    """The bar has the current probe, the number of lookups and the hit rate."""
    drawn = invoke("run", suite_file).stderr
    assert "second (2/2)" in drawn
    assert "10 lookups, 20 % hits" in drawn


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
