"""Elements, axes and legends of charts in SVG.

A chart is text that scales with the page. Its colours are classes of `page/chart.css`, so
it follows light, dark and print.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["WIDTH", "Key", "Scale", "circle", "drawing", "line", "path", "rectangle", "words"]

#: Width of every chart, in units of its own; a phone shows it at about this many pixels.
WIDTH: Final = 380
_LINE_HEIGHT: Final = 15
_LEGEND_CHARS: Final = 54
_MARGIN: Final = 0.05
#: Values that differ by less are equal, and smaller ones are 0.
_ROUNDING, _TINY = 1e-9, 1e-200
_STEPS: Final = (1, 2, 5, 10)
_MAX_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight or logarithmic axis: values `low` to `high` lie at `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
        """Return an axis with all values and a margin; those of a logarithmic one are > 0."""
        known = [math.log10(value) for value in values] if log else list(values)
        low, high = min(known), max(known)
        largest = max(abs(low), abs(high))
        spread = high - low if high - low > largest * _ROUNDING else largest
        margin = spread * _MARGIN if spread > _TINY else 0.5
        low, high = (low - margin if low or log else low), high + margin
        return cls(10**low, 10**high, start, end, log) if log else cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return a few round values on the axis."""
        return self._decades() if self.log else self._steps()

    def _steps(self) -> list[float]:
        rough = (self.high - self.low) / _MAX_TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = unit * next(one for one in _STEPS if one * unit >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [place * step for place in range(first, last + 1)]

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        stride = math.ceil((last - first) / _MAX_TICKS)
        within = (1, 2, 5) if last - first <= 2 else (1,)
        ticks = [one * 10.0**power for power in range(first, last, stride) for one in within]
        return [tick for tick in ticks if self.low <= tick <= self.high]


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: the class of what is drawn, its shape, and what it is.

    Attributes:
        kind: A class of `page/chart.css`.
        shape: `line`, `area` or `dot`.
        text: Plain text.
    """

    kind: str
    shape: str
    text: str


def drawing(parts: Sequence[str], height: float, legend: Sequence[Key], label: str) -> str:
    """Return a chart with its legend beneath.

    Args:
        parts: Elements from the functions below.
        height: Height without the legend.
        legend: What the marks are.
        label: What the chart shows, for screen readers.
    """
    keys, total = [], height + 6
    for key in legend:
        keys.append(_swatch(key, total))
        for text in textwrap.wrap(shown(key.text, MAX_SENTENCE), _LEGEND_CHARS):
            keys.append(words(24, total + 10, text))
            total += _LINE_HEIGHT
    body = "".join((*parts, *keys))
    return (
        f'<svg class="drawing" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total:.0f}"'
        f' role="img" aria-label="{_escape(label)}">{body}</svg>'
    )


def _swatch(key: Key, top: float) -> str:
    middle = top + 6
    if key.shape == "dot":
        return circle(12, middle, 4, key.kind)
    if key.shape == "line":
        return line(4, middle, 20, middle, key.kind)
    return rectangle(4, top + 1, 20, top + 11, key.kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rectangle(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a filled rectangle between two corners."""
    left, top, width, height = min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}"/>'
    )


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """Return a filled circle."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def path(points: Iterable[tuple[float, float]], kind: str) -> str:
    """Return a line through points."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{places}"/>'


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """Return plain text; `anchor` is start, middle or end."""
    attributes = f' class="{kind}"' if kind else ""
    return (
        f'<text{attributes} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escape(text)}</text>'
    )


def _escape(text: str) -> str:
    return escape(shown(text, MAX_SENTENCE))
