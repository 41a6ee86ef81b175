"""The report of runs as one HTML page, from their results and their traces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from forwardscope.analysis.cost import cost_section, numbers_section, series_section
from forwardscope.analysis.formatting import plural, seconds
from forwardscope.analysis.measurements import measurements, verdict_list
from forwardscope.analysis.page import Charts, link, page, paragraph, section
from forwardscope.analysis.trace_sections import trace_sections
from forwardscope.probes import Verdict
from forwardscope.suite.result import SuiteResult
from forwardscope.text import shown
from forwardscope.trace import TraceEvent

__all__ = ["report", "report_of_runs"]

#: A result and its records, or None without a trace.
Run = tuple[SuiteResult, Iterable[TraceEvent] | None]


def report(result: SuiteResult, events: Iterable[TraceEvent] | None) -> str:
    """Return the page as HTML.

    Args:
        result: The run's result.
        events: The run's records in order, read once and not kept; None without a trace.
            Without records, the page lists the parts that need a trace.
    """
    charts = Charts()
    return page(f"{result.suite}: forwardscope", _sections(result, events, charts), charts)


def report_of_runs(runs: Sequence[Run]) -> str:
    """Return the page of several runs, one after the other, as HTML; see `report`."""
    if len(runs) == 1:
        return report(*runs[0])
    charts, results = Charts(), [result for result, _ in runs]
    body = [f"<h1>{plural(len(runs), 'run')}</h1><ol>", *map(_entry, range(len(runs)), results)]
    body.append("</ol>")
    for place, (result, events) in enumerate(runs):
        parts = "".join(_sections(result, events, charts))
        body.append(f'<article id="run-{place + 1}">{parts}</article>')
    return page(f"{plural(len(runs), 'run')}: forwardscope", body, charts)


def _entry(place: int, result: SuiteResult) -> str:
    link_text = escape(shown(f"{_title(result)}, {result.adapter}, {result.started_at}"))
    return f'<li><a href="#run-{place + 1}">{link_text}</a></li>'


def _title(result: SuiteResult) -> str:
    return f"{shown(result.suite)} {'passed' if result.passed else 'did not pass'}"


def _sections(
    result: SuiteResult, events: Iterable[TraceEvent] | None, charts: Charts
) -> list[str]:
    """Return the parts of one run, and add its charts to `charts`."""
    timeline, *others = trace_sections(events or (), charts)
    return [
        _head(result),
        section("Verdicts", verdict_list(result.probes)),
        measurements(result),
        numbers_section(result),
        cost_section(result),
        timeline,
        series_section(result),
        *others,
        section("Delivery", *_delivery(result)),
    ]


def _head(result: SuiteResult) -> str:
    about = f"{result.about}; {result.started_at}, {seconds(result.wall_s)}; run {result.run_id}"
    url = result.trace_url
    parts = [
        f"<h1>{escape(_title(result))}</h1>",
        paragraph(_probes(result)),
        paragraph(about, muted=True),
        "" if url is None else link(url, f"trace {result.trace_id}"),
        *(paragraph(f"Warning: {warning}") for warning in result.warnings),
    ]
    return "".join(parts)


def _probes(result: SuiteResult) -> str:
    """Return how many probes have which verdict, and the score of the suite."""
    found = [probe.verdict for probe in result.probes]
    counts = [f"{found.count(verdict)} {verdict.value}" for verdict in Verdict if verdict in found]
    score = [] if result.score is None else [f"score {result.score:.2f} of 1"]
    return "; ".join([f"{plural(len(found), 'probe')}: {', '.join(counts)}", *score])


def _delivery(result: SuiteResult) -> Iterable[str]:
    for delivery in result.delivery:
        yield paragraph(f"{delivery.to}: {delivery.what}")
    reconciliation = result.reconciliation
    sides = [plural(reconciliation.lookups, "lookup")]
    if reconciliation.trace_records is not None:
        sides.append(plural(reconciliation.trace_records, "trace record"))
    if reconciliation.spans is not None:
        sides.append(plural(sum(reconciliation.spans.values()), "span"))
    yield paragraph(
        f"{'Reconciled' if reconciliation.holds else 'NOT reconciled'}: {', '.join(sides)}."
    )
    yield paragraph(
        ", ".join(f"{name} {version}" for name, version in result.versions.items()), muted=True
    )
