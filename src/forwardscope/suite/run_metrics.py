"""Gauges of one run. A run is often shorter than a scrape interval, so it also pushes them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from forwardscope.core.series import Counts
from forwardscope.probes import Probe, Verdict
from forwardscope.suite.observer import Observer, RunStarted
from forwardscope.suite.process_use import cpu_seconds, peak_memory_bytes
from forwardscope.suite.result import ProbeResult, SuiteResult, Tally
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import run_names
from forwardscope.telemetry.families import add_sample, new_family
from forwardscope.telemetry.names import Metric

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["RunMetrics"]

#: Passes that an interrupt ended are no errors of the model.
_INTERRUPT = KeyboardInterrupt.__name__


class RunMetrics(Observer):
    """Observes a run, or one after the other, and exports the gauges of the latest.

    A collector of prometheus_client.

    There are no samples before the run begins or ends; one that ends before it begins
    could not start. Each probe of the suite has samples from the start, so that a push
    replaces those of the run before. Thread-safe.
    """

    def __init__(self, spec: SuiteSpec) -> None:
        self._lock = threading.Lock()
        self._spec = spec
        self._run: RunStarted | None = None
        self._probes: dict[str, ProbeResult | None] = dict.fromkeys(p.name for p in spec.probes)
        self._result: SuiteResult | None = None
        self._created_s = self._progress_s = time.time()
        self._ended_s: float | None = None
        self._cpu_start_s = cpu_seconds()
        self._at_end: dict[Metric, float | None] = {}
        self._lookups_seen = 0

    @property
    def labels(self) -> dict[str, str]:
        """The labels `suite` and `model`, which distinguish runs of different suites and models."""
        return {"suite": self._spec.name or "suite", "model": self._spec.model.label}

    @property
    def started(self) -> bool:
        """Whether the run has begun."""
        return self._run is not None

    @property
    def passed_since_s(self) -> float | None:
        """Start of the run, in seconds since the epoch, if it has passed."""
        passed = self._run is not None and self._result is not None and self._result.passed
        return self._run.started_s if passed and self._run else None

    # -- the observer -------------------------------------------------------------------

    def run_started(self, run: RunStarted) -> None:
        """Record the start of the run, and forget the one before."""
        with self._lock:
            self._spec, self._run = run.spec, run
            self._probes = dict.fromkeys(probe.name for probe in run.spec.probes)
            self._result = self._ended_s = None
            self._at_end = {}
            self._lookups_seen = 0
            self._progress_s = run.started_s
            self._cpu_start_s = cpu_seconds()

    def probe_started(self, index: int, probe: Probe) -> None:  # noqa: ARG002 - only time matters
        """Record that the run made progress now."""
        with self._lock:
            self._progress_s = time.time()

    def probe_finished(self, result: ProbeResult) -> None:
        """Record the result of a probe."""
        with self._lock:
            self._probes[result.name] = result
            self._progress_s = time.time()

    def run_finished(self, result: SuiteResult | None) -> None:
        """Record the end of the run, with a failed check for finite logits among its probes."""
        with self._lock:
            self._result = result
            self._probes |= {probe.name: probe for probe in result.probes} if result else {}
            self._ended_s = self._progress_s = time.time()
            self._at_end = self._process()

    # -- the collector ------------------------------------------------------------------

    def describe(self) -> Iterable[Family]:
        """Return every metric, with no values yet."""
        return [new_family(metric) for metric in run_names.RUN_METRICS]

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have a value now."""
        with self._lock:
            if self._run is None and self._ended_s is None:
                return
            values = self._values(self._run)
            probes = dict(self._probes)
            device = self._run.device if self._run else ""
            ids = (self._run.run_id, self._run.trace_id or "") if self._run else ("", "")
        families = {metric: new_family(metric) for metric in run_names.RUN_METRICS}
        labels = tuple(self.labels.values())
        info = (*labels, self._spec.model.adapter_label, *ids, device)
        add_sample(families[run_names.RUN_INFO], run_names.RUN_INFO, info, 1)
        for metric, value in values.items():
            if value is not None:
                add_sample(families[metric], metric, labels, value)
        for name, probe in probes.items():
            _add_probe(families, (*labels, name), probe)
        yield from (family for family in families.values() if family.samples)

    def _values(self, run: RunStarted | None) -> dict[Metric, float | None]:
        counters = None if run is None else run.counters
        counts = Counts() if counters is None else counters.total()
        tally = Tally.of(counts)
        now = time.time()
        if self._ended_s is None and tally.lookups != self._lookups_seen:
            self._progress_s = now
        self._lookups_seen = tally.lookups
        started_s = self._created_s if run is None else run.started_s
        return (
            self._outcome(run is not None)
            | (self._at_end or self._process())
            | self._store(counters)
            | self._server(counters)
            | {
                run_names.RUN_START: started_s,
                run_names.RUN_PROGRESS: self._progress_s,
                run_names.RUN_WALL: (self._ended_s or now) - started_s
                if self._result is None
                else self._result.wall_s,
                run_names.RUN_PERIOD: _or_nan(self._spec.period_s),
                run_names.RUN_LOOKUPS: tally.lookups,
                run_names.RUN_HITS: tally.cache_hits,
                run_names.RUN_STORE_HITS: tally.store_hits,
                run_names.RUN_FORWARD_PASSES: tally.forward_passes,
                run_names.RUN_EXPECTED: _or_nan(run.expected_forward_passes if run else None),
                run_names.RUN_EXPECTED_LOOKUPS: _or_nan(run.expected_lookups if run else None),
                run_names.RUN_FORWARD_SECONDS: tally.forward_s,
                run_names.RUN_ERRORS: counts.forward_errors - counts.errors[_INTERRUPT],
                run_names.RUN_EVICTIONS: counters.evictions if counters else 0,
                run_names.RUN_SPANS_DROPPED: counters.spans_dropped if counters else 0,
                run_names.RUN_TRACE_WRITE_ERRORS: counters.trace_write_errors if counters else 0,
            }
        )

    def _store(self, counters: RunCounters | None) -> dict[Metric, float | None]:
        if self._result is not None:
            used = self._result.store
        else:
            used = None if counters is None else counters.store_use(flush=False)
        return {
            run_names.RUN_STORE_VERIFIED: used.verified if used else 0,
            run_names.RUN_STORE_MISMATCHES: used.mismatches if used else 0,
            run_names.RUN_STORE_CORRUPT: used.corrupt if used else 0,
            run_names.RUN_STORE_DROPPED: used.dropped if used else 0,
            run_names.RUN_STORE_ERRORS: used.errors if used else 0,
        }

    def _server(self, counters: RunCounters | None) -> dict[Metric, float | None]:
        if self._result is not None:
            used = self._result.server
        else:
            used = None if counters is None else counters.server_use()
        return {
            run_names.RUN_REQUESTS: used.requests if used else 0,
            run_names.RUN_REQUEST_RETRIES: used.retries if used else 0,
            run_names.RUN_REQUEST_THROTTLED: used.throttled if used else 0,
        }

    def _process(self) -> dict[Metric, float | None]:
        return {
            run_names.RUN_CPU_SECONDS: cpu_seconds() - self._cpu_start_s,
            run_names.RUN_MEMORY: _or_nan(peak_memory_bytes()),
        }

    def _outcome(self, started: bool) -> dict[Metric, float | None]:
        passed = self._result is not None and self._result.passed
        ended = self._ended_s is not None
        return {
            run_names.RUN_END: self._ended_s,
            run_names.RUN_LAST_SUCCESS: self._ended_s if passed else None,
            run_names.RUN_PASSED: float(passed) if ended else None,
            run_names.RUN_STARTED: float(started) if ended else None,
            run_names.RUN_ACTIVE: float(not ended),
            run_names.RUN_COMPLETE: float(self._result is not None and self._result.complete),
        }


def _or_nan(value: float | None) -> float:
    """Return `value`, or NaN for None.

    A Pushgateway keeps a value that a push omits; NaN overwrites it.
    """
    return math.nan if value is None else value


def _add_probe(
    families: dict[Metric, Family], labels: tuple[str, ...], probe: ProbeResult | None
) -> None:
    values = {
        run_names.PROBE_SCORE: probe.score if probe else None,
        run_names.PROBE_RAW: probe.raw if probe else None,
        run_names.PROBE_Z: probe.z_score if probe else None,
        run_names.PROBE_DURATION: probe.duration_s if probe else None,
    }
    for metric, value in values.items():
        add_sample(families[metric], metric, labels, _or_nan(value))
    for verdict in Verdict:
        value = float(probe is not None and verdict is probe.verdict)
        add_sample(
            families[run_names.PROBE_VERDICT],
            run_names.PROBE_VERDICT,
            (*labels, verdict.value),
            value,
        )
