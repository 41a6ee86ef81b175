"""The commands and their options."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from forwardscope.cli.dashboards import dashboards
from forwardscope.cli.demo import demo_suite, demo_suite_text
from forwardscope.cli.doctor import examine
from forwardscope.cli.exits import mistakes_exit_with_two
from forwardscope.cli.gate import gate
from forwardscope.cli.init import suite_template, write_suite
from forwardscope.cli.options import RunOptions, takes_run_options
from forwardscope.cli.outputs import check_outputs, refuse_to_overwrite
from forwardscope.cli.planning import plan
from forwardscope.cli.reporting import report
from forwardscope.cli.running import run_and_report
from forwardscope.cli.traces import traces
from forwardscope.suite.loading import load_suite

__all__ = ["main"]

app = typer.Typer(
    help="See and save forward passes when comparing a language model with its fine-tuned self.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(plan)
app.command()(report)
app.command()(gate)
app.add_typer(traces, name="trace")
app.add_typer(dashboards, name="dashboards")


def main() -> None:
    """Run the command line."""
    app(prog_name="forwardscope")


def _print_version(wanted: bool) -> None:
    if wanted:
        Console().print(f"forwardscope {version('forwardscope')}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None: ...


@app.command()
@takes_run_options
def run(
    suite: Annotated[Path, typer.Argument(help="The suite file.", metavar="SUITE.yaml")],
    options: RunOptions,
) -> None:
    """Run a suite of probes and show what the cache did.

    Exits with 0 when every probe passes or is skipped, 1 when one fails or
    errs, 2 for a mistake in the suite or the options, 130 when it is interrupted
    and 143 when it is terminated; what it found so far is then in its trace. It
    stops before the next forward pass; a second signal ends it at once.
    """
    with mistakes_exit_with_two():
        spec = options.over(load_suite(suite))
        check_outputs(options.outputs(spec))
        refuse_to_overwrite(suite, options.outputs(spec))
        result = run_and_report(spec, options)
    raise typer.Exit(0 if result.passed else 1)


@app.command()
@takes_run_options
def demo(options: RunOptions) -> None:
    """Run all four probes on a small real model, SmolLM2-135M-Instruct.

    The first time the model is unpacked and a small adapter is trained, which
    takes about a minute; both are kept in the user's cache folder. Exits with
    0 when it ran and its numbers reconcile, whatever the verdicts.
    """
    with mistakes_exit_with_two():
        spec = options.over(demo_suite(quiet=options.quiet))
        check_outputs(options.outputs(spec))
        result = run_and_report(spec, options)
    raise typer.Exit(0 if result.reconciliation.holds else 1)


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and the command that adds it."""
    examine(Console())


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("suite.yaml"),
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Write the demo's suite, with its model and adapter."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a commented suite file to start from."""
    with mistakes_exit_with_two():
        write_suite(demo_suite_text(quiet=False) if demo else suite_template(), path, force=force)
    then = "run it" if demo else "edit the model and run"
    Console().print(f"wrote {path}; {then}: forwardscope run {path}", highlight=False)
