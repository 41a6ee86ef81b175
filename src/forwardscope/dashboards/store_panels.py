"""Panels of the store: what it answers, its size, what was verified and what was lost."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.cache_panels import FULL
from forwardscope.dashboards.panels import (
    ALARM,
    Panel,
    Thresholds,
    line_panel,
    stat_panel,
)
from forwardscope.dashboards.queries import (
    HITS,
    of_chosen_runs,
    quantile,
    rate,
    ratio,
    series,
    share,
)
from forwardscope.dashboards.run_queries import WHOLE_RUNS, counted
from forwardscope.telemetry import names, run_names
from forwardscope.telemetry.names import Metric

__all__ = ["store"]

_LOSS: Final[Thresholds] = ((None, "green"), (1, "yellow"))
_OPERATION: Final = "store, operation"
_STORED: Final = 'tier=~"disk|remote"'


def store() -> tuple[Panel, ...]:
    """Return the panels."""
    return (
        *(hits(), verified(), wrong(), corrupt(), not_stored(), failed()),
        *(hit_rate_by_tier(), store_fill(), entries(), operations()),
        *(verifications(), removed(), errors()),
        *(coalesced(), given_up()),
    )


def _of_store(metric: Metric) -> str:
    """Return a gauge of each store; several processes that share one export the same."""
    return f"max by (store) ({of_chosen_runs(series(metric))})"


# -- in the time range -----------------------------------------------------------------------


def hits() -> Panel:
    """Number of lookups that a store answered."""
    return stat_panel(
        "Hits of the store",
        f"Lookups in the time range that a store answered, the verified ones too. {WHOLE_RUNS}",
        counted(run_names.RUN_STORE_HITS, names.LOOKUPS, _STORED),
        "locale",
    )


def verified() -> Panel:
    """Number of stored values that agreed when they were computed again."""
    return stat_panel(
        "Verified values",
        "Hits of the store in the time range that were computed again and agreed. They cost "
        f"forward passes that are in no other number. {WHOLE_RUNS}",
        counted(run_names.RUN_STORE_VERIFIED, names.VERIFICATIONS, 'outcome="match"'),
        "locale",
    )


def wrong() -> Panel:
    """Number of stored values that did not agree."""
    return stat_panel(
        "Wrong values",
        "Hits of the store in the time range that did not agree when they were computed again; "
        f"the computed value was used. {WHOLE_RUNS}",
        counted(run_names.RUN_STORE_MISMATCHES, names.VERIFICATIONS, 'outcome="mismatch"'),
        "locale",
        thresholds=ALARM,
    )


def corrupt() -> Panel:
    """Number of damaged entries."""
    return stat_panel(
        "Damaged entries",
        "Entries of the store that were found damaged in the time range. Each was a miss, and was "
        f"deleted. {WHOLE_RUNS}",
        counted(run_names.RUN_STORE_CORRUPT, names.STORE_CORRUPT),
        "locale",
        thresholds=ALARM,
    )


def not_stored() -> Panel:
    """Number of values that were lost."""
    return stat_panel(
        "Values not stored",
        "Values in the time range that were lost before they were stored, because the queue was "
        f"full or writing failed. The next run computes them again. {WHOLE_RUNS}",
        counted(run_names.RUN_STORE_DROPPED, names.STORE_DROPPED, 'reason="lost"'),
        "locale",
        thresholds=_LOSS,
    )


def failed() -> Panel:
    """Number of failed operations."""
    return stat_panel(
        "Failed operations",
        f"Operations of the store that failed in the time range. {WHOLE_RUNS}",
        counted(run_names.RUN_STORE_ERRORS, names.STORE_ERRORS),
        "locale",
        thresholds=ALARM,
    )


# -- over time -------------------------------------------------------------------------------


def hit_rate_by_tier() -> Panel:
    """Hit rate by the tier that answered."""
    return line_panel(
        "Hit rate by tier",
        "Share of the lookups that each tier answered. memory: the cache of the process. disk: a "
        "store in a file. remote: a store on a server.",
        {"{{tier}}": share(rate(names.LOOKUPS, HITS, by="tier"), rate(names.LOOKUPS))},
        "percentunit",
        width=6,
        stacked=True,
    )


def store_fill() -> Panel:
    """Bytes of the store as a share of its bound."""
    fill = ratio(series(names.STORE_BYTES), series(names.STORE_MAX_BYTES))
    return line_panel(
        "Store fill",
        "Bytes in the store as a share of its bound. At 100 % the least recently used entries are "
        "evicted. Several processes that share a store have one line.",
        {"{{store}}": f"max by (store) ({of_chosen_runs(fill)})"},
        "percentunit",
        thresholds=FULL,
        width=6,
    )


def entries() -> Panel:
    """Entries in the store."""
    return line_panel(
        "Entries in the store",
        "Entries in the store, of all processes that share it.",
        {"{{store}}": _of_store(names.STORE_ENTRIES)},
        "locale",
        width=6,
    )


def operations() -> Panel:
    """Durations of the store's operations."""
    return line_panel(
        "Duration of an operation of the store",
        "get: one lookup or batch of lookups. put: one transaction of the thread that writes. "
        "lease: one request to a server for what is missing, or to renew it. The values are "
        "interpolated within a bucket.",
        {
            "{{store}} {{operation}}: median": quantile(0.5, names.STORE_DURATION, by=_OPERATION),
            "{{store}} {{operation}}: 99 %": quantile(0.99, names.STORE_DURATION, by=_OPERATION),
        },
        "s",
        width=6,
    )


def verifications() -> Panel:
    """Verified values per second, by outcome."""
    return line_panel(
        "Verified values per second, by outcome",
        "Hits of the store that were computed again. match: the stored value agreed. mismatch: it "
        "did not.",
        {"{{outcome}}": rate(names.VERIFICATIONS, by="outcome")},
        "suffix:/s",
        width=8,
    )


def removed() -> Panel:
    """Entries that the store removed or did not take, per second."""
    return line_panel(
        "Evictions and losses of the store per second",
        "evicted: removed to make room. damaged: found damaged, and deleted. lost: not stored, "
        "because the queue was full or writing failed. unsupported: of a type that cannot be "
        "stored.",
        {
            "evicted": rate(names.STORE_EVICTIONS),
            "damaged": rate(names.STORE_CORRUPT),
            "{{reason}}": rate(names.STORE_DROPPED, by="reason"),
        },
        "suffix:/s",
        width=8,
    )


def errors() -> Panel:
    """Failed operations per second, by error."""
    return line_panel(
        "Failed operations of the store per second, by error",
        "Operations that failed, by class of the error. A lookup is a miss then; after a damaged "
        "file, three seconds of waiting for other programs, or about a second that a server has "
        "lost, the store is not used any more.",
        {
            "{{store}} {{operation}}: {{error_type}}": rate(
                names.STORE_ERRORS, by="store, operation, error_type"
            )
        },
        "suffix:/s",
        width=8,
    )


def coalesced() -> Panel:
    """Coalesced lookups per second, by tier."""
    return line_panel(
        "Coalesced lookups per second, by tier",
        "Lookups that waited for a forward pass in flight. memory: of another thread, or of an "
        "equal prompt in the same batch. remote: of another machine, which had its lease. "
        "in vain: another machine had the lease and did not store the value within a minute.",
        {
            "{{tier}}": rate(names.LOOKUPS, 'result="coalesced"', by="tier"),
            "in vain": rate(names.STORE_EXPIRED_WAITS),
        },
        "suffix:/s",
    )


def given_up() -> Panel:
    """Processes that do not use their store any more."""
    unavailable = of_chosen_runs(series(names.STORE_UNAVAILABLE))
    return line_panel(
        "Processes that have given their store up",
        "Processes that do not use their store any more after failures; they compute instead. "
        "Failed operations have the reasons.",
        {"{{store}}": f"sum by (store) ({unavailable})"},
        "none",
        stepped=True,
    )
