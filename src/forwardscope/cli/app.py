"""The `forwardscope` program and its commands."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forwardscope.cli.check import check
from forwardscope.cli.compare import compare
from forwardscope.cli.dashboards import dashboards
from forwardscope.cli.demo import demo_suite, demo_suite_text, store_notice
from forwardscope.cli.doctor import print_installation
from forwardscope.cli.doctor_store import server_lines
from forwardscope.cli.exits import errors_exit_with_two
from forwardscope.cli.gate import gate
from forwardscope.cli.gateway_delivery import push_no_start
from forwardscope.cli.init import suite_template, write_suite
from forwardscope.cli.lm_eval import lm_eval
from forwardscope.cli.options import RunOptions, takes_run_options
from forwardscope.cli.planning import plan
from forwardscope.cli.probes import probes, schema
from forwardscope.cli.pushgateway import pushgateway
from forwardscope.cli.reporting import report
from forwardscope.cli.running import run_and_report
from forwardscope.cli.store import store
from forwardscope.cli.sway import sway
from forwardscope.cli.sweep import SweepCommand, sweep
from forwardscope.cli.terminal import Terminal, plain_warnings, replace_unencodable
from forwardscope.cli.tools import ToolCommand
from forwardscope.cli.traces import traces
from forwardscope.errors import UserError
from forwardscope.files import check_outputs
from forwardscope.suite.loading import load_suite
from forwardscope.suite.selection import choose_probes, replace_adapter

__all__ = ["main"]


class _Commands(TyperGroup):
    """The commands, with one treatment of errors and warnings."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with errors_exit_with_two(), plain_warnings():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="Compare a base language model with its fine-tuned version, and cache, count and trace "
    "the forward passes.",
    epilog="Start with `forwardscope demo`, or with `forwardscope init` and then "
    "`forwardscope run suite.yaml`. Each command has its own --help.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line.

    Of help that has no reader any more, as in `forwardscope --help | head -1`, the rest is
    dropped: the exit status is 0, or 2 if a mistake in the usage was to be printed.
    """
    replace_unencodable()
    try:
        app(prog_name="forwardscope")
    except SystemExit as ended:
        broken = ended.__context__  # typer's console then exits with 1
        if isinstance(broken, BrokenPipeError):
            raise SystemExit(0 if broken.__context__ is None else 2) from None
        raise


def _print_version(requested: bool) -> None:
    if requested:
        Terminal().print(f"forwardscope {version('forwardscope')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None: ...


@app.command()
@takes_run_options
def demo(options: RunOptions) -> None:
    """Run four probes on a small real model, SmolLM2-135M-Instruct.

    The first call unpacks the model and trains a small adapter, which takes about
    a minute. Both are stored in the user's cache folder. Computed values are not,
    unless there is --store.

    Exit status: 0 when the run ends and its counts reconcile, whatever the
    verdicts; 1 when they do not; 2 for an error.
    """
    spec = options.override(demo_suite(quiet=options.quiet))
    check_outputs(options.output_files(spec))
    result = run_and_report(spec, options)
    notice = store_notice(result)
    if notice is not None and not options.quiet:
        Terminal().print(notice)
    raise typer.Exit(0 if result.reconciliation.holds else 1)


app.command()(check)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.", metavar="SUITE.yaml")] = Path(
        "suite.yaml"
    ),
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Write the demo's suite, with its model and adapter."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file if it exists.")
    ] = False,
) -> None:
    """Write a commented suite file, to edit and run.

    Its store is on: later runs, of any adapter on this base, pay for new values only.
    """
    write_suite(demo_suite_text(quiet=False) if demo else suite_template(), path, force=force)
    next_step = "run it" if demo else "edit the model and run"
    Terminal().print(f"wrote {path}; {next_step}: forwardscope run {quote(str(path))}")


app.command()(plan)
app.command()(probes)
app.command()(schema)


@app.command()
@takes_run_options
def run(
    suite: Annotated[
        Path, typer.Argument(help="The suite file, or - for standard input.", metavar="SUITE.yaml")
    ],
    options: RunOptions,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Compare with this adapter instead of the suite's: a folder, a hub id, or a "
            "name on the suite's server.",
            metavar="PATH",
        ),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            help="Run only this probe; may be given several times. Without the null_adapter before "
            "it, a probe has no z-score.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Run a suite of probes and report their verdicts and the cache hits.

    The suite file names the model, its adapter and the probes. Options override
    the suite's settings.

    Exit status: 0 when every probe passes or is skipped, 1 when a probe fails or
    ends with an error, 2 for a mistake in the suite or the options, 130 after
    SIGINT (Ctrl-C), 143 after SIGTERM. The first signal stops the run before its
    next forward pass; the trace has the lookups so far, and the file of --json
    the probes that ended. A second signal ends the process at once.
    """
    chosen = choose_probes(replace_adapter(load_suite(suite), adapter), probe or [])
    spec = options.override(chosen)
    try:
        check_outputs(options.output_files(spec), [suite])
    except UserError:
        push_no_start(spec)
        raise
    result = run_and_report(spec, options)
    raise typer.Exit(0 if result.passed else 1)


app.command(cls=SweepCommand)(sweep)
app.command("lm-eval", cls=ToolCommand)(lm_eval)
app.command(cls=ToolCommand)(sway)
app.command()(report)
app.command()(compare)
app.command()(gate)


@app.command()
def doctor(
    store: Annotated[
        str | None,
        typer.Option(help="Check the Redis or Valkey server of this URL instead.", metavar="URL"),
    ] = None,
) -> None:
    """List installed and missing packages, and the commands that install the missing ones.

    With --store, check the server of a store: connection, version, maxmemory and its policy.

    Exit status: 0, or 2 when the server of --store cannot be used.
    """
    if store is None:
        print_installation(Terminal(soft_wrap=False))
        return
    for line in server_lines(store):
        Terminal().print(line)


app.add_typer(traces, name="trace")
app.add_typer(store, name="store")
app.add_typer(dashboards, name="dashboards")
app.add_typer(pushgateway, name="pushgateway")
