"""The command `lm-eval`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from forwardscope.cli.options import RunOptions, takes_run_options
from forwardscope.cli.terminal import Terminal
from forwardscope.cli.tools import (
    ModelRevision,
    SuiteName,
    check_places,
    for_rank,
    importing,
    tool_run,
)
from forwardscope.errors import UserError

__all__ = ["lm_eval"]

_EXAMPLE = "forwardscope lm-eval --store default -- run --model hf --tasks arc_easy"


@takes_run_options
def lm_eval(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="The arguments of lm-eval, after --.", metavar="-- ARGUMENTS"),
    ] = None,
    *,
    options: RunOptions,
    name: SuiteName = "lm-eval",
    model_revision: ModelRevision = None,
) -> None:
    r"""Run lm-evaluation-harness with its model behind the cache.

    What follows -- is for lm-eval, and works as without us; so do its output
    and its exit status. A request is answered from the store if the same model
    with the same settings has answered it before, in whatever run. A task is a
    probe in trace, spans, metrics and dashboards. Our summary goes to stderr.

        forwardscope lm-eval --store default -- run --model hf \
            --model_args pretrained=MODEL,dtype=float32 --tasks arc_easy
    """
    if not arguments:
        raise UserError(f"give lm-eval's arguments after --, as in {_EXAMPLE}")
    with importing("lm_eval", "lm-eval"):
        from forwardscope.integrations.lm_eval_run import run_harness  # noqa: PLC0415 - an extra
    rank = os.environ.get("RANK", "0")
    mine = for_rank(options, int(rank) if rank.isdecimal() else 0)
    evaluates = arguments[0] == "run" or arguments[0].startswith("-")  # lm-eval adds the run
    if evaluates:
        check_places(mine)
    evaluated = run_harness(
        arguments, lambda spec: tool_run(spec, mine), name=name, revision=model_revision
    )
    if evaluates and not evaluated:
        Terminal(stderr=True).print("lm-eval has evaluated no model: nothing was cached")
