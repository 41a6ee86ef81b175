"""Three kinds of charts: bars by name, a curve, and one value among others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from forwardscope.analysis.svg import (
    WIDTH,
    Key,
    Scale,
    circle,
    drawing,
    line,
    path,
    rectangle,
    words,
)

__all__ = ["Line", "Mark", "Point", "bars", "curve", "strip"]

_LEFT, _RIGHT, _TOP = 118.0, WIDTH - 12.0, 8.0
_CURVE_LEFT, _CURVE_BOTTOM = 48.0, 190.0
_ROW: Final = 18.0
_AXIS: Final = 34.0
#: Narrower ranges are drawn this wide, so that they are seen.
_MIN_WIDTH: Final = 2.0
#: Characters of a bar's name, and where the bars begin: room for hashes, or for texts.
_HASHES: Final = (15, _LEFT)
_TEXTS: Final = (24, 180.0)


@dataclass(frozen=True, slots=True)
class Mark:
    """A range across a chart, or a line where both ends are equal.

    Attributes:
        kind: A class of `page/chart.css`.
        text: What it is, for the legend.
        low: Where it begins.
        high: Where it ends.
    """

    kind: str
    text: str
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    @property
    def key(self) -> Key:
        """The entry of the legend."""
        return Key(self.kind, "line" if self.low == self.high else "area", self.text)


@dataclass(frozen=True, slots=True)
class Point:
    """A measured point of a curve, with its interval if there is one."""

    x: float
    y: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A further line through points, and what it is."""

    kind: str
    text: str
    points: Sequence[tuple[float, float]]


def bars(
    rows: Sequence[tuple[str, float]],
    marks: Sequence[Mark],
    *,
    axis: str,
    label: str,
    origin: float = 0.0,
    log: bool = False,
) -> str:
    """Return one horizontal bar for each name, from the origin to its value."""
    ends = [end for mark in marks for end in mark.ends]
    values = [value for _, value in rows]
    most, left = _HASHES if all(len(name) <= _HASHES[0] for name, _ in rows) else _TEXTS
    scale = Scale.over([origin, *values, *ends], left, _RIGHT, log=log)
    bottom = _TOP + _ROW * len(rows)
    parts = [*_x_axis(scale, bottom, axis), *_areas(scale, marks, bottom)]
    for place, (name, value) in enumerate(rows):
        top = _TOP + _ROW * place
        cut = name if len(name) <= most else f"{name[: most - 1]}…"
        parts.append(words(left - 6, top + 13, cut, "name", "end"))
        parts.append(rectangle(scale(origin), top + 4, scale(value), top + _ROW - 4, "value"))
    parts += [
        line(scale(origin), _TOP, scale(origin), bottom, "axis"),
        *_lines(scale, marks, bottom),
    ]
    return drawing(parts, bottom + _AXIS, [mark.key for mark in marks], label)


def strip(
    others: Sequence[float],
    value: float,
    interval: tuple[float, float] | None,
    marks: Sequence[Mark],
    *,
    axis: str,
    label: str,
    names: tuple[str, str] = ("random adapters", "this adapter"),
    log: bool = False,
) -> str:
    """Return dots for other values above the value, with its interval, on one axis."""
    ends = [end for mark in marks for end in mark.ends]
    scale = Scale.over([*others, value, *(interval or ()), *ends], _LEFT, _RIGHT, log=log)
    rows = [name for name, there in zip(names, (others, (value,)), strict=True) if there]
    bottom = _TOP + 30 * len(rows)
    parts = [*_x_axis(scale, bottom, axis), *_areas(scale, marks, bottom)]
    middle = [_TOP + 15 + 30 * place for place in range(len(rows))]
    for name, y in zip(rows, middle, strict=True):
        parts.append(words(_LEFT - 6, y + 4, name, "name", "end"))
    parts += [
        *_lines(scale, marks, bottom),
        *(circle(scale(x), middle[0], 4, "other") for x in others),
    ]
    if interval is not None:
        parts.append(_whisker(scale(interval[0]), middle[-1], scale(interval[1]), middle[-1]))
    parts.append(circle(scale(value), middle[-1], 5, "point"))
    sure = [Key("whisker", "line", "95 % interval")] if interval is not None else []
    return drawing(parts, bottom + _AXIS, [*sure, *(mark.key for mark in marks)], label)


def curve(
    points: Sequence[Point],
    lines: Sequence[Line],
    marks: Sequence[Mark],
    legend: Sequence[Key],
    *,
    axes: tuple[str, str],
    label: str,
) -> str:
    """Return measured points joined by a line, further lines, and marks on the x axis."""
    along = [x for one in lines for x, _ in one.points]
    ends = [end for mark in marks for end in mark.ends]
    x = Scale.over([*(p.x for p in points), *along, *ends], _CURVE_LEFT, _RIGHT)
    heights = [y for p in points for y in (p.y, *(p.interval or ()))]
    y = Scale.over([0.0, *heights, *(h for one in lines for _, h in one.points)], _CURVE_BOTTOM, 22)
    parts = [words(4, 12, axes[1], "name"), *_y_axis(y), *_x_axis(x, _CURVE_BOTTOM, axes[0])]
    parts += [*_areas(x, marks, _CURVE_BOTTOM, 22), *_lines(x, marks, _CURVE_BOTTOM, 22)]
    parts += [path([(x(a), y(b)) for a, b in one.points], one.kind) for one in lines]
    parts.append(path([(x(p.x), y(p.y)) for p in points], "join"))
    for p in points:
        if p.interval is not None:
            parts.append(_whisker(x(p.x), y(p.interval[0]), x(p.x), y(p.interval[1])))
        parts.append(circle(x(p.x), y(p.y), 4, "point"))
    further = [*(Key(one.kind, "line", one.text) for one in lines), *(mark.key for mark in marks)]
    return drawing(parts, _CURVE_BOTTOM + _AXIS, [*legend, *further], label)


def _x_axis(scale: Scale, bottom: float, title: str) -> Iterator[str]:
    for tick in scale.ticks():
        at = scale(tick)
        yield line(at, _TOP, at, bottom, "grid")
        yield words(at, bottom + 13, f"{tick:.4g}", "name", "middle")
    yield line(scale.start, bottom, scale.end, bottom, "axis")
    yield words(scale.end, bottom + 27, title, "name", "end")


def _y_axis(scale: Scale) -> Iterator[str]:
    for tick in scale.ticks():
        at = scale(tick)
        yield line(_CURVE_LEFT, at, _RIGHT, at, "grid")
        yield words(_CURVE_LEFT - 6, at + 4, f"{tick:.4g}", "name", "end")


def _areas(scale: Scale, marks: Sequence[Mark], bottom: float, top: float = _TOP) -> Iterator[str]:
    for mark in marks:
        if mark.low != mark.high:
            left, right = scale(mark.low), scale(mark.high)
            yield rectangle(left, top, max(right, left + _MIN_WIDTH), bottom, mark.kind)


def _lines(scale: Scale, marks: Sequence[Mark], bottom: float, top: float = _TOP) -> Iterator[str]:
    for mark in marks:
        if mark.low == mark.high:
            yield line(scale(mark.low), top, scale(mark.low), bottom, mark.kind)


def _whisker(x1: float, y1: float, x2: float, y2: float) -> str:
    across = (0.0, 4.0) if y1 == y2 else (4.0, 0.0)
    caps = (
        line(x - across[0], y - across[1], x + across[0], y + across[1], "whisker")
        for x, y in ((x1, y1), (x2, y2))
    )
    return "".join((line(x1, y1, x2, y2, "whisker"), *caps))
