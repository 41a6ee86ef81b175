"""Write docs/telemetry.md from names.py: `python -m forwardscope.telemetry.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from forwardscope.core.ledger import (
    BATCH_BOUNDS,
    DURATION_BOUNDS_S,
    MAX_ERROR_CLASSES,
    OPERATION_BOUNDS_S,
)
from forwardscope.core.server_requests import REQUEST_BOUNDS_S
from forwardscope.telemetry import names, run_names, server_names, sweep_names
from forwardscope.telemetry.collector import MAX_PROBES
from forwardscope.telemetry.names import Metric, Span
from forwardscope.telemetry.span_queue import CAPACITY
from forwardscope.telemetry.spans import DEFAULT_BUDGET

__all__ = ["reference"]

_INTRODUCTION = f"""\
<!-- Written by `make docs` from src/forwardscope/telemetry/names.py; edit that file instead. -->
# Telemetry reference

forwardscope emits spans of lookups and forward calls, metrics of each backend, and gauges of each
run. All of them agree with one ledger: after a run, JSONL records = lookups = spans of lookups
exported + dropped + elided. The README [shows how to export them](../README.md#see-it).

How to find, read and compare runs in a viewer: [Jaeger](viewers/jaeger.md),
[Phoenix](viewers/phoenix.md), [MLflow](viewers/mlflow.md), [Grafana Tempo](viewers/tempo.md).

No prompt leaves the process: spans and records have hashes of prompts, and metrics have neither.

## Spans

The tracer is `{names.TRACER}`, the kind of spans is INTERNAL (CLIENT for a forward call of a model
that a server holds), and the spans of a run share one clock. Names say what happened and are few:
they have the suite, the probe, the result of a lookup or the view family of a forward call, but no
prompt, λ or seed, and at most 64 characters. A program that selects lookups uses the attribute
`{names.CACHE_RESULT.name}`, not the name.

```
{names.SWEEP.name}                   (of a sweep only)
└ {names.SUITE.name}
  └ {names.PROBE.name}
    ├ lookup hit
    ├ lookup miss              (also lookup coalesced, lookup error)
    │ └ {names.FORWARD.name}
    └ {names.BATCH.name}
      ├ lookup hit, lookup miss …
      └ {names.FORWARD.name}       (one a forward call, of all its misses)
```

A forward span is current while the model runs, so spans of your code become its children. The
parent of a lookup is the current span; in a thread without one, it is the span that was current at
`set_current_probe`.

**Self time.** In a run of one thread the self times of all spans (the time in which they have no
child) sum to the run, and the critical path leads through the forward calls. The lookups of a batch
follow one another, each with an even share of the time up to the batch's first forward call; one
that waits for another thread lasts as long as it waits. The `wall_ms` of a JSONL record is
different: there a miss has its share of the forward call.

**Links.** A lookup leads to the forward call that computed its value: a single miss by its child,
every other lookup by one link, also to a call that failed, and to a call of an earlier run. A link
can lead to a span that was dropped. A value has no link if its call was not sampled.

**Failures.** A failed span has status Error and `error.type`, but never the exception's message. A
probe with a failed verdict has the `error.type` `probe_failed`; a suite has that of its first
failed probe, and a sweep that of its first adapter that did not pass.

Only the first {DEFAULT_BUDGET:,} hits of a probe have spans (`span_budget`, `--span-budget`); a
batch of hits that are all over the budget has none. Misses and forward calls always have one. A
worker thread makes the spans of hits, coalesced lookups and the misses of batches afterwards, from
the times at which they began and ended. At most {CAPACITY:,} lookups wait for their spans, or
{2 * CAPACITY:,} with misses; further ones are counted as dropped.
"""

_METRICS_OF_BACKENDS = f"""\
## Metrics of a backend

A scrape reads them from the ledger. `view` is the view family (`base`, `ft`, `scaled`, `null`).
`probe` is empty for a lookup outside any probe; probe names beyond the first {MAX_PROBES} are
counted as `_other`, and so are exception classes beyond the first {MAX_ERROR_CLASSES}.

`store` is the file of a store. Its entries and bytes are those of all processes that use it: take
the maximum over processes, not the sum. All else is what this process did. Several backends with
one store export it once, under the name of the first.

`server` is scheme, host and port of a model server, without path, user and query. Backends that
compute in this process have no metrics with it.

The multiprocess mode of prometheus_client (`PROMETHEUS_MULTIPROC_DIR`) reads files to which these
metrics are not written. To serve those of the answering process, register the backend on the
registry of the `MultiProcessCollector`: `register(backend.instrumentation, registry)`.

Over OTLP (`--otlp-metrics`) a metric has the same name and labels, a unit of `s` or `By` if its
name has one, and cumulative values. The resource has `service.name`, `service.version`,
`service.instance.id` (suite and model), and what `OTEL_RESOURCE_ATTRIBUTES` adds.
"""

_METRICS_OF_RUNS = """\
## Metrics of a run

A suite is a batch job, often shorter than a scrape interval, so its outcome is also exported as
gauges: at the endpoint, over OTLP, in the metrics file, and at a Pushgateway in the group
`job="forwardscope"`, `suite`, `model`, and `instance` while another run of the suite is active.
A run that could not load its model pushes its end too, with `run_id=""`. A failed run does not push
`forwardscope_run_last_success_timestamp_seconds`, so the gateway keeps the earlier value.
"""


_METRICS_OF_SWEEPS = """\
## Metrics of a sweep

A sweep exports these gauges beside those of its runs, in the same places. `position` counts the
adapters in their order, from `001`. The series of an adapter or a probe are there from the start,
without a value until the adapter has ended. The first 200 adapters have them, with 100 probes each;
how many are omitted is exported, and the other gauges count all.
"""


def _bounds(bounds: Iterable[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


_BUCKETS = f"""\
Buckets of `{names.FORWARD_DURATION.name}`, in seconds: {_bounds(DURATION_BOUNDS_S)}.
With OpenMetrics and over OTLP each bucket has the trace id of its latest forward pass as an
exemplar.

Buckets of `{names.BATCH_PROMPTS.name}`: {_bounds(BATCH_BOUNDS)}.

Buckets of `{names.STORE_DURATION.name}`, in seconds: {_bounds(OPERATION_BOUNDS_S)}.

Buckets of `{server_names.REQUEST_DURATION.name}`, in seconds: {_bounds(REQUEST_BOUNDS_S)}.
Each has an exemplar likewise.
"""


def reference() -> str:
    """Return the text of docs/telemetry.md."""
    parts = [
        _INTRODUCTION,
        *map(_span, names.SPANS),
        _METRICS_OF_BACKENDS,
        _metrics(names.BACKEND_METRICS),
        _BUCKETS,
        _queries(names.BACKEND_METRICS),
        _METRICS_OF_RUNS,
        _metrics(run_names.RUN_METRICS),
        _queries(run_names.RUN_METRICS),
        _METRICS_OF_SWEEPS,
        _metrics(sweep_names.SWEEP_METRICS),
        _queries(sweep_names.SWEEP_METRICS),
    ]
    return "\n".join(parts)


def _span(span: Span) -> str:
    head = f"### {span.name}\n\n{span.help} Parent: {span.parent}.\n"
    rows = ((f"`{one.name}`", one.type, one.help) for one in span.attributes)
    return f"{head}\n{_table(('attribute', 'type', 'description'), rows)}"


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = (
        (f"`{one.name}`", one.kind, one.unit, ", ".join(one.labels), one.help) for one in metrics
    )
    return _table(("metric", "type", "unit", "labels", "description"), rows)


def _queries(metrics: Iterable[Metric]) -> str:
    lines = ["PromQL examples:", "", "```promql"]
    for one in metrics:
        lines += [f"# {one.name}", one.example]
    return "\n".join([*lines, "```", ""])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def lines() -> Iterator[str]:
        yield f"| {' | '.join(head)} |"
        yield f"| {' | '.join('---' for _ in head)} |"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"

    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
