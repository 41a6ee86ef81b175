"""Every metric, span and attribute that forwardscope emits, defined once.

The collector, the spans, the dashboards, the alert rules and docs/telemetry.md
take names, types, units, help texts and labels from here. The module is longer
than others because it is one table of definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from forwardscope.text import printable

__all__ = [
    "ATTRIBUTES",
    "METRICS",
    "SCHEMA_URL",
    "SPANS",
    "TRACER",
    "Attribute",
    "Metric",
    "Span",
    "kind_of",
]

#: The instrumentation scope of all spans.
TRACER: Final = "forwardscope"
#: The semantic conventions that define the attributes `test.*`, `gen_ai.*` and `error.type`.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.40.0"
#: Characters of a span's name; the rest is cut.
_NAME_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    Attributes:
        name: Name in PromQL; the name of a counter ends in `_total`.
        kind: Metric type.
        unit: Unit of the values; a base unit is also part of the name.
        help: One-line description for the exposition format.
        labels: Label names, in order.
        example: PromQL query that uses the metric.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...]
    example: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One span attribute.

    Attributes:
        name: Attribute key.
        type: Type of the value.
        help: Description of the value.
    """

    name: str
    type: Literal["string", "int", "float", "boolean"]
    help: str


@dataclass(frozen=True, slots=True)
class Span:
    """One kind of span, with its attributes.

    Attributes:
        kind: Value of the label `span` of `forwardscope_spans_total`.
        name: Span name; a word in capitals stands for what differs.
        parent: Description of the parent span.
        help: Description of what the span measures.
        attributes: Attributes that the span can have.
    """

    kind: str
    name: str
    parent: str
    help: str
    attributes: tuple[Attribute, ...]

    def named(self, detail: str | None) -> str:
        """Return the name of one span: the kind and a detail, printable and not too long."""
        return f"{self.kind} {printable(detail)}"[:_NAME_LENGTH] if detail else self.kind


# -- metrics of a backend -----------------------------------------------------------------

_SERIES = ("backend", "probe", "view", "op")

LOOKUPS: Final = Metric(
    "forwardscope_cache_lookups_total",
    "counter",
    "lookups",
    "Cache lookups, by result (hit, miss or coalesced) and by the tier that answered: memory, disk "
    "or remote; empty for a miss.",
    (*_SERIES, "result", "tier"),
    'sum(rate(forwardscope_cache_lookups_total{result!="miss"}[5m])) '
    "/ (sum(rate(forwardscope_cache_lookups_total[5m])) > 0)",
)
BYPASSES: Final = Metric(
    "forwardscope_cache_bypasses_total",
    "counter",
    "lookups",
    "Misses for which no cache was asked and whose values are not kept, such as sampled texts.",
    _SERIES,
    "sum by (probe) (increase(forwardscope_cache_bypasses_total[1h]))",
)
VERIFICATIONS: Final = Metric(
    "forwardscope_cache_verifications_total",
    "counter",
    "values",
    "Stored values that were computed again, by outcome: match or mismatch.",
    ("backend", "view", "outcome"),
    'increase(forwardscope_cache_verifications_total{outcome="mismatch"}[1h]) > 0',
)
FORWARD_PASSES: Final = Metric(
    "forwardscope_forward_passes_total",
    "counter",
    "passes",
    "Prompts computed by the model.",
    _SERIES,
    "sum by (view) (rate(forwardscope_forward_passes_total[5m]))",
)
FORWARD_ERRORS: Final = Metric(
    "forwardscope_forward_errors_total",
    "counter",
    "errors",
    "Forward passes that failed, by class of the exception.",
    (*_SERIES, "error_type"),
    "sum by (error_type) (increase(forwardscope_forward_errors_total[1h]))",
)
SCORING_SECONDS: Final = Metric(
    "forwardscope_scoring_seconds_total",
    "counter",
    "seconds",
    "Wall time of scoring calls, including waits for other threads.",
    _SERIES,
    "sum by (probe) (rate(forwardscope_scoring_seconds_total[5m]))",
)
FORWARD_DURATION: Final = Metric(
    "forwardscope_forward_duration_seconds",
    "histogram",
    "seconds",
    "Duration of successful forward passes; each prompt of a batch has an even share of its time.",
    ("backend", "op"),
    "histogram_quantile(0.9, sum by (le, op) "
    "(rate(forwardscope_forward_duration_seconds_bucket[5m])))",
)
BATCH_PROMPTS: Final = Metric(
    "forwardscope_batch_prompts",
    "histogram",
    "prompts",
    "Prompts in each batch of misses sent to the model.",
    ("backend",),
    "rate(forwardscope_batch_prompts_sum[5m]) / (rate(forwardscope_batch_prompts_count[5m]) > 0)",
)
BATCH_PROMPTS_MAX: Final = Metric(
    "forwardscope_batch_prompts_max",
    "gauge",
    "prompts",
    "Prompts in the largest batch so far.",
    ("backend",),
    "max by (backend) (forwardscope_batch_prompts_max)",
)
PREFIX_TOKENS: Final = Metric(
    "forwardscope_prefix_tokens_total",
    "counter",
    "tokens",
    "Prompt tokens of forward passes: computed, or reused from a prefix that an earlier prompt of "
    "the view had computed.",
    ("backend", "result"),
    "sum by (backend, result) (rate(forwardscope_prefix_tokens_total[5m]))",
)
CACHE_ENTRIES: Final = Metric(
    "forwardscope_cache_entries",
    "gauge",
    "entries",
    "Entries in the cache.",
    ("backend",),
    "forwardscope_cache_entries / forwardscope_cache_max_entries",
)
CACHE_BYTES: Final = Metric(
    "forwardscope_cache_bytes",
    "gauge",
    "bytes",
    "Bytes in the cache: values and the characters of keys.",
    ("backend",),
    "forwardscope_cache_bytes",
)
CACHE_MAX_ENTRIES: Final = Metric(
    "forwardscope_cache_max_entries",
    "gauge",
    "entries",
    "Maximum number of entries in the cache.",
    ("backend",),
    "forwardscope_cache_max_entries",
)
CACHE_MAX_BYTES: Final = Metric(
    "forwardscope_cache_max_bytes",
    "gauge",
    "bytes",
    "Maximum number of bytes in the cache; absent without a byte bound.",
    ("backend",),
    "forwardscope_cache_bytes / forwardscope_cache_max_bytes",
)
CACHE_EVICTIONS: Final = Metric(
    "forwardscope_cache_evictions_total",
    "counter",
    "entries",
    "Entries removed to make room.",
    ("backend",),
    "increase(forwardscope_cache_evictions_total[1h])",
)
CACHE_REJECTIONS: Final = Metric(
    "forwardscope_cache_rejections_total",
    "counter",
    "entries",
    "Values not stored because each was larger than the whole cache.",
    ("backend",),
    "increase(forwardscope_cache_rejections_total[1h])",
)
_STORE = ("backend", "store")

STORE_DURATION: Final = Metric(
    "forwardscope_store_operation_duration_seconds",
    "histogram",
    "seconds",
    "Duration of an operation of the store: get (one lookup or batch), put (one transaction), or "
    "of a server lease (one request for what is missing, or to renew it).",
    (*_STORE, "operation"),
    "histogram_quantile(0.9, sum by (le, operation) "
    "(rate(forwardscope_store_operation_duration_seconds_bucket[5m])))",
)
STORE_ERRORS: Final = Metric(
    "forwardscope_store_errors_total",
    "counter",
    "errors",
    "Operations of the store that failed, by class of the error. Lookups are misses then.",
    (*_STORE, "operation", "error_type"),
    "sum by (operation, error_type) (increase(forwardscope_store_errors_total[1h]))",
)
STORE_ENTRIES: Final = Metric(
    "forwardscope_store_entries",
    "gauge",
    "entries",
    "Entries in the store, of all processes that share it.",
    _STORE,
    "max by (store) (forwardscope_store_entries)",
)
STORE_BYTES: Final = Metric(
    "forwardscope_store_bytes",
    "gauge",
    "bytes",
    "Bytes that the store takes, of all processes that share it.",
    _STORE,
    "max by (store) (forwardscope_store_bytes)",
)
STORE_MAX_BYTES: Final = Metric(
    "forwardscope_store_max_bytes",
    "gauge",
    "bytes",
    "Maximum number of bytes in the store; absent without a bound.",
    _STORE,
    "forwardscope_store_bytes / forwardscope_store_max_bytes",
)
STORE_EVICTIONS: Final = Metric(
    "forwardscope_store_evictions_total",
    "counter",
    "entries",
    "Entries that this process removed from the store to make room.",
    _STORE,
    "increase(forwardscope_store_evictions_total[1h])",
)
STORE_CORRUPT: Final = Metric(
    "forwardscope_store_corrupt_total",
    "counter",
    "entries",
    "Damaged entries that were found in the store; each was a miss, and was deleted.",
    _STORE,
    "increase(forwardscope_store_corrupt_total[1h]) > 0",
)
STORE_DROPPED: Final = Metric(
    "forwardscope_store_dropped_total",
    "counter",
    "values",
    "Values that were not stored, by reason: unsupported (of a type that cannot be stored) or "
    "lost (too large, the queue was full or closed, or writing failed).",
    (*_STORE, "reason"),
    "sum by (reason) (increase(forwardscope_store_dropped_total[1h]))",
)
STORE_UNAVAILABLE: Final = Metric(
    "forwardscope_store_unavailable",
    "gauge",
    "",
    "1 after the process has given the store up because of a failure, otherwise 0.",
    _STORE,
    "forwardscope_store_unavailable == 1",
)
TRACE_RECORDS: Final = Metric(
    "forwardscope_trace_records_total",
    "counter",
    "records",
    "Records that are complete in the JSONL trace; absent without a trace.",
    ("backend",),
    "rate(forwardscope_trace_records_total[5m])",
)
TRACE_WRITE_ERRORS: Final = Metric(
    "forwardscope_trace_write_errors_total",
    "counter",
    "records",
    "Records that could not be written to the JSONL trace; absent without a trace.",
    ("backend",),
    "increase(forwardscope_trace_write_errors_total[1h]) > 0",
)
SPANS_TOTAL: Final = Metric(
    "forwardscope_spans_total",
    "counter",
    "spans",
    "Spans by kind and outcome: ended (passed to the program's own SDK), exported, dropped "
    "(queue full, or not delivered) or elided (over the budget, or not sampled).",
    ("backend", "span", "outcome"),
    'increase(forwardscope_spans_total{outcome="dropped"}[1h]) > 0',
)
PROBES_FOLDED: Final = Metric(
    "forwardscope_probe_names_folded",
    "gauge",
    "names",
    "Probe names beyond the first 100, which are counted together as probe _other.",
    ("backend",),
    "forwardscope_probe_names_folded > 0",
)
BUILD_INFO: Final = Metric(
    "forwardscope_build_info",
    "gauge",
    "",
    "Always 1; the labels are the versions of forwardscope and Python.",
    ("version", "python"),
    "count by (version) (forwardscope_build_info)",
)

# -- metrics of a run ---------------------------------------------------------------------

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

# -- metrics of a sweep -------------------------------------------------------------------

_ADAPTER = (*_RUN, "adapter", "position")


def _sweep_gauge(
    name: str,
    unit: str,
    text: str,
    labels: tuple[str, ...] = _RUN,
    example: str = "",
) -> Metric:
    full = f"forwardscope_sweep_{name}"
    return Metric(full, "gauge", unit, text, labels, example or full)


SWEEP_INFO: Final = _sweep_gauge(
    "info",
    "",
    "Always 1; the labels are the start of the sweep that the other gauges describe, ISO 8601, "
    "UTC, and the id of its trace.",
    (*_RUN, "started_at", "trace_id"),
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
    (*_RUN, "state"),
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
    (*_RUN, "result", "tier"),
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
BACKEND_METRICS: Final = (
    LOOKUPS,
    BYPASSES,
    VERIFICATIONS,
    FORWARD_PASSES,
    FORWARD_ERRORS,
    SCORING_SECONDS,
    FORWARD_DURATION,
    BATCH_PROMPTS,
    BATCH_PROMPTS_MAX,
    PREFIX_TOKENS,
    CACHE_ENTRIES,
    CACHE_BYTES,
    CACHE_MAX_ENTRIES,
    CACHE_MAX_BYTES,
    CACHE_EVICTIONS,
    CACHE_REJECTIONS,
    STORE_DURATION,
    STORE_ERRORS,
    STORE_ENTRIES,
    STORE_BYTES,
    STORE_MAX_BYTES,
    STORE_EVICTIONS,
    STORE_CORRUPT,
    STORE_DROPPED,
    STORE_UNAVAILABLE,
    TRACE_RECORDS,
    TRACE_WRITE_ERRORS,
    SPANS_TOTAL,
    PROBES_FOLDED,
    BUILD_INFO,
)
#: Metrics of a suite's run, which are also pushed and written to files.
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
METRICS: Final = BACKEND_METRICS + RUN_METRICS + SWEEP_METRICS

# -- attributes ---------------------------------------------------------------------------

SUITE_NAME: Final = Attribute("test.suite.name", "string", "The suite's name.")
SUITE_STATUS: Final = Attribute(
    "test.suite.run.status",
    "string",
    "success, failure (a probe failed or had an error) or aborted.",
)
RUN_ID: Final = Attribute("forwardscope.run.id", "string", "The run's id, as in trace records.")
RUN_MODEL: Final = Attribute("forwardscope.model", "string", "Name of the model.")
RUN_ADAPTER: Final = Attribute(
    "forwardscope.adapter", "string", "The adapter, or the fine-tuned model in its place."
)
CASE_NAME: Final = Attribute("test.case.name", "string", "The probe's name.")
CASE_STATUS: Final = Attribute(
    "test.case.result.status", "string", "pass or fail; absent for a probe that was skipped."
)
PROBE_KIND: Final = Attribute("forwardscope.probe.kind", "string", "The probe's kind.")
VERDICT: Final = Attribute("forwardscope.probe.verdict", "string", "pass, fail, error or skip.")
SCORE: Final = Attribute("forwardscope.probe.score", "float", "Score of the probe, 0 to 1.")
RAW: Final = Attribute("forwardscope.probe.raw", "float", "What the probe measured.")
Z_SCORE: Final = Attribute(
    "forwardscope.probe.z_score", "float", "Distance from random adapters in standard deviations."
)
TOTAL_LOOKUPS: Final = Attribute("forwardscope.lookups", "int", "Cache lookups.")
TOTAL_HITS: Final = Attribute(
    "forwardscope.cache_hits",
    "int",
    "Lookups without a forward pass of their own, coalesced ones included.",
)
TOTAL_PASSES: Final = Attribute(
    "forwardscope.forward_passes", "int", "Prompts computed by the model."
)
TOTAL_ERRORS: Final = Attribute("forwardscope.forward_errors", "int", "Forward passes that failed.")
TOTAL_FORWARD_S: Final = Attribute(
    "forwardscope.forward_seconds", "float", "Wall time of the forward passes."
)
ELIDED: Final = Attribute(
    "forwardscope.lookups_elided", "int", "Lookups without a span: over the budget, or not sampled."
)
SWEEP_ADAPTERS: Final = Attribute("forwardscope.sweep.adapters", "int", "Adapters of the sweep.")
SWEEP_RESUMED: Final = Attribute(
    "forwardscope.sweep.resumed", "int", "Adapters whose finished result was kept."
)
SWEEP_ERRORS: Final = Attribute(
    "forwardscope.sweep.errors", "int", "Adapters that could not be measured."
)
OP: Final = Attribute("forwardscope.op", "string", "The op, such as next_token_dist.")
VIEW: Final = Attribute("forwardscope.view", "string", "Exact id of the view.")
PROMPT_HASH: Final = Attribute(
    "forwardscope.prompt_hash", "string", "First 12 hex digits of SHA-1 over the prompt's UTF-8."
)
TOP_K: Final = Attribute(
    "forwardscope.top_k", "int", "Number of tokens in the distribution; 0 for other ops."
)
CACHE_RESULT: Final = Attribute(
    "forwardscope.cache.result", "string", "hit, miss (also of a failed lookup) or coalesced."
)
TIER: Final = Attribute(
    "forwardscope.cache.tier", "string", "disk or remote, where a store answered a hit."
)
VERIFIED: Final = Attribute(
    "forwardscope.cache.verified",
    "boolean",
    "Whether a store's value agreed with one computed again, where it was.",
)
BYPASSED: Final = Attribute(
    "forwardscope.cache.bypassed",
    "boolean",
    "True for a miss for which no cache was asked, such as that of a sampled text.",
)
VERIFICATION: Final = Attribute(
    "forwardscope.verification",
    "boolean",
    "True for a call that verifies stored values; it is in no total of forward passes.",
)
OPERATION: Final = Attribute("gen_ai.operation.name", "string", "Always text_completion.")
PROVIDER: Final = Attribute(
    "gen_ai.provider.name", "string", "What runs the model, where the backend says it."
)
MODEL: Final = Attribute(
    "gen_ai.request.model",
    "string",
    "Name of the model; for the views ft and scaled ADAPTER on MODEL.",
)
INPUT_TOKENS: Final = Attribute(
    "gen_ai.usage.input_tokens",
    "int",
    "Tokens of all prompts of the call, where the backend reports them.",
)
REUSED_TOKENS: Final = Attribute(
    "gen_ai.usage.cache_read.input_tokens",
    "int",
    "Of these, tokens in prefixes that an earlier prompt had computed.",
)
BATCH_SIZE: Final = Attribute("forwardscope.batch.size", "int", "Prompts of the call.")
BATCH_HITS: Final = Attribute(
    "forwardscope.batch.hits", "int", "Prompts without a forward pass of their own."
)
BATCH_MISSES: Final = Attribute("forwardscope.batch.misses", "int", "Prompts sent to the model.")
ERROR_TYPE: Final = Attribute(
    "error.type",
    "string",
    "Class of the exception, without its message, which may quote a prompt; probe_failed for a "
    "verdict. The span then has status Error.",
)

_TOTALS = (TOTAL_LOOKUPS, TOTAL_HITS, TOTAL_PASSES, TOTAL_ERRORS, TOTAL_FORWARD_S, ELIDED)

# -- spans --------------------------------------------------------------------------------

SWEEP: Final = Span(
    "sweep",
    "sweep NAME",
    "the current span, or the one in TRACEPARENT",
    "One suite over many adapters, in a sweep only.",
    (
        *(SUITE_NAME, RUN_MODEL, SWEEP_ADAPTERS, SWEEP_RESUMED, SWEEP_ERRORS),
        *(TOTAL_LOOKUPS, TOTAL_HITS, TOTAL_PASSES),
        ERROR_TYPE,
    ),
)
SUITE: Final = Span(
    "suite",
    "suite NAME",
    "the sweep's span, else the current one, or the one in TRACEPARENT",
    "One run of a suite, from its first lookup to its last verdict.",
    (SUITE_NAME, SUITE_STATUS, RUN_ID, RUN_MODEL, RUN_ADAPTER, *_TOTALS, ERROR_TYPE),
)
PROBE: Final = Span(
    "probe",
    "probe NAME",
    "the suite's span",
    "One probe, or the check for finite logits before the probes (`probe finite_check`).",
    (
        *(CASE_NAME, CASE_STATUS, PROBE_KIND, VERDICT, SCORE, RAW, Z_SCORE),
        *_TOTALS,
        ERROR_TYPE,
    ),
)
LOOKUP: Final = Span(
    "lookup",
    "lookup RESULT",
    "the current span: a probe's, lookup batch or the caller's own",
    "One cache lookup: `lookup hit`, `lookup miss`, `lookup coalesced` or `lookup error`. A link "
    "leads to the forward call that computed its value; a single miss has it as a child.",
    (OP, VIEW, PROMPT_HASH, TOP_K, CACHE_RESULT, TIER, VERIFIED, BYPASSED, ERROR_TYPE),
)
BATCH: Final = Span(
    "batch",
    "lookup batch",
    "the current span",
    "One call with several lookups.",
    (OP, VIEW, TOP_K, BATCH_HITS, BATCH_MISSES, ERROR_TYPE),
)
FORWARD: Final = Span(
    "forward",
    "forward FAMILY",
    "lookup miss, lookup error or lookup batch",
    "One forward call of the model, for one prompt or a batch. The name has the family of the "
    "view; families beyond the first 20 are named `forward other`.",
    (
        *(OPERATION, PROVIDER, MODEL, INPUT_TOKENS, REUSED_TOKENS),
        *(OP, VIEW, BATCH_SIZE, VERIFICATION, ERROR_TYPE),
    ),
)
SPANS: Final = (SWEEP, SUITE, PROBE, LOOKUP, BATCH, FORWARD)
ATTRIBUTES: Final = tuple(dict.fromkeys(one for span in SPANS for one in span.attributes))


def kind_of(name: str) -> str:
    """Return the kind of a span of this name."""
    return BATCH.kind if name == BATCH.name else name.partition(" ")[0]
