"""Sweeps: one suite over many adapters of one base."""

from forwardscope.sweep.adapters import Adapters, find_adapters
from forwardscope.sweep.engine import Engine
from forwardscope.sweep.folder import SweepFolder
from forwardscope.sweep.local import LocalEngine
from forwardscope.sweep.metrics import SweepMetrics
from forwardscope.sweep.observer import SweepObserver, SweepObservers, SweepStarted
from forwardscope.sweep.result import AdapterRow, SweepResult
from forwardscope.sweep.sweep import Sweep, SweepInterrupted, run_sweep, tasks_of
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.sweep.worker import Watch, Worker

__all__ = [
    "AdapterRow",
    "Adapters",
    "Engine",
    "LocalEngine",
    "Measured",
    "Sweep",
    "SweepFolder",
    "SweepInterrupted",
    "SweepMetrics",
    "SweepObserver",
    "SweepObservers",
    "SweepResult",
    "SweepStarted",
    "Task",
    "Watch",
    "Worker",
    "find_adapters",
    "run_sweep",
    "tasks_of",
]
