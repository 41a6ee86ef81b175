"""Exit statuses of commands that end by a signal."""

from __future__ import annotations

import signal

import pytest
import typer

from forwardscope.cli.exits import errors_exit_with_two


def _end(number: int, *, by_tool: bool) -> None:
    """End by a signal; a tool turns the interrupt into a status of its own."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        if by_tool:
            raise SystemExit(130) from None
        raise


@pytest.mark.parametrize("by_tool", [False, True])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_status_is_that_of_the_signal(number: int, status: int, by_tool: bool) -> None:
    """Also where another tool ended on it, which knows SIGINT alone."""
    with pytest.raises((typer.Exit, SystemExit)) as ended, errors_exit_with_two():
        _end(number, by_tool=by_tool)
    assert getattr(ended.value, "exit_code", getattr(ended.value, "code", None)) == status


def test_another_status_of_a_tool_stays() -> None:
    """It ended on its own."""
    with pytest.raises(SystemExit) as ended, errors_exit_with_two():
        raise SystemExit(3)
    assert ended.value.code == 3
