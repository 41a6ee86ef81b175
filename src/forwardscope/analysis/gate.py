"""Comparison of a run with a reference run: what was measured, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from forwardscope.analysis.checks import Check
from forwardscope.analysis.formatting import count, percent, plural, seconds
from forwardscope.analysis.run_data import RunData
from forwardscope.analysis.score_gate import ScoreLimits, compare_scores, suite_score
from forwardscope.analysis.tables import Column, Table
from forwardscope.core.series import Counts
from forwardscope.errors import UserError
from forwardscope.probes import Verdict
from forwardscope.suite.formats import format_probe
from forwardscope.suite.result import SuiteResult

__all__ = ["Limits", "compare", "comparison_table"]

#: Verdicts from best to worst.
_VERDICTS: Final = (Verdict.PASS, Verdict.SKIP, Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much worse a run may be than its reference run.

    Attributes:
        more_passes: Additional forward passes allowed for each probe on each view.
        hit_rate_drop: Allowed drop of the hit rate; 0.01 is one percentage point.
        slowdown: Allowed ratio of the mean duration of a forward pass to that of the
            reference run; None does not compare time.
        scores: How much worse what the probes measured may be.
    """

    more_passes: int = 0
    hit_rate_drop: float = 0.0
    slowdown: float | None = None
    scores: ScoreLimits = field(default_factory=ScoreLimits)


def compare(reference: RunData, current: RunData, limits: Limits) -> list[Check]:
    """Compare a run with a reference run of the same suite, what was measured first.

    What was measured, and the verdicts, are compared if both are results, and time if there
    is a limit for it. Needed forward passes are compared by probe and view: those that were
    paid, and those that a store spared.

    Raises:
        UserError: The runs belong to different suites.
    """
    _check_same_suite(reference, current)
    return [
        *_scores(reference.result, current.result, limits.scores),
        *_verdicts(reference.verdicts, current.verdicts),
        *_passes(reference, current, limits.more_passes),
        _hit_rate(reference, current, limits.hit_rate_drop),
        *_time(reference.total, current.total, limits.slowdown),
    ]


def comparison_table(reference: RunData, current: RunData) -> Table:
    """Return lookups, forward passes and time of both runs, by probe and view and in total.

    Where no store spared a pass, one pair of columns has those needed and those paid; where
    the lookups are the same, one column has them.
    """
    stored = _use_store(reference, current)
    before, now = reference.by_probe_and_view(), current.by_probe_and_view()
    rows = [
        (format_probe(probe), view, *_pairs(before.get((probe, view)), now.get((probe, view))))
        for probe, view in dict.fromkeys((*before, *now))
    ]
    rows.append(("in all", "", *_pairs(reference.total, current.total)))
    same = all(was == is_now for _, _, was, is_now, *_ in rows)
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("baseline_lookups", "lookups", count),
        Column("lookups", "now", count, hidden=same),
        Column("baseline_needed_passes", "needed" if stored else "passes", count),
        Column("needed_passes", "now", count),
        Column("baseline_forward_passes", "paid", count, hidden=not stored),
        Column("forward_passes", "now", count, hidden=not stored),
        Column("baseline_forward_s", "time", seconds),
        Column("forward_s", "now", seconds),
    )
    return Table("reference run and current run", columns, rows)


def _scores(
    reference: SuiteResult | None, current: SuiteResult | None, limits: ScoreLimits
) -> Iterator[Check]:
    if reference is not None and current is not None:
        yield from compare_scores(reference, current, limits)
    if current is not None and limits.min_score is not None:
        yield suite_score(current, limits.min_score)


def _check_same_suite(reference: RunData, current: RunData) -> None:
    if reference.suite is not None and current.suite is not None:
        if reference.suite != current.suite:
            raise UserError(
                f"{reference.source} is a run of suite {reference.suite!r} and {current.source} "
                f"one of suite {current.suite!r}; compare two runs of one suite"
            )
        return
    before, now = ({key.probe for key in run.series} - {None} for run in (reference, current))
    if before and now and not before & now:
        raise UserError(
            f"{reference.source} and {current.source} have no probe in common; "
            "compare two runs of one suite"
        )


def _passes(reference: RunData, current: RunData, allowed: int) -> Iterator[Check]:
    before = reference.by_probe_and_view()
    noun = "needed forward pass" if _use_store(reference, current) else "forward pass"
    for (probe, view), counts in current.by_probe_and_view().items():
        passes, passes_before = _demand(counts), _demand(before.get((probe, view), Counts()))
        place = f"{format_probe(probe)} on {view}"
        finding = f"{place}: {plural(passes, noun)}, {passes_before} before"
        if passes > passes_before:
            finding += f"; {_cause(reference, current, probe, view)}"
        yield Check(f"forward passes of {place}", passes - passes_before <= allowed, finding)


def _use_store(*runs: RunData) -> bool:
    """Return whether a store spared one of the runs a forward pass."""
    return any(run.total.store_hits for run in runs)


def _demand(counts: Counts) -> int:
    """Return the forward passes that were needed, those that a store spared included."""
    return counts.misses + counts.store_hits


def _cause(reference: RunData, current: RunData, probe: str | None, view: str) -> str:
    """Return the cause of additional forward passes: new lookups or repeated passes."""
    before = reference.by_probe_and_view().get((probe, view))
    now = current.by_probe_and_view()[probe, view]
    if before is None:
        return f"{plural(now.lookups, 'lookup')}, none before"
    if reference.distinct_lookups is not None and current.distinct_lookups is not None:
        known = reference.distinct_lookups.get(probe, frozenset())
        new = sum(key.view_id == view for key in current.distinct_lookups[probe] - known)
        if new:
            return plural(new, "new distinct lookup")
    if now.lookups > before.lookups:
        return plural(now.lookups - before.lookups, "more lookup")
    again = "needed" if _use_store(current) else "computed"
    return f"no additional lookups; values that were no longer in the cache were {again} again"


def _hit_rate(reference: RunData, current: RunData, allowed: float) -> Check:
    """Compare the hit rates that the runs have without a store, as the passes are."""
    before, now = reference.total, current.total
    rate, rate_before = _without_store(now).hit_rate, _without_store(before).hit_rate
    what = "hit rate without the store" if _use_store(reference, current) else "hit rate"
    return Check(
        "hit rate",
        # rounding can make equal shares differ, so the counts are compared as well
        rate >= rate_before - allowed or _same_share(before, now),
        f"the {what} is {percent(rate)}, {percent(rate_before)} before",
    )


def _without_store(counts: Counts) -> Counts:
    """Return the counts with each hit of a store as a forward pass."""
    return replace(
        counts,
        hits=counts.memory_hits,
        coalesced=counts.coalesced - counts.remote_coalesced,
        forward_passes=counts.demand,
        disk_hits=0,
        remote_hits=0,
        remote_coalesced=0,
    )


def _same_share(before: Counts, now: Counts) -> bool:
    before, now = _without_store(before), _without_store(now)
    hits, hits_before = now.hits + now.coalesced, before.hits + before.coalesced
    return hits * before.lookups >= hits_before * now.lookups


def _verdicts(
    before: Mapping[str, Verdict] | None, now: Mapping[str, Verdict] | None
) -> Iterator[Check]:
    if before is None or now is None:
        return
    for probe, was in before.items():
        name = f"verdict of {probe}"
        if probe not in now:
            yield Check(name, ok=False, finding=f"{probe} did not run; its verdict was {was}")
            continue
        worse = _VERDICTS.index(now[probe]) > _VERDICTS.index(was)
        yield Check(name, not worse, f"the verdict of {probe} is {now[probe]}, {was} before")


def _time(before: Counts, now: Counts, allowed: float | None) -> Iterator[Check]:
    if allowed is None or not before.misses or not now.misses:
        return
    was, is_now = (counts.forward_ns / counts.misses / 1e9 for counts in (before, now))
    finding = f"a forward pass took {seconds(is_now)}, {seconds(was)} before"
    yield Check("time of a forward pass", is_now <= allowed * was, finding)


def _pairs(before: Counts | None, now: Counts | None) -> tuple[float | None, ...]:
    sides = [
        (None, None, None, None)
        if counts is None
        else (counts.lookups, _demand(counts), counts.misses, counts.forward_ns / 1e9)
        for counts in (before, now)
    ]
    return tuple(value for pair in zip(*sides, strict=True) for value in pair)
