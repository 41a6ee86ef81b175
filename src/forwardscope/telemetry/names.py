"""Every metric, span and attribute that forwardscope emits, defined once.

The collector, the spans, the dashboards, the alert rules and docs/telemetry.md
take names, types, units, help texts and labels from here; the metrics of requests to
a model server, and the gauges of runs and sweeps, are in `server_names`, `run_names` and
`sweep_names`. The module is longer than others because it is one
table of definitions.
"""

from __future__ import annotations

from typing import Final

from forwardscope.telemetry.definitions import Attribute, Metric, Span
from forwardscope.telemetry.run_names import RUN_METRICS
from forwardscope.telemetry.server_names import SERVER_METRICS
from forwardscope.telemetry.sweep_names import SWEEP_METRICS

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
STORE_EXPIRED_WAITS: Final = Metric(
    "forwardscope_store_expired_waits_total",
    "counter",
    "values",
    "Values that were computed here after another machine had claimed them and did not store them "
    "within a minute.",
    _STORE,
    "increase(forwardscope_store_expired_waits_total[1h]) > 0",
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
    STORE_EXPIRED_WAITS,
    STORE_DROPPED,
    STORE_UNAVAILABLE,
    *SERVER_METRICS,
    TRACE_RECORDS,
    TRACE_WRITE_ERRORS,
    SPANS_TOTAL,
    PROBES_FOLDED,
    BUILD_INFO,
)
#: Metrics of a suite's run, which are also pushed and written to files.
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
SERVER_ADDRESS: Final = Attribute(
    "server.address",
    "string",
    "Host of the server that holds the model, if one does; the span's kind is CLIENT then.",
)
SERVER_PORT: Final = Attribute("server.port", "int", "Port of this server.")
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
    "One forward call of the model, for one prompt or a batch; with a model that a server holds, "
    "all of its requests to the server. The name has the family of the view; families beyond the "
    "first 20 are named `forward other`.",
    (
        *(OPERATION, PROVIDER, MODEL, INPUT_TOKENS, REUSED_TOKENS),
        *(SERVER_ADDRESS, SERVER_PORT),
        *(OP, VIEW, BATCH_SIZE, VERIFICATION, ERROR_TYPE),
    ),
)
SPANS: Final = (SWEEP, SUITE, PROBE, LOOKUP, BATCH, FORWARD)
ATTRIBUTES: Final = tuple(dict.fromkeys(one for span in SPANS for one in span.attributes))


def kind_of(name: str) -> str:
    """Return the kind of a span of this name."""
    return BATCH.kind if name == BATCH.name else name.partition(" ")[0]
