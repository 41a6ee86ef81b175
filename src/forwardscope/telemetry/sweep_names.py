"""The gauges of a sweep and its adapters; part of `names`."""

from __future__ import annotations

from typing import Final

from forwardscope.telemetry.definitions import Metric

__all__ = [
    "SWEEP_ACTIVE",
    "SWEEP_ADAPTERS_BY_STATE",
    "SWEEP_ADAPTERS_OMITTED",
    "SWEEP_ADAPTER_INFO",
    "SWEEP_ADAPTER_PASSED",
    "SWEEP_ADAPTER_PASSES",
    "SWEEP_ADAPTER_PASSES_NEEDED",
    "SWEEP_ADAPTER_SCORE",
    "SWEEP_ADAPTER_WALL",
    "SWEEP_END",
    "SWEEP_FORWARD_PASSES",
    "SWEEP_INFO",
    "SWEEP_LOOKUPS",
    "SWEEP_METRICS",
    "SWEEP_PASSES_NEEDED",
    "SWEEP_PROBES_OMITTED",
    "SWEEP_PROBE_RAW",
    "SWEEP_PROBE_SCORE",
    "SWEEP_PROBE_VERDICT",
    "SWEEP_START",
    "SWEEP_WORKERS",
    "SWEEP_WORKERS_BUSY",
    "SWEEP_WORKERS_LOST",
]

_SWEEP = ("suite", "model")
_ADAPTER = (*_SWEEP, "adapter", "position")


def _sweep_gauge(
    name: str,
    unit: str,
    text: str,
    labels: tuple[str, ...] = _SWEEP,
    example: str = "",
) -> Metric:
    full = f"forwardscope_sweep_{name}"
    return Metric(full, "gauge", unit, text, labels, example or full)


SWEEP_INFO: Final = _sweep_gauge(
    "info",
    "",
    "Always 1; the labels are the start of the sweep that the other gauges describe, ISO 8601, "
    "UTC, and the id of its trace.",
    (*_SWEEP, "started_at", "trace_id"),
    "forwardscope_sweep_forward_passes * on (job, instance, suite, model) group_left (trace_id) "
    "forwardscope_sweep_info",
)
SWEEP_START: Final = _sweep_gauge(
    "start_timestamp_seconds", "seconds", "When the sweep began, in seconds since the epoch."
)
SWEEP_END: Final = _sweep_gauge(
    "end_timestamp_seconds",
    "seconds",
    "When the sweep ended, in seconds since the epoch; NaN before that.",
    example="forwardscope_sweep_end_timestamp_seconds - forwardscope_sweep_start_timestamp_seconds",
)
SWEEP_ACTIVE: Final = _sweep_gauge("active", "", "1 during the sweep, 0 after it.")
SWEEP_ADAPTERS_BY_STATE: Final = _sweep_gauge(
    "adapters",
    "adapters",
    "Adapters of the sweep by state: pending, running, finished, resumed (an earlier sweep had "
    "measured it) or error (it could not be measured).",
    (*_SWEEP, "state"),
    'forwardscope_sweep_adapters{state="error"} > 0',
)
SWEEP_ADAPTERS_OMITTED: Final = _sweep_gauge(
    "adapters_omitted",
    "adapters",
    "Adapters beyond the first 200, which have no series of their own.",
    example="forwardscope_sweep_adapters_omitted > 0",
)
SWEEP_PROBES_OMITTED: Final = _sweep_gauge(
    "probes_omitted",
    "probes",
    "Probes beyond the first 100, which have no series of their own.",
    example="forwardscope_sweep_probes_omitted > 0",
)
SWEEP_WORKERS: Final = _sweep_gauge(
    "workers", "workers", "Workers that the sweep has, or is going to start."
)
SWEEP_WORKERS_BUSY: Final = _sweep_gauge(
    "workers_busy",
    "workers",
    "Workers that measure an adapter now.",
    example="forwardscope_sweep_workers_busy < forwardscope_sweep_workers",
)
SWEEP_WORKERS_LOST: Final = _sweep_gauge(
    "workers_lost",
    "workers",
    "Workers that were lost so far.",
    example="forwardscope_sweep_workers_lost > 0",
)
SWEEP_LOOKUPS: Final = _sweep_gauge(
    "lookups",
    "lookups",
    "Lookups of the adapters that the sweep has measured, by result (hit or miss) and by the tier "
    "that answered: memory, disk or remote; empty for a miss. Coalesced ones are hits of the "
    "memory.",
    (*_SWEEP, "result", "tier"),
    'sum by (tier) (forwardscope_sweep_lookups{result="hit"})',
)
SWEEP_FORWARD_PASSES: Final = _sweep_gauge(
    "forward_passes",
    "passes",
    "Prompts that the model computed for the adapters that the sweep has measured.",
)
SWEEP_PASSES_NEEDED: Final = _sweep_gauge(
    "forward_passes_needed",
    "passes",
    "Forward passes that those adapters would have needed without a store.",
    example="1 - forwardscope_sweep_forward_passes "
    "/ (forwardscope_sweep_forward_passes_needed > 0)",
)
SWEEP_ADAPTER_INFO: Final = _sweep_gauge(
    "adapter_info",
    "",
    "Always 1; the labels are the state of an adapter, the worker that measured it and the id of "
    "its run, empty before there is one. position counts from 001, so that texts sort.",
    (*_ADAPTER, "state", "worker", "run_id"),
    'forwardscope_sweep_adapter_info{state="error"}',
)
SWEEP_ADAPTER_SCORE: Final = _sweep_gauge(
    "adapter_score",
    "",
    "Score of the suite on an adapter, 0 to 1; NaN before it has ended, and without one.",
    _ADAPTER,
)
SWEEP_ADAPTER_PASSED: Final = _sweep_gauge(
    "adapter_passed",
    "",
    "1 if an adapter passed the suite, otherwise 0; NaN before it has ended.",
    _ADAPTER,
    "forwardscope_sweep_adapter_passed == 0",
)
SWEEP_ADAPTER_WALL: Final = _sweep_gauge(
    "adapter_wall_seconds",
    "seconds",
    "Wall time of an adapter's run, without loading; NaN before it has ended, and of an error.",
    _ADAPTER,
    "topk(3, forwardscope_sweep_adapter_wall_seconds)",
)
SWEEP_ADAPTER_PASSES: Final = _sweep_gauge(
    "adapter_forward_passes",
    "passes",
    "Prompts that the model computed for an adapter when it was measured; NaN as for its wall "
    "time.",
    _ADAPTER,
)
SWEEP_ADAPTER_PASSES_NEEDED: Final = _sweep_gauge(
    "adapter_forward_passes_needed",
    "passes",
    "Forward passes that an adapter would have needed without a store; NaN as for its wall time.",
    _ADAPTER,
)
SWEEP_PROBE_SCORE: Final = _sweep_gauge(
    "probe_score",
    "",
    "Score of a probe on an adapter, 0 to 1; NaN before the adapter has ended, and without one.",
    (*_ADAPTER, "probe"),
    "min by (probe) (forwardscope_sweep_probe_score)",
)
SWEEP_PROBE_RAW: Final = _sweep_gauge(
    "probe_raw",
    "",
    "What a probe measured on an adapter, in its own unit; NaN as for the score.",
    (*_ADAPTER, "probe"),
)
SWEEP_PROBE_VERDICT: Final = _sweep_gauge(
    "probe_verdict",
    "",
    "1 for the verdict of a probe on an adapter: pass, fail, error or skip; before the adapter has "
    "ended, 0 for an empty one.",
    (*_ADAPTER, "probe", "verdict"),
    'count by (adapter) (forwardscope_sweep_probe_verdict{verdict="fail"})',
)

#: Metrics that a collector reads from a backend's ledger.

SWEEP_METRICS: Final = (
    SWEEP_INFO,
    SWEEP_START,
    SWEEP_END,
    SWEEP_ACTIVE,
    SWEEP_ADAPTERS_BY_STATE,
    SWEEP_ADAPTERS_OMITTED,
    SWEEP_PROBES_OMITTED,
    SWEEP_WORKERS,
    SWEEP_WORKERS_BUSY,
    SWEEP_WORKERS_LOST,
    SWEEP_LOOKUPS,
    SWEEP_FORWARD_PASSES,
    SWEEP_PASSES_NEEDED,
    SWEEP_ADAPTER_INFO,
    SWEEP_ADAPTER_SCORE,
    SWEEP_ADAPTER_PASSED,
    SWEEP_ADAPTER_WALL,
    SWEEP_ADAPTER_PASSES,
    SWEEP_ADAPTER_PASSES_NEEDED,
    SWEEP_PROBE_SCORE,
    SWEEP_PROBE_RAW,
    SWEEP_PROBE_VERDICT,
)
