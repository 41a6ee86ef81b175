"""Panels of the size of the cache and of what it evicts."""

from __future__ import annotations

from typing import Final

from forwardscope.dashboards.panels import Panel, Thresholds, line_panel
from forwardscope.dashboards.queries import of_chosen_runs, rate, series
from forwardscope.telemetry import names

__all__ = ["FULL", "cache_size"]

#: Of a size as a share of its bound.
FULL: Final[Thresholds] = ((None, "green"), (0.9, "yellow"), (1.0, "orange"))


def cache_size() -> tuple[Panel, ...]:
    """Return the panels."""
    return cache_fill(), stored_bytes(), evictions()


def cache_fill() -> Panel:
    """Entries and bytes in the cache as a share of their bounds."""
    entries = f"{series(names.CACHE_ENTRIES)} / {series(names.CACHE_MAX_ENTRIES)}"
    stored = f"{series(names.CACHE_BYTES)} / {series(names.CACHE_MAX_BYTES)}"
    return line_panel(
        "Cache fill",
        "Entries and bytes as a share of their bounds. At 100 % each new entry evicts the least "
        "recently used one. Bytes have a line only if the cache has a bound in bytes.",
        {
            "{{backend}}: entries": of_chosen_runs(entries),
            "{{backend}}: bytes": of_chosen_runs(stored),
        },
        "percentunit",
        thresholds=FULL,
        width=8,
    )


def stored_bytes() -> Panel:
    """Bytes in the cache."""
    return line_panel(
        "Cache size",
        "Bytes of values and keys in the cache.",
        {"{{backend}}": of_chosen_runs(series(names.CACHE_BYTES))},
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
