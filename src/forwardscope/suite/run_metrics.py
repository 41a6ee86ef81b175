"""Gauges of one run. A run is often shorter than a scrape interval, so it also pushes them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from forwardscope.probes import Probe, Verdict
from forwardscope.suite.observer import Observer, RunStarted
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import names
from forwardscope.telemetry.families import add_sample, new_family
from forwardscope.telemetry.names import Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["RunMetrics"]


class RunMetrics(Observer):
    """Observes a run and exports its gauges, as a collector of prometheus_client.

    There are no samples before the run begins. Thread-safe.
    """

    def __init__(self, spec: SuiteSpec) -> None:
        self._lock = threading.Lock()
        self._spec = spec
        self._run: RunStarted | None = None
        self._probes: list[ProbeResult] = []
        self._result: SuiteResult | None = None
        self._ended_s: float | None = None
        self._progress_s = 0.0
        self._lookups_seen = 0

    @property
    def labels(self) -> dict[str, str]:
        """The labels `suite` and `model`, which distinguish runs of different suites and models."""
        return {"suite": self._spec.name or "suite", "model": self._spec.model.label}

    # -- the observer -------------------------------------------------------------------

    def run_started(self, run: RunStarted) -> None:
        """Record the start of the run."""
        with self._lock:
            self._run = run
            self._progress_s = run.started_s

    def probe_started(self, index: int, probe: Probe) -> None:  # noqa: ARG002 - only time matters
        """Record that the run made progress now."""
        with self._lock:
            self._progress_s = time.time()

    def probe_finished(self, result: ProbeResult) -> None:
        """Record the result of a probe."""
        with self._lock:
            self._probes.append(result)
            self._progress_s = time.time()

    def run_finished(self, result: SuiteResult | None) -> None:
        """Record the end of the run."""
        with self._lock:
            self._result = result
            self._ended_s = self._progress_s = time.time()

    # -- the collector ------------------------------------------------------------------

    def describe(self) -> Iterable[Family]:
        """Return every metric, with no values yet."""
        return [new_family(metric) for metric in names.RUN_METRICS]

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have a value now."""
        with self._lock:
            if self._run is None:
                return
            values = self._values(self._run)
            probes = list(self._probes)
        families = {metric: new_family(metric) for metric in names.RUN_METRICS}
        labels = tuple(self.labels.values())
        info = (*labels, self._spec.model.adapter_label, self._run.run_id, self._run.trace_id or "")
        add_sample(families[names.RUN_INFO], names.RUN_INFO, info, 1)
        for metric, value in values.items():
            if value is not None:
                add_sample(families[metric], metric, labels, value)
        for probe in probes:
            _add_probe(families, labels, probe)
        yield from (family for family in families.values() if family.samples)

    def _values(self, run: RunStarted) -> dict[Metric, float | None]:
        tally = run.counters.total()
        now = time.time()
        if self._ended_s is None and tally.lookups != self._lookups_seen:
            self._progress_s = now
        self._lookups_seen = tally.lookups
        wall_s = (self._ended_s or now) - run.started_s
        result = self._result
        return {
            names.RUN_START: run.started_s,
            names.RUN_END: self._ended_s,
            names.RUN_LAST_SUCCESS: self._ended_s if result is not None and result.passed else None,
            names.RUN_PROGRESS: self._progress_s,
            names.RUN_ACTIVE: float(self._ended_s is None),
            names.RUN_COMPLETE: float(result is not None and result.complete),
            names.RUN_WALL: wall_s if result is None else result.wall_s,
            names.RUN_PERIOD: _or_nan(run.spec.period_s),
            names.RUN_LOOKUPS: tally.lookups,
            names.RUN_HITS: tally.cache_hits,
            names.RUN_FORWARD_PASSES: tally.forward_passes,
            names.RUN_EXPECTED: _or_nan(run.expected_forward_passes),
            names.RUN_FORWARD_SECONDS: tally.forward_s,
            names.RUN_ERRORS: tally.forward_errors - run.counters.interrupted,
            names.RUN_EVICTIONS: run.counters.evictions,
            names.RUN_SPANS_DROPPED: run.counters.spans_dropped,
            names.RUN_TRACE_WRITE_ERRORS: run.counters.trace_write_errors,
        }


def _or_nan(value: float | None) -> float:
    """Return `value`, or NaN for None.

    A Pushgateway keeps a value that a push omits; NaN overwrites it.
    """
    return math.nan if value is None else value


def _add_probe(families: dict[Metric, Family], labels: tuple[str, ...], probe: ProbeResult) -> None:
    values = (*labels, probe.name)
    if probe.score is not None:
        add_sample(families[names.PROBE_SCORE], names.PROBE_SCORE, values, probe.score)
    add_sample(families[names.PROBE_DURATION], names.PROBE_DURATION, values, probe.duration_s)
    for verdict in Verdict:
        value = float(verdict is probe.verdict)
        add_sample(
            families[names.PROBE_VERDICT], names.PROBE_VERDICT, (*values, verdict.value), value
        )
