"""Observers of a run's progress."""

from __future__ import annotations

from dataclasses import dataclass

from forwardscope.probes import Probe
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.spec import SuiteSpec

__all__ = ["Observer", "Observers", "RunStarted"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Start of a run.

    Attributes:
        spec: The suite that is run.
        run_id: Id of the run.
        trace_id: Id of the run's OpenTelemetry trace, or None.
        started_s: Start of the run, in seconds since the epoch.
        counters: Counts of the run so far; thread-safe.
        expected_forward_passes: Planned forward passes if nothing is evicted or
            rejected; None if the run could not be planned.
        expected_lookups: Planned lookups; None likewise.
        device: Device of the weights.
    """

    spec: SuiteSpec
    run_id: str
    trace_id: str | None
    started_s: float
    counters: RunCounters
    expected_forward_passes: int | None = None
    expected_lookups: int | None = None
    device: str = ""


class Observer:
    """Base class that receives the events of a run, in the thread of the run."""

    def run_started(self, run: RunStarted) -> None:
        """Handle the start of the run."""

    def probe_started(self, index: int, probe: Probe) -> None:
        """Handle the start of a probe; `index` is its position in the suite."""

    def probe_finished(self, result: ProbeResult) -> None:
        """Handle the result of a probe."""

    def run_finished(self, result: SuiteResult | None) -> None:
        """Handle the end of the run; the result is None if the run was aborted."""


class Observers(Observer):
    """Forwards each event to several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def run_started(self, run: RunStarted) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.run_started(run)

    def probe_started(self, index: int, probe: Probe) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.probe_started(index, probe)

    def probe_finished(self, result: ProbeResult) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.probe_finished(result)

    def run_finished(self, result: SuiteResult | None) -> None:
        """Forward to all observers."""
        for observer in self._observers:
            observer.run_finished(result)
