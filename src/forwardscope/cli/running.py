"""Running a suite with progress, telemetry and a report."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

from rich.console import Console

from forwardscope.analysis.run_files import result_junit, result_markdown
from forwardscope.cli.options import RunOptions
from forwardscope.cli.progress import RunProgress
from forwardscope.cli.stopping import Stop, run_stoppable
from forwardscope.cli.telemetry import Telemetry
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import OutputError
from forwardscope.files import write_file
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.backend import instrumentation_for
from forwardscope.suite.backend import load_model as _load
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.plan import expect_series
from forwardscope.suite.report import print_report
from forwardscope.suite.result import Delivery, SuiteResult
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.runner import RunInterrupted, run_suite
from forwardscope.suite.spec import SuiteSpec
from forwardscope.suite.trace_url import check_environment
from forwardscope.text import plural

__all__ = ["CountersObserver", "Show", "run_and_report", "write_result"]


class Show(Protocol):
    """Prints a result."""

    def __call__(self, result: SuiteResult, console: Console, *, saved: Path | None) -> None:
        """Print it.

        Args:
            result: The result.
            console: Where to print.
            saved: The file that has the result, if any.
        """


def run_and_report(
    spec: SuiteSpec, options: RunOptions, *, show: Show = print_report
) -> SuiteResult:
    """Load the suite's model, run its probes, write the files and print the report.

    The run is in a worker thread, which SIGINT and SIGTERM stop before the next
    forward pass; see `run_stoppable`. After the last probe a signal no longer stops
    it. The report is printed even if the result cannot be written.

    Args:
        spec: The suite, with the options applied.
        options: The output files, and whether to print.
        show: Prints the report.

    Raises:
        UserError: A file cannot be written, or the model or adapter cannot be
            loaded. No new output file remains if the model cannot be loaded.
        Stopped: A signal stopped the run. The result has the probes that ended, if any.
    """
    check_environment()
    return run_stoppable(partial(_run_and_report, spec, options, show))


def _run_and_report(spec: SuiteSpec, options: RunOptions, show: Show, stop: Stop) -> SuiteResult:
    with (
        Telemetry(spec) as telemetry,
        instrumentation_for(spec, options.trace, telemetry.tracer_provider) as instrumentation,
    ):
        telemetry.watch(instrumentation)
        stop.on_request(instrumentation.request_stop)
        stop.on_request(telemetry.end_linger)
        result = _run(spec, instrumentation, telemetry, options, stop)
    try:
        write_result(result, options)
    finally:
        if not options.quiet:
            show(result, Terminal(soft_wrap=False), saved=options.json)
        else:
            _warn_of_undelivered(result.delivery)
    return result


def _warn_of_undelivered(deliveries: list[Delivery]) -> None:
    """Print what was not delivered on stderr."""
    for one in deliveries:
        if not one.ok:
            message = f"{one.to}: {one.what}"
            Terminal(stderr=True).print_message("warning", "bold yellow", message)


def _run(
    spec: SuiteSpec,
    instrumentation: BackendInstrumentation,
    telemetry: Telemetry,
    options: RunOptions,
    stop: Stop,
) -> SuiteResult:
    progress = RunProgress(spec, instrumentation, quiet=options.quiet)
    counters_observer = CountersObserver()
    with progress, ExitStack() as closing:
        _announce(telemetry, progress)
        if telemetry.has_counters:
            expect_series(spec, instrumentation)
        try:
            backend = _load(spec, instrumentation, progress.step)
            closing.callback(backend.close)
            if instrumentation.stopping:  # requested while the model was loaded
                raise KeyboardInterrupt
            progress.step("identifying model and adapter")
            observers = Observers(progress, counters_observer, telemetry.observer)
            result = run_suite(spec, backend, observer=observers)
            stop.notice = "all probes have run; the run continues to its end"
            if telemetry.enabled:
                progress.step(_delivery_step(spec, telemetry))
            deliveries = telemetry.finish()
        except BaseException as error:
            deliveries = telemetry.finish(linger=False)
            for delivery in deliveries:
                line = f"{delivery.to}: {delivery.what}"
                progress.print_line(line, failure=not delivery.ok)
            if instrumentation.trace.records:
                progress.print_line(f"{options.trace}: has the lookups so far")
            if isinstance(error, RunInterrupted):
                finished = _delivered(error.result, counters_observer, deliveries)
                _write_partial(finished, options, progress)
            raise
    return _delivered(result, counters_observer, deliveries)


def _announce(telemetry: Telemetry, progress: RunProgress) -> None:
    if telemetry.endpoint_place is not None:
        progress.print_line(f"metrics: {telemetry.endpoint_place}")
    if telemetry.notice is not None:
        progress.print_line(telemetry.notice)


def _delivered(
    result: SuiteResult, observer: CountersObserver, deliveries: list[Delivery]
) -> SuiteResult:
    """Return a result with what was delivered, and the counts after it."""
    reconciliation = observer.counters.reconciliation()
    return result.model_copy(update={"delivery": deliveries, "reconciliation": reconciliation})


def write_result(result: SuiteResult, options: RunOptions) -> None:
    """Write a result to the files of the options."""
    if options.json is not None:
        result.write(options.json)
    if options.markdown is not None:
        write_file("Markdown file", options.markdown, result_markdown(result))
    if options.junit is not None:
        write_file("JUnit file", options.junit, result_junit(result))


def _write_partial(result: SuiteResult, options: RunOptions, progress: RunProgress) -> None:
    """Write the result of an interrupted run; print what became of it."""
    try:
        write_result(result, options)
    except OutputError as error:
        progress.print_line(str(error), failure=True)
        return
    done = plural(len(result.probes), "finished probe")
    for path in (options.json, options.markdown, options.junit):
        if path is not None:
            progress.print_line(f"{path}: has the {done}, marked as interrupted")


def _delivery_step(spec: SuiteSpec, telemetry: Telemetry) -> str:
    seconds = spec.telemetry.metrics_linger
    if telemetry.endpoint_place is not None and seconds > 0:
        return f"waiting at most {seconds:g} s for a last scrape"
    return "delivering telemetry"


class CountersObserver(Observer):
    """Stores a run's counters, which are read again after its spans are delivered."""

    counters: RunCounters

    def run_started(self, run: RunStarted) -> None:
        """Store the counters of the run."""
        self.counters = run.counters
