"""Progress is drawn on a terminal's stderr, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope.cli.progress import steps
from forwardscope.testing import ScriptedBackend


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]) -> None:
    """Let every stream pass for a terminal of 120 columns, also those of `invoke`."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")


@pytest.mark.usefixtures("terminal")
def test_a_run_shows_where_it_is_and_what_the_cache_did(
    invoke: Callable[..., Result], suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """The last picture has the last probe, all lookups and the share of hits."""
    drawn = invoke("run", suite_file).stderr
    assert "second (2/2)" in drawn
    assert "10 lookups, 20 % hits" in drawn


@pytest.mark.usefixtures("terminal")
def test_quiet_draws_nothing(
    invoke: Callable[..., Result], suite_file: Path, loaded: list[ScriptedBackend]
) -> None:
    """With `--quiet` a terminal stays as it was."""
    assert invoke("run", suite_file, "--quiet").output == ""


@pytest.mark.usefixtures("terminal")
def test_steps_have_a_bar_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Each step of a preparation keeps its own line, markup in its name taken as text."""
    with steps(quiet=False) as report:
        report("unpacking", 1, 4)
        report("training [bold]", 2, 2)
        report("unpacking", 4, 4)
    drawn = capsys.readouterr().err
    assert "unpacking" in drawn
    assert "training [bold]" in drawn
    assert drawn.count("✓") >= 2


@pytest.mark.parametrize("quiet", [True, False])
def test_steps_draw_nothing_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    """A file that takes stderr gets no bars."""
    if quiet:
        monkeypatch.setenv("FORCE_COLOR", "1")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    with steps(quiet=quiet) as report:
        report("unpacking", 1, 4)
    assert capsys.readouterr().err == ""
