"""The section of a run's report that says what answered its lookups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from forwardscope.analysis import legend
from forwardscope.analysis.formatting import (
    OUTSIDE_MEANING,
    count,
    percent,
    plural,
    seconds,
)
from forwardscope.analysis.page import html_table, paragraph, section, stacked_bar
from forwardscope.analysis.tables import Column, Table
from forwardscope.suite.formats import (
    OUTSIDE,
    format_interval,
    format_probe,
    format_raw,
    format_z,
)
from forwardscope.suite.result import StoreUse, SuiteResult

__all__ = ["cost_section", "numbers_section", "series_section"]


def cost_section(result: SuiteResult) -> str:
    """Return the lookups of a run by what answered them, and what its store did."""
    tiers = _tiers(result)
    lookups = sum(tiers.values())
    shares = {tier: number / lookups if lookups else 0.0 for tier, number in tiers.items()}
    parts = ", ".join(f"{tier} {percent(share)}" for tier, share in shares.items())
    return section(
        "Cost",
        paragraph(_summary(result)),
        stacked_bar(shares, f"Lookups by what answered them: {parts}"),
        html_table(_table(result.store, tiers, shares)),
        *_store(result),
        "" if result.server is None else paragraph(f"{result.server.sentence.capitalize()}."),
    )


def numbers_section(result: SuiteResult) -> str:
    """Return the numbers of each probe: what it measured and what it cost."""
    said = [legend.numbers(result.probes)]
    if result.store is not None:
        said.append(legend.PASSES)
    note = paragraph(f"{'; '.join(said)}.", muted=True)
    return section("Numbers by probe", html_table(_by_probe(result)), note)


def series_section(result: SuiteResult) -> str:
    """Return the lookups of each probe and view."""
    expected = "expected: those of the plan, with an empty store"
    note = paragraph(f"{OUTSIDE}: {OUTSIDE_MEANING}; {expected}.", muted=True)
    return section("Hits by probe and view", html_table(_series(result)), note)


def _summary(result: SuiteResult) -> str:
    stats, use = result.backend_stats, result.cache
    lookups = int(stats["cache_hits"] + stats["cache_misses"])
    entries, evictions = plural(use.max_entries, "entry"), plural(use.evictions, "eviction")
    cache = f"cache: {use.entries} of {entries}, {evictions}"
    return (
        f"{plural(lookups, 'lookup')}, {percent(stats['hit_rate'])} answered without a forward "
        f"pass; {_needed(result)}; {cache if use.enabled else 'the cache is off'}"
    )


def _needed(result: SuiteResult) -> str:
    """Return the forward passes of a run in words: needed, expected and, with a store, paid."""
    expected, paid = result.expected_forward_passes, int(result.backend_stats["forward_passes"])
    words = plural(result.demand, "forward pass")
    if result.store is not None:
        words += " needed"
    if expected is not None:
        words += f", {count(expected)} expected"
    if result.store is not None:
        words += f", {count(paid)} paid"
    return words


def _tiers(result: SuiteResult) -> dict[str, int]:
    """Return the number of lookups that memory, the store and the model answered, or none did."""
    stored = sum(one.store_hits for one in result.series)
    tiers = {"memory": sum(one.cache_hits for one in result.series) - stored}
    if result.store is not None:
        tiers[result.store.tier] = stored
    tiers["computed"] = sum(one.forward_passes for one in result.series)
    failed = sum(one.forward_errors for one in result.series)
    return tiers | ({"failed": failed} if failed else {})


def _table(store: StoreUse | None, tiers: Mapping[str, int], shares: Mapping[str, float]) -> Table:
    columns = (
        Column("tier", "answered by"),
        Column("lookups", "lookups", count),
        Column("share", "share", percent),
        Column("verified", "verified", count, hidden=store is None),
        Column("mismatches", "found wrong", count, hidden=store is None),
    )
    rows = [
        (tier, number, shares[tier], *_checked(store if store and tier == store.tier else None))
        for tier, number in tiers.items()
    ]
    return Table("cost", columns, rows)


def _checked(store: StoreUse | None) -> tuple[int | None, int | None]:
    return (None, None) if store is None else (store.verified, store.mismatches)


def _store(result: SuiteResult) -> Iterator[str]:
    if (store := result.store) is None:
        return
    yield paragraph(
        f"{count(store.hits)} of {plural(result.demand, 'forward pass')} answered from "
        f"{store.tier}: {store.name}, with {plural(store.entries, 'entry')}."
    )
    for problem in store.problems():
        yield paragraph(f"Store: {problem}.", bad=store.mismatches > 0)


def _by_probe(result: SuiteResult) -> Table:
    stored = result.store is not None
    columns = (
        Column("probe", "probe"),
        Column("verdict", "verdict"),
        Column("score", "score", lambda value: f"{value:.2f}"),
        Column("raw", "raw", format_raw),
        Column("z_score", "z", format_z),
        Column("ci_95", "95 % interval", format_interval),
        Column("duration_s", "time", seconds),
        Column("lookups", "lookups", count),
        Column("demand", "needed" if stored else "passes", count),
        Column("forward_passes", "paid", count, hidden=not stored),
    )
    rows = [
        (
            probe.name,
            probe.verdict.value,
            probe.score,
            probe.raw,
            probe.z_score,
            probe.ci_95,
            probe.duration_s,
            probe.stats.lookups,
            probe.stats.demand,
            probe.stats.forward_passes,
        )
        for probe in result.probes
    ]
    return Table("probes", columns, rows)


def _series(result: SuiteResult) -> Table:
    stored = result.store is not None
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("op", "op", hidden=len({series.op for series in result.series}) == 1),
        Column("lookups", "lookups", count),
        Column("demand", "needed" if stored else "passes", count),
        Column("expected", "expected", count),
        Column("forward_passes", "paid", count, hidden=not stored),
        Column("forward_errors", "failed", count, optional=True),
        Column("hit_rate", "hit rate", percent),
        Column("forward_s", "time", seconds),
    )
    rows = [
        (
            format_probe(series.probe),
            series.view_id,
            series.op,
            series.lookups,
            series.demand,
            series.expected_forward_passes,
            series.forward_passes,
            series.forward_errors,
            series.hit_rate,
            series.forward_s,
        )
        for series in result.series
    ]
    return Table("series", columns, rows)
