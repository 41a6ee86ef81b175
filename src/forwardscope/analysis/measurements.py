"""The parts of a run's report that say what its probes measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from forwardscope.analysis.page import figure, paragraph, section
from forwardscope.analysis.probe_charts import CHARTED, figures
from forwardscope.analysis.verdicts import certainty, meaning
from forwardscope.probes import Verdict
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.text import plural, shown

__all__ = ["measurements", "verdict_list"]

#: Probes whose charts a browser can hold.
_MAX_CHARTED: Final = 100


def verdict_list(probes: Iterable[ProbeResult]) -> str:
    """Return each probe's verdict, what it means, the numbers, and how sure it is."""
    return f'<ul class="verdicts">{"".join(map(_verdict, probes))}</ul>'


def _verdict(probe: ProbeResult) -> str:
    verdict = probe.verdict.value
    numbers = [] if probe.score is None else [f"score {probe.score:.2f}"]
    sure = certainty(probe)
    return (
        f'<li><h3><span class="{verdict}">{verdict}</span> {escape(shown(probe.name))}'
        f'<span class="kind">{escape(shown(probe.kind))}</span></h3>'
        f'<p class="what">{escape(meaning(probe))}</p>'
        f"{paragraph('; '.join((probe.message, *numbers)))}"
        f"{paragraph(f'How sure: {sure}.', muted=True) if sure else ''}</li>"
    )


def measurements(result: SuiteResult) -> str:
    """Return the charts of the probes that have some, and how many further probes have none."""
    drawn, more = result.probes[:_MAX_CHARTED], result.probes[_MAX_CHARTED:]
    parts = [part for probe in drawn for part in _charts_of(probe, result.seed)]
    if not parts:
        return ""
    charts = f'<div class="figures">{"".join(parts)}</div>'
    left_out = f"{plural(len(more), 'further probe')} without charts here."
    note = paragraph(left_out, muted=True) if more else ""
    return section("Measurements", charts, note)


def _charts_of(probe: ProbeResult, seed: int) -> Iterator[str]:
    charts = figures(probe, seed)
    measured = probe.kind in CHARTED and probe.verdict in (Verdict.PASS, Verdict.FAIL)
    for one in charts:
        yield figure(f"{shown(probe.name)}: {one.title}", one.svg, one.table, one.note)
    if measured and not charts:
        said = "the result lacks the data of its chart, as those of older versions do"
        yield paragraph(f"{shown(probe.name)}: {said}.", muted=True)
    if (
        measured
        and charts
        and probe.z_score is not None
        and not probe.evidence.get("random_adapters")
    ):
        said = "the result lacks the values of its random adapters, as those of older versions do"
        yield paragraph(f"{shown(probe.name)}: {said}.", muted=True)
