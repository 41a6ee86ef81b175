"""The command `forwardscope sweep`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from forwardscope.cli.options import RunOptions, takes_sweep_options
from forwardscope.cli.sweep_report import print_sweep, write_sweep
from forwardscope.cli.sweep_running import MakeEngine, local_engine, run_and_write
from forwardscope.cli.sweep_workers import ray_engine
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.suite.loading import load_suite
from forwardscope.suite.selection import local_model
from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep import Adapters, Sweep, SweepFolder, find_adapters, tasks_of
from forwardscope.text import shown

__all__ = ["SweepCommand", "sweep"]

_WORKERS: Final = "Workers"


class SweepCommand(TyperCommand):
    """The command `sweep`, which says what to do about a pattern that the shell expanded."""

    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            UserError: There are more than the suite.
        """
        rest = super().parse_args(ctx, args)
        if ctx.args:
            raise UserError(
                f"a sweep has one suite, and {shown(ctx.args[0])} is another argument; quote the "
                "pattern of --adapters, so that the shell does not expand it"
            )
        return rest


@takes_sweep_options
def sweep(
    suite: Annotated[
        Path, typer.Argument(help="The suite file, or - for standard input.", metavar="SUITE.yaml")
    ],
    options: RunOptions,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure this adapter: a folder or a hub id; may be given several times, in the "
            "order of training.",
            metavar="PATH",
        ),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure the adapters of all folders that match this pattern, in natural order: "
            "checkpoint-900 before checkpoint-1000. Quote it.",
            metavar="PATTERN",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the sweep; by default the suite's name and -sweep.",
            metavar="DIR",
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Measure all adapters again, also those with a finished result."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Measure this many adapters at once, each in a process with one GPU, or without "
            "GPUs a share of the CPUs. With --ray, on that cluster; else on this machine. Needs "
            "the extra ray.",
            min=1,
            metavar="N",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Measure on the workers of this Ray cluster: HOST:PORT, ray://HOST:PORT, or auto "
            "for one that runs on this machine. Without --workers, one for each GPU or machine.",
            metavar="ADDRESS",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
) -> None:
    """Run a suite on many adapters of one base, and compare each with the one before.

    The base is loaded once, and its forward passes are paid once: adapters share
    values through the store of the suite, or one in the sweep's folder. That
    folder has sweep.json, report.html, and of each adapter result and trace in
    runs/.

    To see what each checkpoint of a training changed:

        forwardscope sweep suite.yaml --adapters 'runs/first/checkpoint-*'

    The same command again goes on after an interrupt, and measures what is new or
    changed: an adapter keeps its result while its files, the suite, the base and
    the packages are the same. An adapter that cannot be loaded is an ERROR, and
    the sweep goes on.

    Exit status: 0 when every adapter passes, 1 when one does not or is an ERROR,
    2 for a mistake in the suite or the options, 130 after SIGINT (Ctrl-C), 143
    after SIGTERM. What has ended by then is kept.
    """
    spec = options.override(load_suite(suite))
    _check_suite(spec)
    found = find_adapters(adapter or [], adapters or [])
    place = output if output is not None else Path(f"{_file_name(spec.name)}-sweep")
    folder = SweepFolder(place)
    folder.check(found)
    started = _sweep(spec, found, folder, options, fresh=fresh)
    with folder.held():
        result = run_and_write(
            started,
            _engine(workers, ray),
            lambda one: write_sweep(one, folder),
            quiet=options.quiet,
        )
    if not options.quiet:
        print_sweep(result, folder, Terminal(soft_wrap=False))
    raise typer.Exit(0 if result.passed else 1)


def _engine(workers: int | None, ray: str | None) -> MakeEngine:
    if ray is None and (workers or 1) == 1:
        return local_engine
    return partial(ray_engine, workers=workers, address=ray)


def _sweep(
    spec: SuiteSpec, found: Adapters, folder: SweepFolder, options: RunOptions, *, fresh: bool
) -> Sweep:
    tasks = tasks_of(spec, found, folder)
    if spec.cache.store is None and spec.cache.enabled and not options.no_store:
        cache = spec.cache.model_copy(update={"store": str(folder.store)})
        spec = spec.model_copy(update={"cache": cache})
    return Sweep(spec, tasks, folder, fresh, found.notes)


def _check_suite(spec: SuiteSpec) -> None:
    if local_model(spec).tuned is not None:
        raise UserError(
            "a sweep exchanges adapters on one base, and this suite compares with a fully "
            "fine-tuned model; replace model.tuned by model.adapter, or use forwardscope run for "
            "each model"
        )


def _file_name(name: str | None) -> str:
    return "".join(one if one.isalnum() or one in "._-" else "_" for one in name or "suite")
