"""Write docs/telemetry.md from names.py: `python -m forwardscope.telemetry.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from forwardscope.core.ledger import BATCH_BOUNDS, DURATION_BOUNDS_S
from forwardscope.telemetry import names
from forwardscope.telemetry.collector import MAX_PROBES
from forwardscope.telemetry.hit_span_queue import CAPACITY
from forwardscope.telemetry.names import Metric, Span
from forwardscope.telemetry.spans import DEFAULT_BUDGET

__all__ = ["reference"]

_INTRODUCTION = f"""\
<!-- Written by `make docs` from src/forwardscope/telemetry/names.py; edit that file instead. -->
# Telemetry reference

What forwardscope emits: spans of each lookup and forward pass, metrics of each backend, and
gauges of each run. All of them are read from one ledger, so they agree: after a run, JSONL
records = lookups = `cache.lookup` spans exported + dropped + elided. How to send them somewhere
stands in the [README](../README.md#seeing-it).

No prompt leaves the process: spans and records hold hashes of prompts, metrics not even these.

## Spans

The tracer is `{names.TRACER}`, all spans are INTERNAL, and all of a run's times are of one
clock. A failed span has status Error and `error.type`, never the exception's message.

```
suite.run
└ probe.run
  ├ cache.lookup
  │ └ forward                (a miss only)
  └ cache.lookup_batch
    ├ cache.lookup           (one a prompt)
    └ forward                (one a batch, with links to the lookups that missed)
```

A `forward` span is current while the model runs, so your own spans nest under it. Lookups hang
under the span that is current where they are made; in a thread without one, under the span that
was current at `set_current_probe`.

Of the hits only the first {DEFAULT_BUDGET:,} a probe are spans (`span_budget`, `--span-budget`);
misses and forward passes always are. A hit's span is made later in a thread of its own, from the
two times at which it began and ended, so it costs the lookup little; at most {CAPACITY:,} wait
for that, and what does not fit is counted as dropped.
"""

_METRICS_OF_BACKENDS = f"""\
## Metrics of a backend

Read from the ledger when somebody scrapes. `view` is the view's family (`base`, `ft`, `scaled`,
`null`); `probe` is empty for a lookup outside any probe, and names beyond the first {MAX_PROBES}
are `_other`.
"""

_METRICS_OF_RUNS = """\
## Metrics of a run

A suite is a batch job, often shorter than a scrape interval, so its outcome is also a set of
gauges: at the endpoint, in the metrics file, and at the Pushgateway in the group
`job="forwardscope"`, `suite`, `model`. A failed run does not push
`forwardscope_run_last_success_timestamp_seconds`, and the gateway keeps the one before.
"""


def _bounds(bounds: Iterable[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in bounds)


_BUCKETS = f"""\
Buckets of `{names.FORWARD_DURATION.name}`, in seconds: {_bounds(DURATION_BOUNDS_S)}.
Each has the trace id of its latest pass as an exemplar, where the scrape asks for OpenMetrics.

Buckets of `{names.BATCH_PROMPTS.name}`: {_bounds(BATCH_BOUNDS)}.
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
        _metrics(names.RUN_METRICS),
        _queries(names.RUN_METRICS),
    ]
    return "\n".join(parts)


def _span(span: Span) -> str:
    head = f"### {span.name}\n\n{span.help} Its parent: {span.parent}.\n"
    rows = ((f"`{one.name}`", one.type, one.help) for one in span.attributes)
    return f"{head}\n{_table(('attribute', 'type', 'what it says'), rows)}"


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = (
        (f"`{one.name}`", one.kind, one.unit, ", ".join(one.labels), one.help) for one in metrics
    )
    return _table(("metric", "type", "unit", "labels", "what it counts"), rows)


def _queries(metrics: Iterable[Metric]) -> str:
    lines = ["In PromQL, for instance:", "", "```promql"]
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
