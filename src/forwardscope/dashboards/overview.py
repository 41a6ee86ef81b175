"""The dashboard Overview: what does the cache save?"""

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
            "Who hits, who misses": (by_probe(), by_view(), by_op()),
            "The cache and its bounds": (fill(), stored_bytes(), evictions()),
            "Suites, from the gauges of their last run": (by_suite(), evictions_by_suite()),
        },
    )


# -- what does the cache save? --------------------------------------------------------------


def ratio_now() -> Panel:
    """Share of lookups answered without a forward pass."""
    return number(
        "Hit ratio",
        "Share of the lookups in the time range that paid no forward pass; coalesced ones, which "
        "waited for another's pass, are among them. Nothing where nothing was asked.",
        hit_ratio(window=RANGE),
        "percentunit",
        steps=RATIO,
    )


def lookups_now() -> Panel:
    """Number of lookups."""
    return number(
        "Lookups",
        "Questions put to the cache in the time range, as Prometheus reckons them from its "
        "scrapes: a few in a hundred off, and without what a process counted before its first. "
        "A run's exact numbers are in its report and in Runs.",
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
        "Entries removed for room in the time range: each that is asked for again costs a "
        "forward pass once more.",
        increase(names.CACHE_EVICTIONS),
        "short",
        steps=((None, "green"), (1, "yellow")),
    )


# -- over time -------------------------------------------------------------------------------


def ratio_over_time() -> Panel:
    """Hit ratio of all lookups over time."""
    return lines(
        "Hit ratio",
        "Share of lookups that paid no forward pass; no line while nothing is asked.",
        {"hit ratio": hit_ratio()},
        "percentunit",
    )


def lookups() -> Panel:
    """Lookups per second, by result."""
    return lines(
        "Lookups a second, by result",
        "hit: from the cache. miss: a forward pass was paid. coalesced: answered by a pass that "
        "somebody else had begun.",
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
        "Hits a second, each times the mean duration of a forward pass of its op in the time "
        "range: 2 s means that without the cache the model would have two more seconds to work "
        "in each.",
        {"{{backend}}": total(f"({hits} * {seconds_a_pass('backend, op')})", "backend")},
        "s",
        stacked=True,
    )


# -- who hits, who misses --------------------------------------------------------------------


def _hit_ratio_by(label: str, says: str) -> Panel:
    expr = hit_ratio(by=label, window=RANGE)
    return bars(
        f"Hit ratio by {label}",
        says,
        named_probes(expr) if label == "probe" else expr,
        f"{{{{{label}}}}}",
        "percentunit",
        steps=RATIO,
    )


def by_probe() -> Panel:
    """Hit ratio of each probe."""
    return _hit_ratio_by(
        "probe",
        "In the time range. A probe that asks what others asked before it hits; the first one pays "
        "for all.",
    )


def by_view() -> Panel:
    """Hit ratio of each view family."""
    return _hit_ratio_by(
        "view",
        "In the time range. base is asked by all probes and hits most; each null seed and each "
        "scale is asked once and seldom hits.",
    )


def by_op() -> Panel:
    """Hit ratio of each op."""
    return _hit_ratio_by(
        "op",
        "In the time range, by what is asked: next_token_dist, rolling_logprob or logprob_of.",
    )


# -- the cache and its bounds ----------------------------------------------------------------


def fill() -> Panel:
    """Entries and bytes in the cache as a share of their bounds."""
    entries = f"{series(names.CACHE_ENTRIES)} / {series(names.CACHE_MAX_ENTRIES)}"
    stored = f"{series(names.CACHE_BYTES)} / {series(names.CACHE_MAX_BYTES)}"
    return lines(
        "Cache fill",
        "Entries and bytes as a share of their bounds. At 100 % each new entry evicts the oldest; "
        "bytes have a line only where the cache has such a bound.",
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
        "evicted: removed for room. rejected: never stored, being larger than the whole cache.",
        {
            "{{backend}}: evicted": rate(names.CACHE_EVICTIONS, by="backend"),
            "{{backend}}: rejected": rate(names.CACHE_REJECTIONS, by="backend"),
        },
        "suffix:/s",
        width=8,
    )


# -- suites ----------------------------------------------------------------------------------


def by_suite() -> Panel:
    """Hit ratio of each suite's last run."""
    return bars(
        "Hit ratio of the last run",
        "From the gauges that a run pushes: exact, also where it was over before a scrape.",
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
        "Entries that the run removed for room. What that costs is what it asked for again: "
        "see its forward passes over the expected ones in Runs.",
        finished(series(names.RUN_EVICTIONS)),
        BY_RUN,
        "short",
        steps=ALARM,
        width=12,
    )
