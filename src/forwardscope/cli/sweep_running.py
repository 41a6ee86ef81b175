"""Running a sweep with progress, telemetry and files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial

from forwardscope.cli.stopping import Stop, run_stoppable
from forwardscope.cli.sweep_progress import SweepProgress
from forwardscope.cli.sweep_report import RunReports
from forwardscope.cli.telemetry import Telemetry
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.observer import Observers
from forwardscope.suite.trace_url import check_environment
from forwardscope.sweep import (
    Engine,
    LocalEngine,
    Sweep,
    SweepInterrupted,
    SweepMetrics,
    SweepObserver,
    SweepObservers,
    SweepResult,
    SweepStarted,
    Watch,
    Worker,
    run_sweep,
)

__all__ = ["MakeEngine", "local_engine", "run_and_write"]

#: Makes the engine of a sweep, whose runs in this process are watched.
MakeEngine = Callable[[Sweep, Watch], AbstractContextManager[Engine]]


def local_engine(sweep: Sweep, watch: Watch) -> AbstractContextManager[Engine]:
    """Return an engine of one worker in this process."""
    return closing(LocalEngine(Worker(sweep.spec, watch=watch)))


def run_and_write(
    sweep: Sweep, make_engine: MakeEngine, write: Callable[[SweepResult], None], *, quiet: bool
) -> SweepResult:
    """Run a sweep in a worker thread that SIGINT and SIGTERM stop; write its result.

    Args:
        sweep: What to measure.
        make_engine: Makes its engine.
        write: Writes the result, also of an interrupted sweep.
        quiet: Print no progress.

    Raises:
        UserError: A mistake that no adapter makes.
        Stopped: A signal stopped the sweep. The adapters that ended are written.
    """
    check_environment()
    return run_stoppable(partial(_run, sweep, make_engine, write, quiet))


def _run(
    sweep: Sweep,
    make_engine: MakeEngine,
    write: Callable[[SweepResult], None],
    quiet: bool,
    stop: Stop,
) -> SweepResult:
    metrics = SweepMetrics()
    with Telemetry(sweep.spec, metrics) as telemetry, SweepProgress(quiet=quiet) as progress:
        if telemetry.endpoint_place is not None:
            progress.print_line(f"metrics: {telemetry.endpoint_place}")
        if telemetry.notice is not None:
            progress.print_line(telemetry.notice)
        watch = _watch(telemetry, progress)
        with make_engine(sweep, watch) as engine:
            stop.on_request(engine.request_stop)
            stop.on_request(telemetry.end_linger)
            try:
                result = run_sweep(
                    sweep,
                    engine,
                    observer=SweepObservers(
                        metrics, _PublishStart(telemetry), RunReports(sweep.folder), progress
                    ),
                    tracer_provider=watch.tracer_provider,
                )
            except SweepInterrupted as error:
                deliveries = telemetry.finish(linger=False)
                write(error.result.model_copy(update={"delivery": deliveries}))
                raise
        stop.notice = "all adapters have ended; the sweep continues to its end"
        if telemetry.enabled:
            progress.step("delivering telemetry")
        result = result.model_copy(update={"delivery": telemetry.finish()})
        write(result)
    return result


class _PublishStart(SweepObserver):
    """Publishes the gauges of a sweep when it starts; from then on they publish by themselves."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def sweep_started(self, sweep: SweepStarted) -> None:  # noqa: ARG002 - of the base class
        """Publish."""
        self._telemetry.publish()


def _watch(telemetry: Telemetry, progress: SweepProgress) -> Watch:
    def opened(instrumentation: BackendInstrumentation) -> None:
        telemetry.watch(instrumentation)
        progress.opened(instrumentation)

    return Watch(
        observer=Observers(progress, telemetry.observer),
        tracer_provider=telemetry.tracer_provider,
        opened=opened,
        report=progress.step,
    )
