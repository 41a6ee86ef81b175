"""Several results side by side: what each probe measured, how that changed, and what it cost.

It shows, and decides nothing: that is the gate's.

What a change is, when it is clear, and its p are defined in `forwardscope.suite.changes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import Any, Final

from forwardscope.analysis import legend
from forwardscope.analysis.formatting import count, percent, plural, seconds
from forwardscope.analysis.score_gate import differences
from forwardscope.analysis.tables import Column, Table
from forwardscope.suite.changes import Change, change_between, corrected
from forwardscope.suite.formats import format_raw, format_z
from forwardscope.suite.result import ProbeResult, SuiteResult

__all__ = ["MAX_RESULTS", "comparison_notes", "comparison_tables"]

#: Each result has a letter.
MAX_RESULTS: Final = len(ascii_uppercase)
#: Columns of a change.
_CHANGE: Final = (
    Column("change", "change", lambda value: f"{value:+.3g}"),
    Column("clear", "clear", lambda value: "yes" if value else "no"),
    Column("p", "p", lambda value: "<0.001" if value < 0.001 else f"{value:.3f}"),
)


@dataclass(frozen=True, slots=True)
class _Row:
    """What one result has of one probe.

    Attributes:
        probe: Name of the probe.
        run: Letter of the result.
        now: The probe's result; None if the run has no such probe.
        change: The change since the first result.
    """

    probe: str
    run: str
    now: ProbeResult | None
    change: Change = field(default_factory=Change)


def comparison_tables(results: Sequence[SuiteResult], names: Sequence[str]) -> dict[str, Table]:
    """Return the tables of a comparison, by their names in the JSON output.

    Args:
        results: At least two and at most `MAX_RESULTS`; changes are those to the first.
        names: What each is called, such as its file.
    """
    rows = list(_rows(results))
    return {
        "runs": _runs_table(results, names),
        "probes": _probes_table(rows),
        "changes": _changes_table(rows),
        "cost": _cost_table(results),
    }


def comparison_notes(results: Sequence[SuiteResult]) -> list[str]:
    """Return how the results differ in what was measured, and what the columns mean."""
    first, notes = results[0], []
    for letter, result in zip(ascii_uppercase[1:], results[1:], strict=False):
        notes += [f"{letter} and A differ in {one}" for one in differences(first, result)]
        if result.suite != first.suite:
            notes.append(f"{letter} and A are of different suites: {result.suite}, {first.suite}")
        notes += [f"{letter} and A differ in {one}" for one in _settings(first, result)]
    notes.append(legend.numbers(probe for result in results for probe in result.probes))
    if tested := sum(row.change.p is not None for row in _rows(results)):
        notes.append(
            "clear: each value lies outside the other's 95 % interval; p: probability of such a "
            "change if there were none, corrected for "
            f"{plural(tested, 'comparison')} by Holm's method"
        )
    return [*notes, legend.PASSES]


def _rows(results: Sequence[SuiteResult]) -> Iterator[_Row]:
    """Yield a row for each probe of any result and each result, probe by probe."""
    by_name = [_by_name(result) for result in results]
    for name in dict.fromkeys(name for probes in by_name for name in probes):
        first = by_name[0].get(name)
        for index, (letter, probes) in enumerate(zip(ascii_uppercase, by_name, strict=False)):
            now = probes.get(name)
            if index == 0 or first is None or now is None or now.kind != first.kind:
                yield _Row(name, letter, now)
            else:
                yield _Row(name, letter, now, change_between(first, now))


def _by_name(result: SuiteResult) -> dict[str, ProbeResult]:
    return {probe.name: probe for probe in result.probes}


def _settings(first: SuiteResult, now: SuiteResult) -> Iterator[str]:
    """Yield how probes of one name were set differently, as far as the results know."""
    before = _by_name(first)
    for probe in now.probes:
        if (was := before.get(probe.name)) is None:
            continue
        if was.kind != probe.kind:
            yield f"the kind of {probe.name}: {probe.kind}, {was.kind}"
        elif None not in (was.n, probe.n) and was.n != probe.n:
            yield f"the number of values of {probe.name}: {probe.n}, {was.n}"
        else:
            yield from _evidence(was, probe)


def _evidence(was: ProbeResult, now: ProbeResult) -> Iterator[str]:
    """Yield what else was measured; results of older versions do not have all of it."""
    for key in ("prompts", "divergence", "expect"):
        known = was.evidence.get(key), now.evidence.get(key)
        if None not in known and known[0] != known[1]:
            yield f"the {key} of {now.name}"


def _runs_table(results: Sequence[SuiteResult], names: Sequence[str]) -> Table:
    columns = (
        Column("run", "run"),
        Column("name", "result", paths=True),
        Column("model", "base", paths=True),
        Column("adapter", "fine-tuned", paths=True),
        Column("dtype", "dtype", hidden=len({one.dtype for one in results}) == 1),
        Column("device", "device", hidden=len({one.device for one in results}) == 1),
        Column("started_at", "started", hidden=True),
        Column("score", "score", lambda value: f"{value:.3f}"),
        Column("passed", "passed"),
    )
    rows = [
        (
            letter,
            name,
            *(one.model, one.adapter, one.dtype, one.device, one.started_at, one.score),
            "yes" if one.passed else "no",
        )
        for letter, name, one in zip(ascii_uppercase, names, results, strict=False)
    ]
    return Table("runs", columns, rows)


def _probes_table(rows: Sequence[_Row]) -> Table:
    """Return all that is known of each probe in each run; the changes are for programs."""
    columns = (
        Column("probe", "probe"),
        Column("run", "run"),
        Column("verdict", "verdict"),
        Column("score", "score", lambda value: f"{value:.2f}"),
        Column("raw", "raw", format_raw),
        Column("ci_low", "95 % from", lambda value: f"{value:.3g}"),
        Column("ci_high", "to", lambda value: f"{value:.3g}"),
        Column("z_score", "z", format_z),
        *(replace(column, hidden=True) for column in _CHANGE),
    )
    cells = [
        (row.probe, row.run, *_measured(row.now), row.change.value, row.change.clear, p)
        for row, p in zip(rows, _corrected(rows), strict=True)
    ]
    return Table("measured", columns, cells)


def _changes_table(rows: Sequence[_Row]) -> Table:
    columns = (Column("probe", "probe"), Column("run", "run"), *_CHANGE)
    cells = [
        (row.probe, row.run, row.change.value, row.change.clear, p)
        for row, p in zip(rows, _corrected(rows), strict=True)
        if row.change.value is not None
    ]
    return Table("changes to A", columns, cells)


def _measured(now: ProbeResult | None) -> tuple[Any, ...]:
    if now is None:
        return ("not run", *[None] * 5)
    return (now.verdict.value, now.score, now.raw, *(now.ci_95 or (None, None)), now.z_score)


def _corrected(rows: Sequence[_Row]) -> list[float | None]:
    """Return the p of each row, corrected for all of them; None for a row without."""
    return corrected([row.change.p for row in rows])


def _cost_table(results: Sequence[SuiteResult]) -> Table:
    columns = (
        Column("run", "run"),
        Column("lookups", "lookups", count),
        Column("needed_passes", "needed", count),
        Column("forward_passes", "paid", count),
        Column("hit_rate", "hit rate", percent),
        Column("forward_s", "passes took", seconds),
        Column("wall_s", "run took", seconds),
    )
    rows = []
    for letter, one in zip(ascii_uppercase, results, strict=False):
        stats = one.backend_stats
        lookups = int(stats["cache_hits"] + stats["cache_misses"])
        paid, forward_s = int(stats["forward_passes"]), sum(row.forward_s for row in one.series)
        rows.append((letter, lookups, one.demand, paid, stats["hit_rate"], forward_s, one.wall_s))
    return Table("cost", columns, rows)
