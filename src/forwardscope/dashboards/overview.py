"""The dashboard Overview: the hit ratio, and the forward passes and time that hits save."""

from __future__ import annotations

from forwardscope.dashboards.defaults import ALARM, RATIO, Panel, bars, lines, number
from forwardscope.dashboards.frame import dashboard
from forwardscope.dashboards.queries import (
    BY_RUN,
    HITS,
    RANGE,
    finished,
    hit_ratio,
    increase,
    named_probes,
    rate,
    run_hit_ratio,
    seconds_a_pass,
    series,
    total,
)
from forwardscope.dashboards.sdk import models
from forwardscope.telemetry import names

__all__ = ["overview"]

_FULL = ((None, "green"), (0.9, "yellow"), (1.0, "orange"))


def overview() -> models.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "forwardscope-overview",
        "forwardscope / Overview",
        "What does the cache save?",
        {
            "What does the cache save?": (
                ratio_now(),
                lookups_now(),
                passes_now(),
                saved_passes_now(),
                saved_seconds_now(),
                evictions_now(),
            ),
            "Over time": (ratio_over_time(), lookups(), passes(), saved_seconds()),
            "Hit ratio by probe, view and op": (by_probe(), by_view(), by_op()),
            "Cache size and evictions": (fill(), stored_bytes(), evictions()),
            "Last run of each suite": (by_suite(), evictions_by_suite()),
        },
    )


# -- what does the cache save? ---------------------------------------------------------------


def ratio_now() -> Panel:
    """Share of lookups answered without a forward pass."""
    return number(
        "Hit ratio",
        "Share of the lookups in the time range that needed no forward pass, coalesced lookups "
        "included.",
        hit_ratio(window=RANGE),
        "percentunit",
        steps=RATIO,
    )


def lookups_now() -> Panel:
    """Number of lookups."""
    return number(
        "Lookups",
        "Lookups in the time range, estimated by Prometheus from its scrapes: a few percent off, "
        "and without the counts before a process's first scrape. The exact numbers of a run are "
        "in its report and in Runs.",
        increase(names.LOOKUPS),
        "short",
    )


def passes_now() -> Panel:
    """Number of forward passes."""
    return number(
        "Forward passes paid",
        "Prompts that the model computed in the time range.",
        increase(names.FORWARD_PASSES),
        "short",
    )


def saved_passes_now() -> Panel:
    """Number of lookups answered without a forward pass."""
    return number(
        "Forward passes saved",
        "Lookups in the time range that were answered without a forward pass.",
        increase(names.LOOKUPS, HITS),
        "short",
    )


def saved_seconds_now() -> Panel:
    """Time that hits saved."""
    saved = f"{increase(names.LOOKUPS, HITS, by='backend, op')} * {seconds_a_pass('backend, op')}"
    return number(
        "Time saved",
        "Hits in the time range, each times the mean duration of a forward pass of its op.",
        total(f"({saved})"),
        "s",
    )


def evictions_now() -> Panel:
    """Number of evictions."""
    return number(
        "Evictions",
        "Entries removed to make room in the time range. The next lookup of such an entry needs "
        "another forward pass.",
        increase(names.CACHE_EVICTIONS),
        "short",
        steps=((None, "green"), (1, "yellow")),
    )


# -- over time -------------------------------------------------------------------------------


def ratio_over_time() -> Panel:
    """Hit ratio of all lookups over time."""
    return lines(
        "Hit ratio",
        "Share of lookups that needed no forward pass; no line while there are no lookups.",
        {"hit ratio": hit_ratio()},
        "percentunit",
    )


def lookups() -> Panel:
    """Lookups per second, by result."""
    return lines(
        "Lookups a second, by result",
        "hit: from the cache. miss: computed by a forward pass. coalesced: answered by a forward "
        "pass that was already in flight.",
        {"{{result}}": rate(names.LOOKUPS, by="result")},
        "suffix:/s",
        stacked=True,
    )


def passes() -> Panel:
    """Forward passes per second, by view family."""
    return lines(
        "Forward passes a second, by view",
        "Prompts computed by the model; view is base, ft, scaled or null.",
        {"{{view}}": rate(names.FORWARD_PASSES, by="view")},
        "suffix:/s",
        stacked=True,
    )


def saved_seconds() -> Panel:
    """Time that hits saved, per second."""
    hits = rate(names.LOOKUPS, HITS, by="backend, op")
    return lines(
        "Time saved a second",
        "Hits per second, each times the mean duration of a forward pass of its op in the time "
        "range. 2 s means that without the cache the model would compute for two more seconds "
        "every second.",
        {"{{backend}}": total(f"({hits} * {seconds_a_pass('backend, op')})", "backend")},
        "s",
        stacked=True,
    )


# -- hit ratio by probe, view and op ---------------------------------------------------------


def _hit_ratio_by(label: str, description: str) -> Panel:
    expr = hit_ratio(by=label, window=RANGE)
    return bars(
        f"Hit ratio by {label}",
        description,
        named_probes(expr) if label == "probe" else expr,
        f"{{{{{label}}}}}",
        "percentunit",
        steps=RATIO,
    )


def by_probe() -> Panel:
    """Hit ratio of each probe."""
    return _hit_ratio_by(
        "probe",
        "In the time range. A probe hits if an earlier probe looked up the same prompts.",
    )


def by_view() -> Panel:
    """Hit ratio of each view family."""
    return _hit_ratio_by(
        "view",
        "In the time range. All probes use base, so it has the most hits; each null seed and each "
        "scale is used once and rarely hits.",
    )


def by_op() -> Panel:
    """Hit ratio of each op."""
    return _hit_ratio_by(
        "op",
        "In the time range. The ops are next_token_dist, rolling_logprob and logprob_of.",
    )


# -- cache size and evictions ----------------------------------------------------------------


def fill() -> Panel:
    """Entries and bytes in the cache as a share of their bounds."""
    entries = f"{series(names.CACHE_ENTRIES)} / {series(names.CACHE_MAX_ENTRIES)}"
    stored = f"{series(names.CACHE_BYTES)} / {series(names.CACHE_MAX_BYTES)}"
    return lines(
        "Cache fill",
        "Entries and bytes as a share of their bounds. At 100 % each new entry evicts the least "
        "recently used one; bytes have a line only if the cache has a bound in bytes.",
        {"{{backend}}: entries": entries, "{{backend}}: bytes": stored},
        "percentunit",
        steps=_FULL,
        width=8,
    )


def stored_bytes() -> Panel:
    """Bytes in the cache."""
    return lines(
        "Cache size",
        "Bytes of values and keys in the cache.",
        {"{{backend}}": series(names.CACHE_BYTES)},
        "bytes",
        width=8,
    )


def evictions() -> Panel:
    """Evictions and rejections per second."""
    return lines(
        "Evictions and rejections a second",
        "evicted: removed to make room. rejected: not stored, because larger than the whole cache.",
        {
            "{{backend}}: evicted": rate(names.CACHE_EVICTIONS, by="backend"),
            "{{backend}}: rejected": rate(names.CACHE_REJECTIONS, by="backend"),
        },
        "suffix:/s",
        width=8,
    )


# -- last run of each suite ------------------------------------------------------------------


def by_suite() -> Panel:
    """Hit ratio of each suite's last run."""
    return bars(
        "Hit ratio of the last run",
        "From the gauges that a run pushes: exact, also if the run ended before a scrape.",
        finished(run_hit_ratio()),
        BY_RUN,
        "percentunit",
        steps=RATIO,
        width=12,
    )


def evictions_by_suite() -> Panel:
    """Evictions of each suite's last run."""
    return bars(
        "Evictions in the last run",
        "Entries that the run removed to make room. For the forward passes that they cost, see "
        '"Over expected" in Runs.',
        finished(series(names.RUN_EVICTIONS)),
        BY_RUN,
        "short",
        steps=ALARM,
        width=12,
    )
