"""The section of a run's report that says what answered its lookups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from forwardscope.analysis.formatting import count, percent, plural
from forwardscope.analysis.page import html_table, paragraph, section, stacked_bar
from forwardscope.analysis.tables import Column, Table
from forwardscope.suite.result import StoreUse, SuiteResult

__all__ = ["cost_section", "needed"]


def cost_section(result: SuiteResult) -> str:
    """Return the lookups of a run by what answered them, and what its store did."""
    tiers = _tiers(result)
    lookups = sum(tiers.values())
    shares = {tier: number / lookups if lookups else 0.0 for tier, number in tiers.items()}
    parts = ", ".join(f"{tier} {percent(share)}" for tier, share in shares.items())
    return section(
        "Cost",
        stacked_bar(shares, f"Lookups by what answered them: {parts}"),
        html_table(_table(result.store, tiers, shares)),
        *_store(result),
    )


def needed(result: SuiteResult) -> str:
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
