"""The command `forwardscope pushgateway delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from forwardscope.cli.gateway import delete as delete_group
from forwardscope.cli.gateway import groups
from forwardscope.cli.targets import check_url
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import OutputError
from forwardscope.telemetry.http import shown_url

__all__ = ["pushgateway"]

pushgateway = typer.Typer(
    help="Delete what runs have pushed to a Pushgateway.", no_args_is_help=True
)


@pushgateway.callback()
def _root() -> None: ...


@pushgateway.command()
def delete(
    suite: Annotated[str, typer.Argument(help="Name of the suite.", metavar="SUITE")],
    model: Annotated[
        str | None, typer.Option(help="Name of the model; without it, all of the suite's.")
    ] = None,
    url: Annotated[str, typer.Option(help="URL of the gateway.")] = "http://127.0.0.1:9091",
) -> None:
    """Delete the groups of a suite that is no longer run, which ends its alerts.

    Exit status: 0 when a group was deleted; 2 when there is none, or for an error.
    """
    check_url("url", url, ("http", "https"), "http://127.0.0.1:9091")
    try:
        found = groups(url, {"suite": suite} | ({} if model is None else {"model": model}))
        for group in found:
            delete_group(url, group)
            labels = ", ".join(f"{name} {group.labels[name]}" for name in sorted(group.labels))
            Terminal().print(f"deleted: {labels}")
    except (OSError, ValueError) as error:
        raise OutputError(f"{shown_url(url)}: {error}; is it a Pushgateway?") from error
    if not found:
        raise OutputError(f"the gateway has no group of suite {suite}")
