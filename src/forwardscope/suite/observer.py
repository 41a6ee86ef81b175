"""Being told how a run goes on."""

from __future__ import annotations

from dataclasses import dataclass

from forwardscope.probes import Probe
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.spec import SuiteSpec

__all__ = ["Observer", "Observers", "RunStarted"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run that begins.

    Attributes:
        spec: What is run.
        run_id: Its id.
        trace_id: Of its OpenTelemetry trace, or None.
        started_s: When it began, in seconds since the epoch.
        counters: Reads what it has asked so far; safe from any thread.
        expected_forward_passes: What it should cost when nothing is evicted or
            rejected; None where that could not be planned.
    """

    spec: SuiteSpec
    run_id: str
    trace_id: str | None
    started_s: float
    counters: RunCounters
    expected_forward_passes: int | None = None


class Observer:
    """Told how a run goes on, in the thread that runs it; override what matters."""

    def run_started(self, run: RunStarted) -> None:
        """Take note that the run begins."""

    def probe_started(self, index: int, probe: Probe) -> None:
        """Take note that the probe at this place of the suite begins."""

    def probe_finished(self, result: ProbeResult) -> None:
        """Take note of what it found."""

    def run_finished(self, result: SuiteResult | None) -> None:
        """Take note that the run is over; None where it was aborted."""


class Observers(Observer):
    """Tells several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def run_started(self, run: RunStarted) -> None:
        """Tell all of them."""
        for one in self._observers:
            one.run_started(run)

    def probe_started(self, index: int, probe: Probe) -> None:
        """Tell all of them."""
        for one in self._observers:
            one.probe_started(index, probe)

    def probe_finished(self, result: ProbeResult) -> None:
        """Tell all of them."""
        for one in self._observers:
            one.probe_finished(result)

    def run_finished(self, result: SuiteResult | None) -> None:
        """Tell all of them."""
        for one in self._observers:
            one.run_finished(result)
