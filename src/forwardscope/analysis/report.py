"""The report of a run as one HTML page, from its result and its trace."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from forwardscope.analysis.cost import cost_section, numbers_section, series_section
from forwardscope.analysis.formatting import plural, seconds
from forwardscope.analysis.measurements import measurements, verdict_list
from forwardscope.analysis.page import link, page, paragraph, section
from forwardscope.analysis.trace_sections import trace_sections
from forwardscope.probes import Verdict
from forwardscope.suite.result import SuiteResult
from forwardscope.text import shown
from forwardscope.trace import TraceEvent

__all__ = ["report"]


def report(result: SuiteResult, events: Iterable[TraceEvent] | None) -> str:
    """Return the page as HTML.

    Args:
        result: The run's result.
        events: The run's records in order, read once and not kept; None without a trace.
            Without records, the page lists the parts that need a trace.
    """
    charts: dict[str, Any] = {}
    timeline, *others = trace_sections(events or (), charts)
    body = [
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
    return page(f"{result.suite}: forwardscope", body, charts)


def _head(result: SuiteResult) -> str:
    verdict = "passed" if result.passed else "did not pass"
    about = f"{result.about}; {result.started_at}, {seconds(result.wall_s)}; run {result.run_id}"
    url = result.trace_url
    parts = [
        f"<h1>{escape(shown(result.suite))} {verdict}</h1>",
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
