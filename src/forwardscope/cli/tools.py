"""Runs of other tools, with the telemetry, the files and the summary of our own runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from forwardscope.cli.exits import USAGE_ERRORS
from forwardscope.cli.options import RunOptions
from forwardscope.cli.running import CountersObserver, write_result
from forwardscope.cli.telemetry import Telemetry
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import MissingExtraError, UserError
from forwardscope.files import check_outputs
from forwardscope.integrations.tool_run import ToolRun, spec_of_tool
from forwardscope.store.locations import open_store
from forwardscope.suite.backend import instrumentation_for
from forwardscope.suite.observer import Observers
from forwardscope.suite.report import print_tool_report
from forwardscope.suite.result import Delivery, SuiteResult
from forwardscope.suite.spec import SuiteSpec
from forwardscope.suite.trace_url import check_environment
from forwardscope.text import MAX_SENTENCE, plural, shown

__all__ = [
    "ModelRevision",
    "SuiteName",
    "ToolCommand",
    "check_places",
    "for_rank",
    "importing",
    "tool_run",
]

#: The option --name of a command that runs a tool.
SuiteName = Annotated[
    str, typer.Option(help="Name of the suite in results, metrics and spans.", metavar="NAME")
]
#: Its option --model-revision.
ModelRevision = Annotated[
    str | None,
    typer.Option(
        help="Version of models whose content cannot be read, such as those behind an API. "
        "Their answers are stored under this version; without one they are not stored.",
        metavar="TEXT",
    ),
]


@contextmanager
def importing(package: str, extra: str) -> Iterator[None]:
    """Turn the failed import of a tool's integration into a sentence.

    Args:
        package: Name under which the tool is imported.
        extra: The extra that installs it.

    Raises:
        UserError: The tool is not installed, or is of a version that cannot be used.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingExtraError(package, extra) from error
        raise UserError(f"this version of {extra} cannot be used: {error}") from error


class ToolCommand(TyperCommand):
    """A command that runs another tool, with the arguments that follow --."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; where -- is missing, an error says where those of the tool go."""
        separated = "--" in args
        try:
            return super().parse_args(ctx, args)
        except USAGE_ERRORS as error:
            if not separated:
                vars(error)["message"] += f"; the arguments of {self.name} go after --"
            raise


@contextmanager
def tool_run(spec: SuiteSpec, options: RunOptions, what: str = "task") -> Iterator[ToolRun]:
    """Yield the run of a tool; at its end deliver, write the files and print a summary on stderr.

    Args:
        spec: Names of suite, model and adapter.
        options: Override the settings of the suite.
        what: The tool's word for what is a probe here.

    Raises:
        UserError: An option is not valid, or a file cannot be written.
    """
    check_environment()
    spec, terminal = options.override(spec), Terminal(stderr=True, soft_wrap=False)
    check_outputs(options.output_files(spec))
    counted = CountersObserver()
    with (
        Telemetry(spec) as telemetry,
        instrumentation_for(spec, options.trace, telemetry.tracer_provider) as instrumentation,
    ):
        telemetry.watch(instrumentation)
        if telemetry.endpoint_place is not None and not options.quiet:
            terminal.print(f"metrics: {telemetry.endpoint_place}")
        ended = False
        run = ToolRun(spec, instrumentation, Observers(counted, telemetry.observer))
        try:
            with run:
                yield run
            ended = True
        finally:
            deliveries = telemetry.finish(linger=ended)
            if not ended:
                _print_end(run, options, deliveries, terminal)
    if run.result is not None:
        reconciliation = counted.counters.reconciliation()
        update = {"delivery": deliveries, "reconciliation": reconciliation}
        _finish(run.result.model_copy(update=update), options, what, terminal)


def check_places(options: RunOptions) -> None:
    """Check, before a tool loads its model, that the files of a run and its store can be opened.

    Raises:
        UserError: One of them cannot.
    """
    spec = options.override(spec_of_tool("", ""))
    check_outputs(options.output_files(spec))
    if spec.cache.store is not None and spec.cache.enabled:
        store = open_store(spec.cache.store, max_bytes=spec.cache.store_max_bytes)
        if store is not None:
            store.close(0.0)


def for_rank(options: RunOptions, rank: int) -> RunOptions:
    """Return the options of one of several processes: the first alone has files and metrics."""
    if rank == 0:
        return options
    return replace(
        options,
        quiet=True,
        json=None,
        markdown=None,
        junit=None,
        otlp_metrics=None,
        metrics_port=None,
        metrics_linger=None,
        metrics_file=None,
        pushgateway=None,
    )


def _finish(result: SuiteResult, options: RunOptions, what: str, terminal: Terminal) -> None:
    try:
        write_result(result, options)
    finally:
        for warning in result.warnings:
            terminal.print_message("warning", "bold yellow", shown(warning, MAX_SENTENCE))
        if not options.quiet:
            print_tool_report(result, what, terminal)
        else:
            _print_undelivered(result.delivery, terminal)


def _print_end(
    run: ToolRun, options: RunOptions, deliveries: list[Delivery], terminal: Terminal
) -> None:
    """Say what is left of a run that ended before its time, after the tool's unfinished line."""
    terminal.print()
    _print_undelivered(deliveries, terminal)
    kept = run.instrumentation.stats.forward_passes
    if run.instrumentation.store is not None and kept and not options.quiet:
        terminal.print(
            f"the store has the answers so far ({plural(kept, 'forward pass')}); the same command "
            "goes on from there"
        )


def _print_undelivered(deliveries: list[Delivery], terminal: Terminal) -> None:
    for one in deliveries:
        if not one.ok:
            terminal.print_message("warning", "bold yellow", f"{one.to}: {one.what}")
