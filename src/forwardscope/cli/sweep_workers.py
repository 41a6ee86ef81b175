"""Workers of a sweep in other processes: where they run, and what they export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

from forwardscope.cli.telemetry import Telemetry
from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep import Engine, Measured, Sweep, Task, Watch, Worker
from forwardscope.sweep.cluster import check_ray, local_ray, quiet_ray, reachable

__all__ = ["ExportingWorker", "ray_engine"]


class ExportingWorker:
    """Measures tasks, and exports spans and metrics of each run when it ends.

    `request_stop` can be called from any thread, all else from one.

    Args:
        spec: The suite. Its scrape endpoint is the sweep's, not opened here.
    """

    def __init__(self, spec: SuiteSpec) -> None:
        of_sweep = {"metrics_port": None, "metrics_file": None}
        telemetry = spec.telemetry.model_copy(update=of_sweep)
        self._spec = spec.model_copy(update={"telemetry": telemetry})
        self._worker = Worker(self._spec)

    def measure(self, task: Task) -> Measured:
        """Measure a task; see `Worker.measure`. What was not delivered is among the notes."""
        with Telemetry(self._spec) as telemetry:
            watch = Watch(
                observer=telemetry.observer,
                tracer_provider=telemetry.tracer_provider,
                opened=telemetry.watch,
            )
            self._worker.observe(watch)
            measured = self._worker.measure(task)
            deliveries = telemetry.finish(linger=False)
        undelivered = tuple(f"{one.to}: {one.what}" for one in deliveries if not one.ok)
        return replace(measured, notes=measured.notes + undelivered)

    def request_stop(self) -> None:
        """Stop before the next forward pass."""
        self._worker.request_stop()

    def close(self) -> None:
        """Free the base."""
        self._worker.close()


@contextmanager
def ray_engine(
    sweep: Sweep, _watch: Watch, *, workers: int | None, address: str | None
) -> Iterator[Engine]:
    """Yield an engine on Ray.

    Args:
        sweep: What it measures.
        workers: Number of workers; None for what the cluster has.
        address: Address of a cluster; None to start Ray on this machine for the sweep.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: Ray does not start, or there is no cluster at the address.
    """
    check_ray()
    with ExitStack() as stack:
        cpus = 1
        if address is None:
            cores, number = os.cpu_count() or 1, workers or 1
            cpus = max(1, cores // number)
            address = stack.enter_context(local_ray({"num_cpus": max(cores, number)}))
        else:
            reachable(address)
            stack.enter_context(quiet_ray())
        from forwardscope.sweep.ray import RayEngine  # noqa: PLC0415 - imports ray

        engine = RayEngine(sweep.spec, address, ExportingWorker, workers=workers, cpus=cpus)
        yield stack.enter_context(closing(engine))
