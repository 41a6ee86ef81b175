"""The command `sway`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from forwardscope.cli.options import RunOptions, takes_run_options
from forwardscope.cli.terminal import Terminal
from forwardscope.cli.tools import (
    ModelRevision,
    SuiteName,
    check_places,
    importing,
    tool_run,
)
from forwardscope.errors import UserError
from forwardscope.integrations.tool_run import ToolRun
from forwardscope.suite.spec import SuiteSpec

__all__ = ["sway"]

_SUITE_COMMANDS = ("run", "gate", "check", "diff")
_EXAMPLE = "forwardscope sway --store default -- run sway.yaml"


@takes_run_options
def sway(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="The arguments of sway, after --.", metavar="-- ARGUMENTS"),
    ] = None,
    *,
    options: RunOptions,
    name: SuiteName = "sway",
    model_revision: ModelRevision = None,
) -> None:
    r"""Run dlm-sway with its suites on our cache, store and telemetry.

    What follows -- is for sway, and works as without us; so do its output and
    its exit status. Each of its probes is a probe in trace, spans, metrics and
    dashboards. Where a command runs a suite twice, as diff does, the files of the
    second run have -2 in their names. Our summary goes to stderr.

        forwardscope sway --store default -- gate sway.yaml
    """
    if not arguments:
        raise UserError(f"give sway's arguments after --, as in {_EXAMPLE}")
    with importing("dlm_sway", "sway"):
        from forwardscope.integrations.dlm_sway_run import run_sway  # noqa: PLC0415 - an extra
    numbers = count(1)

    def open_run(spec: SuiteSpec) -> AbstractContextManager[ToolRun]:
        return tool_run(spec, _of_run(options, next(numbers)), "probe")

    if arguments[0] in _SUITE_COMMANDS:
        check_places(options)
    try:
        run_sway(arguments, open_run, name=name, revision=model_revision)
    except SystemExit as ended:
        if not ended.code and next(numbers) == 1 and not options.quiet:
            Terminal(stderr=True).print(f"sway {arguments[0]} has run no suite: nothing was cached")
        raise


def _of_run(options: RunOptions, number: int) -> RunOptions:
    """Return the options of one of several runs, with files of its own."""
    if number == 1:
        return options

    def numbered(path: Path | None) -> Path | None:
        return None if path is None else path.with_stem(f"{path.stem}-{number}")

    return replace(
        options,
        json=numbered(options.json),
        markdown=numbered(options.markdown),
        junit=numbered(options.junit),
    )
