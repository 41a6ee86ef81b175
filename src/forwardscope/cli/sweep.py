"""The command `forwardscope sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forwardscope.cli.options import RunOptions, takes_run_options
from forwardscope.errors import UserError

__all__ = ["sweep"]


@takes_run_options
def sweep(
    suite: Annotated[Path, typer.Argument(help="The suite file.", metavar="SUITE.yaml")],
    options: RunOptions,
) -> None:
    """Run a suite on many adapters of one base, and compare them in order."""
    raise UserError("not there yet")
