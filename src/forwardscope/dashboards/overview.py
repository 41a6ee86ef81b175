"""The dashboard Overview: the hit rate, and the forward passes and the time that hits save."""

from __future__ import annotations

from forwardscope.dashboards.frame import dashboard
from forwardscope.dashboards.panels import ALARM, HIT_RATE, Panel, bar_panel, line_panel, stat_panel
from forwardscope.dashboards.queries import (
    BY_RUN,
    HITS,
    RANGE,
    finished,
    hit_rate,
    increase,
    named_probes,
    rate,
    run_hit_rate,
    seconds_per_pass,
    series,
    total,
)
from forwardscope.dashboards.sdk import models
from forwardscope.telemetry import names

__all__ = ["overview"]

_FULL = ((None, "green"), (0.9, "yellow"), (1.0, "orange"))


def overview() -> models.Dashboard:
    """Return the dashboard Overview."""
    return dashboard(
        "forwardscope-overview",
        "forwardscope / Overview",
        "What does the cache save?",
        {
            "What does the cache save?": (
                total_hit_rate(),
                total_lookups(),
                total_passes(),
                passes_saved(),
                time_saved(),
                total_evictions(),
            ),
            "Over time": (hit_rate_over_time(), lookups(), passes(), time_saved_over_time()),
            "Hit rate by probe, view and op": (by_probe(), by_view(), by_op()),
            "Cache size and evictions": (cache_fill(), stored_bytes(), evictions()),
            "Last run of each suite": (by_suite(), evictions_by_suite()),
        },
    )


# -- what does the cache save? ---------------------------------------------------------------


def total_hit_rate() -> Panel:
    """Hit rate in the time range."""
    return stat_panel(
        "Hit rate",
        "Share of the lookups in the time range that needed no forward pass of their own: hits "
        "and coalesced lookups.",
        hit_rate(window=RANGE),
        "percentunit",
        thresholds=HIT_RATE,
    )


def total_lookups() -> Panel:
    """Number of lookups."""
    return stat_panel(
        "Lookups",
        "Lookups in the time range. Prometheus estimates them from its scrapes, with an error of "
        "a few percent and without the counts before the first scrape of a process. The report "
        "of a run and the dashboard Runs have exact numbers.",
        increase(names.LOOKUPS),
        "short",
    )


def total_passes() -> Panel:
    """Number of forward passes."""
    return stat_panel(
        "Forward passes paid",
        "Prompts that the model computed in the time range.",
        increase(names.FORWARD_PASSES),
        "short",
    )


def passes_saved() -> Panel:
    """Number of hits."""
    return stat_panel(
        "Forward passes saved",
        "Lookups in the time range that needed no forward pass of their own.",
        increase(names.LOOKUPS, HITS),
        "short",
    )


def time_saved() -> Panel:
    """Time that hits saved."""
    saved = f"{increase(names.LOOKUPS, HITS, by='backend, op')} * {seconds_per_pass('backend, op')}"
    return stat_panel(
        "Time saved",
        "Hits of each op in the time range, times the mean duration of a forward pass of that op.",
        total(f"({saved})"),
        "s",
    )


def total_evictions() -> Panel:
    """Number of evictions."""
    return stat_panel(
        "Evictions",
        "Entries removed in the time range to make room. The next lookup of such an entry needs "
        "another forward pass.",
        increase(names.CACHE_EVICTIONS),
        "short",
        thresholds=((None, "green"), (1, "yellow")),
    )


# -- over time -------------------------------------------------------------------------------


def hit_rate_over_time() -> Panel:
    """Hit rate over time."""
    return line_panel(
        "Hit rate",
        "Share of lookups that needed no forward pass of their own. Without lookups there is no "
        "line.",
        {"hit rate": hit_rate()},
        "percentunit",
    )


def lookups() -> Panel:
    """Lookups per second, by result."""
    return line_panel(
        "Lookups per second, by result",
        "hit: from the cache. miss: computed by a forward pass. coalesced: answered by a forward "
        "pass that was already in flight.",
        {"{{result}}": rate(names.LOOKUPS, by="result")},
        "suffix:/s",
        stacked=True,
    )


def passes() -> Panel:
    """Forward passes per second, by view family."""
    return line_panel(
        "Forward passes per second, by view",
        "Prompts that the model computed, by view family: base, ft, scaled or null.",
        {"{{view}}": rate(names.FORWARD_PASSES, by="view")},
        "suffix:/s",
        stacked=True,
    )


def time_saved_over_time() -> Panel:
    """Time that hits saved, per second."""
    hits = rate(names.LOOKUPS, HITS, by="backend, op")
    return line_panel(
        "Time saved per second",
        "Hits of each op per second, times the mean duration of a forward pass of that op in the "
        "time range. 2 s means that the cache saves two seconds of computation every second.",
        {"{{backend}}": total(f"({hits} * {seconds_per_pass('backend, op')})", "backend")},
        "s",
        stacked=True,
    )


# -- hit rate by probe, view and op ---------------------------------------------------------


def _hit_rate_by(label: str, description: str) -> Panel:
    expr = hit_rate(by=label, window=RANGE)
    return bar_panel(
        f"Hit rate by {label}",
        description,
        named_probes(expr) if label == "probe" else expr,
        f"{{{{{label}}}}}",
        "percentunit",
        thresholds=HIT_RATE,
    )


def by_probe() -> Panel:
    """Hit rate of each probe."""
    return _hit_rate_by(
        "probe",
        "Hit rate in the time range. A probe has hits if an earlier probe looked up the same "
        "prompts.",
    )


def by_view() -> Panel:
    """Hit rate of each view family."""
    return _hit_rate_by(
        "view",
        "Hit rate in the time range. All probes use base, so it has the most hits. Each null seed "
        "and each scale is used once, so they have few.",
    )


def by_op() -> Panel:
    """Hit rate of each op."""
    return _hit_rate_by(
        "op",
        "Hit rate in the time range, by what is computed: next_token_dist, rolling_logprob or "
        "logprob_of.",
    )


# -- cache size and evictions ----------------------------------------------------------------


def cache_fill() -> Panel:
    """Entries and bytes in the cache as a share of their bounds."""
    entries = f"{series(names.CACHE_ENTRIES)} / {series(names.CACHE_MAX_ENTRIES)}"
    stored = f"{series(names.CACHE_BYTES)} / {series(names.CACHE_MAX_BYTES)}"
    return line_panel(
        "Cache fill",
        "Entries and bytes as a share of their bounds. At 100 % each new entry evicts the least "
        "recently used one. Bytes have a line only if the cache has a bound in bytes.",
        {"{{backend}}: entries": entries, "{{backend}}: bytes": stored},
        "percentunit",
        thresholds=_FULL,
        width=8,
    )


def stored_bytes() -> Panel:
    """Bytes in the cache."""
    return line_panel(
        "Cache size",
        "Bytes of values and keys in the cache.",
        {"{{backend}}": series(names.CACHE_BYTES)},
        "bytes",
        width=8,
    )


def evictions() -> Panel:
    """Evictions and rejections per second."""
    return line_panel(
        "Evictions and rejections per second",
        "evicted: removed to make room. rejected: larger than the whole cache and not stored.",
        {
            "{{backend}}: evicted": rate(names.CACHE_EVICTIONS, by="backend"),
            "{{backend}}: rejected": rate(names.CACHE_REJECTIONS, by="backend"),
        },
        "suffix:/s",
        width=8,
    )


# -- last run of each suite ------------------------------------------------------------------


def by_suite() -> Panel:
    """Hit rate of each suite's last run."""
    return bar_panel(
        "Hit rate of the last run",
        "Hit rate from the gauges that a run pushes, which are exact even if the run ended before "
        "a scrape.",
        finished(run_hit_rate()),
        BY_RUN,
        "percentunit",
        thresholds=HIT_RATE,
        width=12,
    )


def evictions_by_suite() -> Panel:
    """Evictions of each suite's last run."""
    return bar_panel(
        "Evictions in the last run",
        'Entries that the run removed to make room. The column "Over expected" of the dashboard '
        "Runs has the forward passes that this cost.",
        finished(series(names.RUN_EVICTIONS)),
        BY_RUN,
        "short",
        thresholds=ALARM,
        width=12,
    )
