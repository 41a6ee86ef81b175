"""Panels of the processor and the memory that runs and services use."""

from __future__ import annotations

from forwardscope.dashboards.panels import Panel, line_panel
from forwardscope.dashboards.queries import RATE, of_chosen_runs, ratio, series
from forwardscope.dashboards.run_queries import BY_RUN, with_device
from forwardscope.telemetry import run_names

__all__ = ["machine"]

_SCRAPED = '{job=~"$job", instance=~"$instance"}'
_TARGET = "{{job}} {{instance}}"
_ON_DEVICE = f"{BY_RUN}, {{{{device}}}}"


def machine() -> tuple[Panel, ...]:
    """Return the panels."""
    return time_per_pass(), cores(), memory()


def time_per_pass() -> Panel:
    """Wall time and CPU time of a forward pass in each run."""
    passes = series(run_names.RUN_FORWARD_PASSES)
    return line_panel(
        "Wall time and CPU time per forward pass, by run",
        "Mean wall time of a run's forward passes, and the CPU time of its process in the whole "
        "run, per forward pass, with the device of the weights. If the wall time rises alone, the "
        "process waited: the machine was busy. If both rise, the model computed more. The CPU "
        "time does not have the time of another device.",
        {
            _ON_DEVICE: with_device(ratio(series(run_names.RUN_FORWARD_SECONDS), passes)),
            f"{_ON_DEVICE}: CPU": with_device(ratio(series(run_names.RUN_CPU_SECONDS), passes)),
        },
        "s",
        width=8,
        stepped=True,
    )


def cores() -> Panel:
    """CPU cores that each process uses."""
    return line_panel(
        "CPU cores in use",
        "CPU time per second of each scraped process. Of a process that computes on the CPU, it "
        "is below its number of threads if the machine is busy with other programs.",
        {_TARGET: of_chosen_runs(f"rate(process_cpu_seconds_total{_SCRAPED}[{RATE}])")},
        "none",
        width=8,
    )


def memory() -> Panel:
    """Resident memory of each process, and the peak of each run."""
    return line_panel(
        "Memory",
        "Resident memory of each scraped process, and the peak of each run's process, without "
        "that of another device.",
        {
            _TARGET: of_chosen_runs(f"process_resident_memory_bytes{_SCRAPED}"),
            f"{_ON_DEVICE}: peak": with_device(series(run_names.RUN_MEMORY)),
        },
        "bytes",
        width=8,
    )
