"""Running a suite for a person: files checked first, progress meanwhile, a report at the end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from forwardscope.backends.base import Backend
from forwardscope.cli.outputs import instrumentation_for
from forwardscope.cli.progress import RunProgress
from forwardscope.errors import OutputError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.report import print_report
from forwardscope.suite.result import SuiteResult
from forwardscope.suite.runner import run_suite
from forwardscope.suite.spec import SuiteSpec

__all__ = ["RunOptions", "run_and_report"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says about a run, beyond the suite.

    Attributes:
        trace: JSONL file to append to.
        json: File to write the result to.
        quiet: Print neither progress nor report.
        no_cache: Turn the cache off, whatever the suite says.
    """

    trace: Path | None = None
    json: Path | None = None
    quiet: bool = False
    no_cache: bool = False


def run_and_report(spec: SuiteSpec, options: RunOptions) -> SuiteResult:
    """Load the suite's model, run its probes, write the files and print the report.

    Neither is lost where the other cannot be done.

    Raises:
        UserError: A file cannot be written, or the model or adapter cannot be
            loaded. No output file is left behind then.
    """
    if options.no_cache:
        off = spec.cache.model_copy(update={"enabled": False})
        spec = spec.model_copy(update={"cache": off})
    with _plain_warnings(), instrumentation_for(spec, options.trace) as instrumentation:
        progress = RunProgress(spec, instrumentation.stats, quiet=options.quiet)
        with progress:
            backend = _load(spec, instrumentation)
            try:
                result = run_suite(spec, backend, observer=progress)
            finally:
                backend.close()
    try:
        if options.json is not None:
            result.write(options.json)
    finally:
        if not options.quiet:
            _print(result)
    return result


def _print(result: SuiteResult) -> None:
    try:
        print_report(result, _ReportConsole())
    except OSError as error:
        raise OutputError(f"the report cannot be printed: {error.strerror}") from error


class _ReportConsole(Console):
    def on_broken_pipe(self) -> None:
        """Print no more to a reader that has gone; the run's exit status stays its own."""
        with suppress(SystemExit):
            super().on_broken_pipe()


def _load(spec: SuiteSpec, instrumentation: BackendInstrumentation) -> Backend:
    from forwardscope.backends.hf import ModelSource, load_backend  # noqa: PLC0415 - loads torch

    source = ModelSource(
        path=spec.model.path,
        adapter=spec.model.adapter,
        device=spec.model.device,
        dtype=spec.model.dtype,
    )
    return load_backend(source, exactness=spec.exactness, instrumentation=instrumentation)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show a warning as one line, without the place in the code that it came from."""
    console = Console(stderr=True)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: console.print(
            Text.assemble(("warning: ", "bold yellow"), str(message)), soft_wrap=True
        )
        yield
