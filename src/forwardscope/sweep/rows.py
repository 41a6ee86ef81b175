"""Rows of a sweep's result, and the changes between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from forwardscope.suite.changes import Change, change_between, corrected
from forwardscope.suite.result import SuiteResult
from forwardscope.sweep.result import AdapterRow, Comparisons, Passes, ProbeCell
from forwardscope.sweep.tasks import Measured, Task

__all__ = ["compared", "error_row", "places_of", "row_of"]


def row_of(
    task: Task,
    result: SuiteResult,
    status: Literal["finished", "resumed"],
    folder: str,
    measured: Measured | None = None,
) -> AdapterRow:
    """Return the row of an adapter with a result, without changes."""
    return AdapterRow(
        index=task.index,
        adapter=task.adapter,
        label=task.label,
        status=status,
        worker="" if measured is None else measured.worker,
        folder=folder,
        run_id=result.run_id,
        passed=result.passed,
        score=result.score,
        started_at=result.started_at,
        device=result.device,
        dtype=result.dtype,
        wall_s=result.wall_s,
        passes=_passes(result),
        probes=[_cell(result, index) for index in range(len(result.probes))],
        notes=[*result.warnings, *_store_notes(result), *(measured.notes if measured else ())],
    )


def error_row(task: Task, measured: Measured, folder: str) -> AdapterRow:
    """Return the row of an adapter that could not be measured."""
    return AdapterRow(
        index=task.index,
        adapter=task.adapter,
        label=task.label,
        status="error",
        error=measured.error or "the run was lost",
        error_type=measured.error_type,
        worker=measured.worker,
        folder=folder,
        notes=list(measured.notes),
    )


def compared(rows: Sequence[AdapterRow]) -> tuple[list[AdapterRow], Comparisons]:
    """Return rows with the changes of each against the one before that has a result.

    All p-values are corrected together, by Holm's method.
    """
    changes = [
        [_change(_before(rows, place), cell) for cell in row.probes]
        for place, row in enumerate(rows)
    ]
    values = iter(corrected([one.p for own in changes for one in own]))
    found = []
    for place, (row, own) in enumerate(zip(rows, changes, strict=True)):
        before = _before(rows, place)
        cells = [
            cell.model_copy(update={"change": one.value, "clear": one.clear, "p": next(values)})
            for cell, one in zip(row.probes, own, strict=True)
        ]
        label = before.label if before is not None and row.probes else None
        found.append(row.model_copy(update={"probes": cells, "compared_with": label}))
    made = [one for own in changes for one in own if one.value is not None]
    tested = sum(one.p is not None for one in made)
    return found, Comparisons(changes=len(made), tested=tested)


def places_of(rows: Sequence[AdapterRow]) -> dict[str, list[str]]:
    """Return the labels of measured adapters by dtype and kind of device, such as `cuda`."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.device:
            place = f"{row.dtype} on {row.device.partition(':')[0]}"
            found.setdefault(place, []).append(row.label)
    return found


def _before(rows: Sequence[AdapterRow], place: int) -> AdapterRow | None:
    return next((row for row in reversed(rows[:place]) if row.probes), None)


def _change(before: AdapterRow | None, now: ProbeCell) -> Change:
    if before is None:
        return Change()
    same = (cell for cell in before.probes if (cell.name, cell.kind) == (now.name, now.kind))
    first = next(same, None)
    return Change() if first is None else change_between(first, now)


def _cell(result: SuiteResult, index: int) -> ProbeCell:
    probe = result.probes[index]
    return ProbeCell(
        name=probe.name,
        kind=probe.kind,
        verdict=probe.verdict,
        score=probe.score,
        raw=probe.raw,
        z_score=probe.z_score,
        ci_95=probe.ci_95,
    )


def _passes(result: SuiteResult) -> Passes:
    stats, stored = result.backend_stats, sum(one.store_hits for one in result.series)
    tier = "disk" if result.store is None else result.store.tier
    hits = int(stats["cache_hits"])
    tiers = {"memory": hits - stored, tier: stored}
    return Passes(
        lookups=hits + int(stats["cache_misses"]),
        hits=hits,
        by_tier={name: number for name, number in tiers.items() if number},
        forward_passes=int(stats["forward_passes"]),
        demand=result.demand,
    )


def _store_notes(result: SuiteResult) -> list[str]:
    if result.store is None:
        return []
    return [f"store: {problem}" for problem in result.store.problems()]
