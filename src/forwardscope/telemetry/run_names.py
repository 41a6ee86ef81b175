"""The gauges of a run and its probes; part of `names`."""

from __future__ import annotations

from typing import Final

from forwardscope.telemetry.definitions import Metric

__all__ = [
    "PROBE_DURATION",
    "PROBE_RAW",
    "PROBE_SCORE",
    "PROBE_VERDICT",
    "PROBE_Z",
    "RUN_ACTIVE",
    "RUN_COMPLETE",
    "RUN_CPU_SECONDS",
    "RUN_END",
    "RUN_ERRORS",
    "RUN_EVICTIONS",
    "RUN_EXPECTED",
    "RUN_EXPECTED_LOOKUPS",
    "RUN_FORWARD_PASSES",
    "RUN_FORWARD_SECONDS",
    "RUN_HITS",
    "RUN_INFO",
    "RUN_LAST_SUCCESS",
    "RUN_LOOKUPS",
    "RUN_MEMORY",
    "RUN_METRICS",
    "RUN_PASSED",
    "RUN_PERIOD",
    "RUN_PROGRESS",
    "RUN_REQUESTS",
    "RUN_REQUEST_RETRIES",
    "RUN_REQUEST_THROTTLED",
    "RUN_SPANS_DROPPED",
    "RUN_START",
    "RUN_STARTED",
    "RUN_STORE_CORRUPT",
    "RUN_STORE_DROPPED",
    "RUN_STORE_ERRORS",
    "RUN_STORE_HITS",
    "RUN_STORE_MISMATCHES",
    "RUN_STORE_VERIFIED",
    "RUN_TRACE_WRITE_ERRORS",
    "RUN_WALL",
]

_RUN = ("suite", "model")


def _run_gauge(name: str, unit: str, text: str, example: str = "") -> Metric:
    full = f"forwardscope_run_{name}"
    return Metric(full, "gauge", unit, text, _RUN, example or full)


RUN_INFO: Final = Metric(
    "forwardscope_run_info",
    "gauge",
    "",
    "Always 1; the labels identify the run that the other run gauges describe.",
    (*_RUN, "adapter", "run_id", "trace_id", "device"),
    "forwardscope_run_forward_passes * on (job, instance, suite, model) group_left (trace_id) "
    "forwardscope_run_info",
)
RUN_START: Final = _run_gauge(
    "start_timestamp_seconds", "seconds", "When the run began, in seconds since the epoch."
)
RUN_END: Final = _run_gauge(
    "end_timestamp_seconds",
    "seconds",
    "When the run ended, in seconds since the epoch; absent before that, except at a Pushgateway, "
    "which holds the value of the previous run.",
)
RUN_LAST_SUCCESS: Final = _run_gauge(
    "last_success_timestamp_seconds",
    "seconds",
    "When a run last ended without a failed probe, in seconds since the epoch.",
    "time() - forwardscope_run_last_success_timestamp_seconds",
)
RUN_PASSED: Final = _run_gauge(
    "passed",
    "",
    "1 after a run without a failed probe, 0 after any other; absent before the end, except at a "
    "Pushgateway, which holds the value of the previous run.",
    "forwardscope_run_passed == 0",
)
RUN_STARTED: Final = _run_gauge(
    "started",
    "",
    "1 after a run whose model was loaded, 0 after one that could not start; absent before the "
    "end, except at a Pushgateway.",
    "forwardscope_run_started == 0",
)
RUN_PROGRESS: Final = _run_gauge(
    "progress_timestamp_seconds",
    "seconds",
    "When the run last made progress, in seconds since the epoch.",
    "(time() - forwardscope_run_progress_timestamp_seconds) and forwardscope_run_active == 1",
)
RUN_ACTIVE: Final = _run_gauge("active", "", "1 during the run, 0 after it.")
RUN_COMPLETE: Final = _run_gauge(
    "complete",
    "",
    "1 after a run in which all probes were measured; 0 before that, and after a run that was "
    "interrupted or in which a probe had an error. Incomplete runs are not compared with others.",
)
RUN_WALL: Final = _run_gauge(
    "wall_seconds", "seconds", "Wall time of the run, without model loading."
)
RUN_PERIOD: Final = _run_gauge(
    "period_seconds",
    "seconds",
    "Intended interval between runs of the suite; NaN where the suite names none.",
    "time() - forwardscope_run_start_timestamp_seconds > 2 * forwardscope_run_period_seconds",
)
RUN_LOOKUPS: Final = _run_gauge("lookups", "lookups", "Cache lookups of the run.")
RUN_HITS: Final = _run_gauge(
    "hits",
    "lookups",
    "Lookups of the run without a forward pass of their own, coalesced ones included.",
    "forwardscope_run_hits / (forwardscope_run_lookups > 0)",
)
RUN_STORE_HITS: Final = _run_gauge(
    "store_hits",
    "lookups",
    "Lookups of the run that its store answered.",
    "forwardscope_run_store_hits + forwardscope_run_forward_passes",
)
RUN_STORE_VERIFIED: Final = _run_gauge(
    "store_verified", "values", "Values of the store that the run computed again and that agreed."
)
RUN_STORE_MISMATCHES: Final = _run_gauge(
    "store_mismatches",
    "values",
    "Values of the store that the run computed again and that did not agree.",
    "forwardscope_run_store_mismatches > 0",
)
RUN_STORE_CORRUPT: Final = _run_gauge(
    "store_corrupt", "entries", "Damaged entries that the run found in its store."
)
RUN_STORE_DROPPED: Final = _run_gauge(
    "store_dropped", "values", "Values of the run that were lost before they were stored."
)
RUN_STORE_ERRORS: Final = _run_gauge(
    "store_errors",
    "errors",
    "Operations of the run's store that failed.",
    "forwardscope_run_store_errors + forwardscope_run_store_corrupt > 0",
)
RUN_REQUESTS: Final = _run_gauge(
    "server_requests",
    "requests",
    "Requests of the run to the server that holds its model; 0 for a model in the process.",
)
RUN_REQUEST_RETRIES: Final = _run_gauge(
    "server_retries",
    "retries",
    "Attempts of the run to send a request to the model server again.",
    "forwardscope_run_server_retries / (forwardscope_run_server_requests > 0)",
)
RUN_REQUEST_THROTTLED: Final = _run_gauge(
    "server_throttled",
    "answers",
    "Answers of the model server in the run that refuse one request too many.",
    "forwardscope_run_server_throttled > 0",
)
RUN_FORWARD_PASSES: Final = _run_gauge(
    "forward_passes",
    "passes",
    "Prompts that the model computed in the run.",
    "(forwardscope_run_forward_passes and forwardscope_run_complete == 1)\n"
    "> 1.1 * quantile_over_time(0.5, "
    "(forwardscope_run_forward_passes and forwardscope_run_complete == 1)[7d:5m])",
)
RUN_EXPECTED: Final = _run_gauge(
    "expected_forward_passes",
    "passes",
    "Forward passes that the run needs if nothing is evicted; NaN where the run could not be "
    "planned.",
    "forwardscope_run_forward_passes + forwardscope_run_store_hits "
    "> forwardscope_run_expected_forward_passes",
)
RUN_EXPECTED_LOOKUPS: Final = _run_gauge(
    "expected_lookups",
    "lookups",
    "Cache lookups of the run's plan; NaN where the run could not be planned. The hit rate that a "
    "run can attain is 1 - expected forward passes / expected lookups.",
    "1 - forwardscope_run_expected_forward_passes / (forwardscope_run_expected_lookups > 0)",
)
RUN_FORWARD_SECONDS: Final = _run_gauge(
    "forward_seconds",
    "seconds",
    "Wall time of the run's forward passes, failed ones included.",
    "forwardscope_run_forward_seconds / (forwardscope_run_forward_passes > 0)",
)
RUN_CPU_SECONDS: Final = _run_gauge(
    "cpu_seconds",
    "seconds",
    "CPU time of the process in the run, of all threads.",
    "forwardscope_run_cpu_seconds / (forwardscope_run_wall_seconds > 0)",
)
RUN_MEMORY: Final = _run_gauge(
    "memory_peak_bytes",
    "bytes",
    "Largest resident memory of the process so far, without that of another device; NaN where the "
    "system does not report it.",
)
RUN_ERRORS: Final = _run_gauge(
    "errors", "errors", "Failed forward passes of the run; interrupted ones are not counted."
)
RUN_EVICTIONS: Final = _run_gauge("evictions", "entries", "Entries evicted in the run.")
RUN_SPANS_DROPPED: Final = _run_gauge(
    "spans_dropped", "spans", "Spans of the run that were not delivered."
)
RUN_TRACE_WRITE_ERRORS: Final = _run_gauge(
    "trace_write_errors", "records", "Records of the run that are missing from its JSONL trace."
)
PROBE_SCORE: Final = Metric(
    "forwardscope_probe_score",
    "gauge",
    "",
    "Score of a probe, 0 to 1; NaN before the probe has ended, and for a probe without one.",
    (*_RUN, "probe"),
    "forwardscope_probe_score < 0.5",
)
PROBE_RAW: Final = Metric(
    "forwardscope_probe_raw",
    "gauge",
    "",
    "What a probe measured, in its own unit, such as nats; NaN as for the score. It differs where "
    "the score is all but 1.",
    (*_RUN, "probe"),
    "forwardscope_probe_raw",
)
PROBE_Z: Final = Metric(
    "forwardscope_probe_z_score",
    "gauge",
    "",
    "Distance of what a probe measured from random adapters, in their standard deviations; NaN as "
    "for the score.",
    (*_RUN, "probe"),
    "forwardscope_probe_z_score < 3",
)
PROBE_DURATION: Final = Metric(
    "forwardscope_probe_duration_seconds",
    "gauge",
    "seconds",
    "Wall time of a probe; NaN before it has ended.",
    (*_RUN, "probe"),
    "topk(3, forwardscope_probe_duration_seconds)",
)
PROBE_VERDICT: Final = Metric(
    "forwardscope_probe_verdict",
    "gauge",
    "",
    "1 for the verdict of a probe, 0 for the others: pass, fail, error, skip; all 0 before it has "
    "ended. A check for finite logits that failed is a probe, finite_check.",
    (*_RUN, "probe", "verdict"),
    'forwardscope_probe_verdict{verdict=~"fail|error"} == 1',
)

RUN_METRICS: Final = (
    RUN_INFO,
    RUN_START,
    RUN_END,
    RUN_LAST_SUCCESS,
    RUN_PASSED,
    RUN_STARTED,
    RUN_PROGRESS,
    RUN_ACTIVE,
    RUN_COMPLETE,
    RUN_WALL,
    RUN_PERIOD,
    RUN_LOOKUPS,
    RUN_HITS,
    RUN_STORE_HITS,
    RUN_STORE_VERIFIED,
    RUN_STORE_MISMATCHES,
    RUN_STORE_CORRUPT,
    RUN_STORE_DROPPED,
    RUN_STORE_ERRORS,
    RUN_REQUESTS,
    RUN_REQUEST_RETRIES,
    RUN_REQUEST_THROTTLED,
    RUN_FORWARD_PASSES,
    RUN_EXPECTED,
    RUN_EXPECTED_LOOKUPS,
    RUN_FORWARD_SECONDS,
    RUN_CPU_SECONDS,
    RUN_MEMORY,
    RUN_ERRORS,
    RUN_EVICTIONS,
    RUN_SPANS_DROPPED,
    RUN_TRACE_WRITE_ERRORS,
    PROBE_SCORE,
    PROBE_RAW,
    PROBE_Z,
    PROBE_DURATION,
    PROBE_VERDICT,
)
#: Metrics of a sweep over adapters, which are delivered as those of a run.
