"""Sweeps: one suite over many adapters of one base."""

from forwardscope.sweep.engine import Engine
from forwardscope.sweep.local import LocalEngine
from forwardscope.sweep.observer import SweepObserver, SweepObservers, SweepStarted
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.sweep.worker import Worker

__all__ = [
    "Engine",
    "LocalEngine",
    "Measured",
    "SweepObserver",
    "SweepObservers",
    "SweepStarted",
    "Task",
    "Worker",
]
