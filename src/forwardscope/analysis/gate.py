"""Comparison of a run with a baseline: forward passes, hit rate, verdicts and time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

from forwardscope.analysis.formatting import OUTSIDE, count, percent, seconds
from forwardscope.analysis.run_data import RunData
from forwardscope.analysis.tables import Column, Table
from forwardscope.core.series import Counts
from forwardscope.errors import UserError
from forwardscope.probes import Verdict

__all__ = ["Check", "Limits", "as_junit", "compare", "comparison_table"]

#: Verdicts from best to worst.
_VERDICTS: Final = (Verdict.PASS, Verdict.SKIP, Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much worse a run may be than its baseline.

    Attributes:
        more_passes: Additional forward passes allowed for each probe on each view.
        hit_rate_drop: Allowed drop of the hit rate; 0.01 is one percentage point.
        slowdown: Allowed ratio of the mean duration of a forward pass to that of the
            baseline; None does not compare time.
    """

    more_passes: int = 0
    hit_rate_drop: float = 0.0
    slowdown: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one comparison.

    Attributes:
        name: What is compared.
        ok: Whether it is within its limit.
        says: The finding in one sentence.
    """

    name: str
    ok: bool
    says: str


def compare(baseline: RunData, current: RunData, limits: Limits) -> list[Check]:
    """Compare two runs of one suite.

    Forward passes are compared by probe and view. Verdicts are compared only if both
    runs have them, and time only if there is a limit for it.

    Raises:
        UserError: The runs belong to different suites.
    """
    _check_same_suite(baseline, current)
    return [
        *_passes(baseline, current, limits.more_passes),
        _hit_rate(baseline.total, current.total, limits.hit_rate_drop),
        *_verdicts(baseline.verdicts, current.verdicts),
        *_time(baseline.total, current.total, limits.slowdown),
    ]


def comparison_table(baseline: RunData, current: RunData) -> Table:
    """Return lookups, forward passes and time of both runs, by probe and view and in total."""
    columns = (
        Column("probe", "probe"),
        Column("view", "view"),
        Column("baseline_lookups", "lookups", count),
        Column("lookups", "now", count),
        Column("baseline_forward_passes", "passes", count),
        Column("forward_passes", "now", count),
        Column("baseline_forward_s", "time", seconds),
        Column("forward_s", "now", seconds),
    )
    before, now = baseline.by_probe_and_view(), current.by_probe_and_view()
    rows = [
        (_name(probe), view, *_pairs(before.get((probe, view)), now.get((probe, view))))
        for probe, view in dict.fromkeys((*before, *now))
    ]
    total = ("in all", "", *_pairs(baseline.total, current.total))
    return Table("baseline and current", columns, [*rows, total])


def as_junit(checks: Sequence[Check]) -> str:
    """Return the checks as JUnit XML, one test case for each check."""
    failed = sum(not check.ok for check in checks)
    numbers = {"name": "forwardscope gate", "tests": str(len(checks)), "failures": str(failed)}
    suite = ET.Element("testsuite", numbers)
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="forwardscope gate", name=check.name)
        if not check.ok:
            ET.SubElement(case, "failure", message=check.says)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _check_same_suite(baseline: RunData, current: RunData) -> None:
    if baseline.suite is not None and current.suite is not None:
        if baseline.suite != current.suite:
            raise UserError(
                f"{baseline.source} is a run of suite {baseline.suite!r} and {current.source} one "
                f"of suite {current.suite!r}; compare two runs of one suite"
            )
        return
    before, now = ({key.probe for key in one.series} - {None} for one in (baseline, current))
    if before and now and not before & now:
        raise UserError(
            f"{baseline.source} and {current.source} have no probe in common; "
            "compare two runs of one suite"
        )


def _passes(baseline: RunData, current: RunData, allowed: int) -> Iterator[Check]:
    before = baseline.by_probe_and_view()
    for (probe, view), counts in current.by_probe_and_view().items():
        own = before.get((probe, view), Counts())
        passes, passes_before = counts.misses, own.misses
        says = (
            f"{_name(probe)} on {view}: {_plural(passes, 'forward pass')}, {passes_before} before"
        )
        if passes > passes_before:
            says += f"; {_cause(baseline, current, probe, view)}"
        name = f"forward passes of {_name(probe)} on {view}"
        yield Check(name, passes - passes_before <= allowed, says)


def _cause(baseline: RunData, current: RunData, probe: str | None, view: str) -> str:
    """Return the cause of additional forward passes: new questions or repeated ones."""
    before = baseline.by_probe_and_view().get((probe, view))
    now = current.by_probe_and_view()[probe, view]
    if before is None:
        return f"{_plural(now.lookups, 'lookup')}, none before"
    if baseline.questions is not None and current.questions is not None:
        known = baseline.questions.get(probe, frozenset())
        new = sum(one.view_id == view for one in current.questions[probe] - known)
        if new:
            return f"{_plural(new, 'new question')}"
    if now.lookups > before.lookups:
        return f"{_plural(now.lookups - before.lookups, 'more lookup')}"
    return "no more lookups; entries that the cache no longer had were computed again"


def _hit_rate(before: Counts, now: Counts, allowed: float) -> Check:
    return Check(
        "hit rate",
        # rounding can make equal shares differ, so the counts are compared as well
        now.hit_rate >= before.hit_rate - allowed or _same_share(before, now),
        f"the hit rate is {percent(now.hit_rate)}, {percent(before.hit_rate)} before",
    )


def _same_share(before: Counts, now: Counts) -> bool:
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
            yield Check(name, ok=False, says=f"{probe} did not run; its verdict was {was}")
            continue
        worse = _VERDICTS.index(now[probe]) > _VERDICTS.index(was)
        yield Check(name, not worse, f"the verdict of {probe} is {now[probe]}, {was} before")


def _time(before: Counts, now: Counts, allowed: float | None) -> Iterator[Check]:
    if allowed is None or not before.misses or not now.misses:
        return
    was, is_now = (one.forward_ns / one.misses / 1e9 for one in (before, now))
    says = f"a forward pass took {seconds(is_now)}, {seconds(was)} before"
    yield Check("time of a forward pass", is_now <= allowed * was, says)


def _pairs(before: Counts | None, now: Counts | None) -> tuple[float | None, ...]:
    sides = [
        (None, None, None) if one is None else (one.lookups, one.misses, one.forward_ns / 1e9)
        for one in (before, now)
    ]
    return tuple(value for pair in zip(*sides, strict=True) for value in pair)


def _name(probe: str | None) -> str:
    return OUTSIDE if probe is None else probe


def _plural(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count(number)} {noun if number == 1 else plural}"
