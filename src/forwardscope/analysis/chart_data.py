"""Data of the report's charts, collected in one read of a trace."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from forwardscope.analysis.curve import Curve, CurvePoint
from forwardscope.analysis.formatting import count, seconds
from forwardscope.analysis.summary import Slowest
from forwardscope.analysis.tables import Column, Table
from forwardscope.suite.formats import format_probe
from forwardscope.text import shown
from forwardscope.trace import TraceEvent

__all__ = ["ChartData", "curve_data"]

#: Maximum dots of each timeline series, and maximum sizes of the curve.
_MAX_DOTS, _MAX_SIZES = 5000, 600
#: Histogram bars per factor of ten.
_BARS: Final = 4


class ChartData:
    """Timeline, durations and slowest passes of the records that were read.

    Memory use is 20 bytes for each record, plus the names of the probes.

    Attributes:
        slowest: The longest successful forward passes.
    """

    def __init__(self) -> None:
        self.slowest = Slowest()
        self._start_s = math.inf
        self._probes: dict[str | None, int] = {}
        self._ends_s = {hit: array("d") for hit in (False, True)}
        self._rows = {hit: array("l") for hit in (False, True)}
        self._pass_ms = array("d")

    def collect(self, events: Iterable[TraceEvent]) -> Iterator[TraceEvent]:
        """Yield the records unchanged, and collect the data of each."""
        for event in events:
            self._start_s = min(self._start_s, event.ts - event.wall_ms / 1e3)
            self._ends_s[event.hit].append(event.ts)
            self._rows[event.hit].append(self._probes.setdefault(event.probe, len(self._probes)))
            if not event.hit and event.error is None:
                self._pass_ms.append(event.wall_ms)
                if event.wall_ms > self.slowest.threshold_ms:
                    self.slowest.add(event)
            yield event

    @property
    def total(self) -> int:
        """Number of records."""
        return sum(map(len, self._ends_s.values()))

    def timeline(self) -> dict[str, Any]:
        """Return the end and the probe of an even sample of the forward passes and hits."""
        plotted = sorted((*self._dots(hit=False), *self._dots(hit=True)), key=lambda dot: dot[0])
        return {
            "probes": [shown(format_probe(name)) for name in self._probes],
            "seconds": [round(end_s - self._start_s, 6) for end_s, _, _ in plotted],
            "passes": [None if hit else row for _, row, hit in plotted],
            "hits": [row if hit else None for _, row, hit in plotted],
            "omitted": self.total - len(plotted),
        }

    def timeline_table(self) -> Table:
        """Return when the lookups of each probe ended, and how many were passes and hits."""
        columns = (
            Column("probe", "probe"),
            *(Column(key, f"{key} lookup", seconds) for key in ("first", "last")),
            *(Column(key, key, count) for key in ("passes", "hits")),
        )
        names = [format_probe(name) for name in self._probes]
        first, last = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        counts = []
        for hit in (False, True):
            rows, ends = np.asarray(self._rows[hit]), np.asarray(self._ends_s[hit]) - self._start_s
            np.minimum.at(first, rows, ends)
            np.maximum.at(last, rows, ends)
            counts.append(np.bincount(rows, minlength=len(names)).tolist())
        cells = zip(names, first.tolist(), last.tolist(), *counts, strict=True)
        return Table("timeline", columns, list(cells))

    def durations_table(self) -> Table:
        """Return the bars of the histogram."""
        bars = self.durations()
        columns = (Column("at_least", "at least"), Column("passes", "forward passes", count))
        return Table("durations", columns, list(zip(*bars.values(), strict=True)))

    def _dots(self, *, hit: bool) -> Iterator[tuple[float, int, bool]]:
        """Yield end, row and kind of at most `_MAX_DOTS` lookups."""
        step = math.ceil(len(self._rows[hit]) / _MAX_DOTS) or 1
        for end_s, row in zip(self._ends_s[hit][::step], self._rows[hit][::step], strict=True):
            yield end_s, row, hit

    def durations(self) -> dict[str, Any]:
        """Return a histogram of the durations of successful passes on a logarithmic axis."""
        if not self._pass_ms:
            return {"labels": [], "counts": []}
        logs = np.log10(np.maximum(np.frombuffer(self._pass_ms), 1e-3))
        places = np.floor(logs * _BARS).astype(int)
        first = int(places.min())
        counts = np.bincount(places - first)
        edges = 10 ** (np.arange(first, first + counts.size) / _BARS)
        return {"labels": [_duration(edge) for edge in edges], "counts": counts.tolist()}


def curve_data(curve: Curve, best: Sequence[CurvePoint]) -> dict[str, Any]:
    """Return the hit rates of at most `_MAX_SIZES` cache sizes and those of the optimum."""
    best_rates = {point.size: point.hits / curve.total for point in best}
    steps = np.rint(np.geomspace(1, curve.largest, _MAX_SIZES)).astype(int)
    sizes = sorted(best_rates.keys() | set(steps.tolist()))
    return {
        "sizes": sizes,
        "rates": [curve.at(size).hits / curve.total for size in sizes],
        "best": [best_rates.get(size) for size in sizes],
    }


def _duration(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.3g} s" if milliseconds >= 1e3 else f"{milliseconds:.3g} ms"
