"""The report of a sweep as one HTML page: what each probe measured along the adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from forwardscope.analysis.page import figure, html_table, link, page, paragraph, section
from forwardscope.analysis.svg import (
    WIDTH,
    Key,
    Scale,
    circle,
    drawing,
    line,
    path,
    words,
)
from forwardscope.analysis.tables import Column, Table
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["AdapterPoint", "ProbeLine", "SweepFacts", "sweep_page"]

_LEFT, _RIGHT = 48.0, WIDTH - 12.0
_TOP, _BOTTOM, _AXIS = 22.0, 132.0, 34.0
#: Most adapters that have a number of their own on the axis.
_MAX_NUMBERS: Final = 12
_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True)
class AdapterPoint:
    """What a probe measured of one adapter.

    Attributes:
        number: Position of the adapter, from 1.
        label: Its short name.
        verdict: The probe's verdict; None where the adapter could not be measured.
        score: Its score, or None.
        raw: What it measured, or None.
        change: The change of that against the adapter before, or None.
        p: Probability of such a change if there were none, corrected; None if not tested.
    """

    number: int
    label: str
    verdict: str | None
    score: float | None
    raw: float | None
    change: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """A probe along the adapters."""

    name: str
    points: Sequence[AdapterPoint]


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """What the page says beside the charts.

    Attributes:
        title: Its heading.
        about: Sentences beneath it.
        events: What happened.
        reports: Label of each adapter and the place of its own report, if there is one.
        traces_url: Address of the trace in a viewer, or None.
        delivery: What telemetry was delivered.
    """

    title: str
    about: Sequence[str]
    events: Sequence[str] = ()
    reports: Sequence[tuple[str, str]] = ()
    traces_url: str | None = None
    delivery: Sequence[str] = ()


def sweep_page(
    facts: SweepFacts, probes: Sequence[ProbeLine], tables: Sequence[Table], note: str
) -> str:
    """Return the page as HTML.

    Args:
        facts: What was run, and what happened.
        probes: The probes in order.
        tables: Tables with a row for each adapter.
        note: What the columns of the data mean.
    """
    body = [
        f"<h1>{escape(shown(facts.title))}</h1>",
        *map(paragraph, facts.about),
        "" if facts.traces_url is None else link(facts.traces_url, "trace of the sweep"),
        *_happened(facts.events),
        section("Adapters", *map(html_table, tables), _reports(facts.reports)),
    ]
    charts = [figure(one.name, _chart(one), _data(one)) for one in probes]
    if charts:
        grid = f'<div class="figures">{"".join(charts)}</div>'
        body.append(section("Scores along the adapters", grid, paragraph(note, muted=True)))
    if facts.delivery:
        body.append(section("Delivery", *map(paragraph, facts.delivery)))
    return page(f"{facts.title}: forwardscope", body)


def _happened(events: Sequence[str]) -> Iterator[str]:
    if events:
        yield section("What happened", *map(paragraph, events))


def _reports(reports: Sequence[tuple[str, str]]) -> str:
    """Return links to the adapters' own reports; places are relative paths."""
    if not reports:
        return ""
    links = ", ".join(
        f'<a href="{escape(place)}">{escape(shown(label))}</a>' for label, place in reports
    )
    return f'<p class="muted">Report of each run: {links}</p>'


def _chart(probe: ProbeLine) -> str:
    """Return scores along the adapters, with the threshold of the verdicts."""
    last = max(point.number for point in probe.points)
    x = Scale(0.5, max(last, 1) + 0.5, _LEFT, _RIGHT)
    y = Scale(0.0, 1.0, _BOTTOM, _TOP)
    measured = [point for point in probe.points if point.score is not None]
    parts = [words(4, 12, "score", "name"), *_axes(x, y, last)]
    parts.append(line(_LEFT, y(_THRESHOLD), _RIGHT, y(_THRESHOLD), "threshold"))
    parts += [path(run, "join") for run in _runs(probe.points, x, y)]
    for point in measured:
        parts.append(circle(x(point.number), y(point.score or 0.0), 4, _kind(point)))
    for point in probe.points:
        if point.score is None:
            mark = "ERROR" if point.verdict in (None, "error") else "–"
            parts.append(words(x(point.number), _BOTTOM - 4, mark, "", "middle"))
    legend = [Key("threshold", "line", "threshold")]
    if any(_kind(point) == "failed" for point in measured):
        legend.append(Key("failed", "dot", "not passed"))
    values = ", ".join(f"{point.label} {point.score:.2f}" for point in measured if point.score)
    label = shown(f"Scores of {probe.name} along the adapters: {values}", MAX_SENTENCE)
    return drawing(parts, _BOTTOM + _AXIS, legend, label)


def _axes(x: Scale, y: Scale, last: int) -> Iterator[str]:
    for tick in (0.0, _THRESHOLD, 1.0):
        yield line(_LEFT, y(tick), _RIGHT, y(tick), "grid")
        yield words(_LEFT - 6, y(tick) + 4, f"{tick:g}", "name", "end")
    step = -(-last // _MAX_NUMBERS)
    for number in range(1, last + 1, step):
        yield words(x(number), _BOTTOM + 13, str(number), "name", "middle")
    yield line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")
    yield words(_RIGHT, _BOTTOM + 27, "adapter", "name", "end")


def _runs(
    points: Sequence[AdapterPoint], x: Scale, y: Scale
) -> Iterator[Sequence[tuple[float, float]]]:
    """Yield lines through neighbouring points, broken where one has no score."""
    run: list[tuple[float, float]] = []
    for point in points:
        if point.score is None:
            yield from [run] if len(run) > 1 else []
            run = []
        else:
            run.append((x(point.number), y(point.score)))
    yield from [run] if len(run) > 1 else []


def _kind(point: AdapterPoint) -> str:
    return "point" if point.verdict in ("pass", "skip") else "failed"


def _data(probe: ProbeLine) -> Table:
    columns = (
        Column("number", "#", str),
        Column("adapter", "adapter", paths=True),
        Column("verdict", "verdict"),
        Column("score", "score", lambda value: f"{value:.2f}"),
        Column("raw", "raw", lambda value: f"{value:.4g}"),
        Column("change", "change", lambda value: f"{value:+.3g}"),
        Column("p", "p", lambda value: "<0.001" if value < 0.001 else f"{value:.3f}"),
    )
    rows = [
        (one.number, one.label, one.verdict or "error", one.score, one.raw, one.change, one.p)
        for one in probe.points
    ]
    return Table(probe.name, columns, rows)
