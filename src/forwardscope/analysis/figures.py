"""The parts that charts of several probes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forwardscope.analysis.charts import Mark, Point, bars, strip
from forwardscope.analysis.evidence import Measured, RandomAdapters
from forwardscope.analysis.svg import Key
from forwardscope.analysis.tables import Column, Table
from forwardscope.probes.bootstrap import bootstrap_interval
from forwardscope.suite.formats import format_interval, format_raw
from forwardscope.suite.result import ProbeResult
from forwardscope.text import plural

__all__ = [
    "Figure",
    "bars_figure",
    "curve_keys",
    "curve_points",
    "mean_marks",
    "measured",
    "null_figure",
    "points_table",
    "random_marks",
    "value_figure",
    "z_marks",
]

#: Bars of a chart, enough for the general prompts, and rows of its table.
_MAX_BARS: Final = 32
_MAX_ROWS: Final = 500
#: From this many values on, the intervals of a curve are left out.
_MAX_RESAMPLED: Final = 50_000
#: From this ratio of the largest to the smallest value on, an axis is logarithmic.
_LOG_FROM: Final = 30.0
#: A logarithmic axis begins above.
_TINY: Final = 1e-100


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its data.

    Attributes:
        title: What it shows.
        svg: The chart.
        table: Its data.
        note: A sentence beneath it, or nothing.
    """

    title: str
    svg: str
    table: Table
    note: str = ""


def measured(probe: ProbeResult) -> Measured:
    """Return the value and the interval of a probe.

    Raises:
        ValidationError: There is no value, or one that no chart can hold.
    """
    return Measured.model_validate({"raw": probe.raw, "ci_95": probe.ci_95})


def mean_marks(probe: ProbeResult, name: str = "the mean") -> Iterator[Mark]:
    """Yield the value of a probe and its interval."""
    value = measured(probe)
    if value.ci_95 is not None and value.ci_95[0] < value.ci_95[1]:
        said = f"95 % interval of {name}: {format_interval(value.ci_95)}"
        yield Mark("interval", said, *value.ci_95)
    yield Mark("mean", f"{name}: {format_raw(value.raw)}", value.raw, value.raw)


def random_marks(random: RandomAdapters | None) -> Iterator[Mark]:
    """Yield the range of the random adapters' values."""
    if random is not None:
        low, high = min(random.samples), max(random.samples)
        said = f"{plural(len(random.samples), 'random adapter')}: {low:.3g} to {high:.3g}"
        yield Mark("random", said, low, high)


def null_figure(
    probe: ProbeResult, random: RandomAdapters | None, marks: Sequence[Mark], axis: str
) -> Iterator[Figure]:
    """Yield the random adapters' values with that of the adapter among them."""
    if random is None:
        return
    value = measured(probe)
    values = [*random.samples, value.raw, *(value.ci_95 or ()), *(mark.low for mark in marks)]
    log = _spread(values)
    yield Figure(
        "The adapter among random adapters",
        strip(
            random.samples, value.raw, value.ci_95, marks, log=log,
            axis=f"{axis} (logarithmic axis)" if log else axis,
            label=f"{probe.name}: values of random adapters and of this adapter",
        ),
        _null_table(random, value.raw),
    )  # fmt: skip


def z_marks(
    probe: ProbeResult, random: RandomAdapters | None, min_z: float | None
) -> Iterator[Mark]:
    """Yield the value from which z is large enough."""
    if random is not None and min_z is not None and probe.z_score is not None:
        least = random.mean + min_z * random.std
        said = f"passes from {least:.3g}: {min_z:g} deviations above their mean"
        yield Mark("threshold", said, least, least)


def _null_table(random: RandomAdapters, value: float) -> Table:
    names = [f"random adapter {place + 1}" for place in range(len(random.samples))]
    rows = [*zip(names, random.samples, strict=True), ("this adapter", value)]
    return Table("values", (Column("adapter", "adapter"), *_numbers("value")), rows[-_MAX_ROWS:])


def bars_figure(
    title: str,
    names: tuple[str, Sequence[str]],
    values: tuple[str, Sequence[float]],
    marks: Sequence[Mark],
    *,
    axis: str,
    origin: float = 0.0,
    more: Sequence[tuple[str, Sequence[float]]] = (),
) -> Figure:
    """Return bars, the largest value first; of many, the largest and the smallest."""
    further = [one for one in more if len(one[1]) == len(values[1])]
    columns = zip(names[1], values[1], *(one[1] for one in further), strict=True)
    rows: list[tuple[Any, ...]] = sorted(columns, key=lambda row: -row[1])
    drawn = rows if len(rows) <= _MAX_BARS else rows[: _MAX_BARS // 2] + rows[-_MAX_BARS // 2 :]
    log = origin > 0 and _spread(
        [origin, *values[1], *(end for mark in marks for end in mark.ends)]
    )
    svg = bars(
        [(name, value) for name, value, *_ in drawn], marks, axis=axis, label=title, log=log,
        origin=origin,
    )  # fmt: skip
    note = ""
    if len(rows) > _MAX_BARS:
        half = len(drawn) // 2
        note = f"The {half} largest and the {half} smallest of {plural(len(rows), names[0])}."
    heads = (Column(names[0], names[0]), *_numbers(values[0], *(one[0] for one in further)))
    return Figure(title, svg, Table(title, heads, rows[:_MAX_ROWS]), note)


def _spread(values: Sequence[float]) -> bool:
    """Return whether values need a logarithmic axis."""
    return min(values) > _TINY and max(values) / min(values) > _LOG_FROM


def curve_points(
    x: Sequence[float], y: Sequence[float], per_prompt: list[list[float]], seed: int
) -> list[Point]:
    """Return the points of a curve, with bootstrap intervals over the prompts."""
    few = len(per_prompt) * len(x) < _MAX_RESAMPLED
    columns = zip(*per_prompt, strict=True) if per_prompt and few else [()] * len(x)
    intervals = [bootstrap_interval(column, seed) for column in columns]
    return [Point(*one) for one in zip(x, y, intervals, strict=True)]


def curve_keys(points: Sequence[Point], per_prompt: list[list[float]]) -> list[Key]:
    """Return the legend of the points."""
    said = "mean"
    if per_prompt:
        said += f" over {plural(len(per_prompt), 'prompt')}"
    if points[0].interval is not None:
        said += ", with its 95 % interval"
    return [Key("point", "dot", said)]


def points_table(x: str, points: Sequence[Point]) -> Table:
    """Return the points of a curve; `x` names what the curve is over."""
    rows = [(p.x, p.y, *(p.interval or (None, None))) for p in points]
    return Table("curve", _numbers(x, "mean divergence, nats", "from", "to"), rows)


def value_figure(probe: ProbeResult) -> Iterator[Figure]:
    """Yield the value of a probe of another package, with its interval."""
    if probe.raw is None or probe.ci_95 is None:
        return
    value = measured(probe)
    label = f"{probe.name}: value"
    svg = strip([], value.raw, value.ci_95, [], axis="value", label=label, names=("", "value"))
    row = (value.raw, *(value.ci_95 or ()))
    yield Figure("Value", svg, Table("value", _numbers("value", "from", "to"), [row]))


def _numbers(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, title, format_raw) for title in titles)
