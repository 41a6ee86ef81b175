"""Attributes of the spans `suite.run` and `probe.run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import trace

from forwardscope.probes import Probe, Verdict
from forwardscope.suite.result import ProbeResult, Tally
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import mark_failed

__all__ = ["at_probe_end", "at_probe_start", "at_run_end", "at_run_start", "trace_id_of"]

_CASE_STATUS = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.ERROR: "fail"}


def at_run_start(spec: SuiteSpec, run_id: str) -> dict[str, Any]:
    """Return the attributes that are known when a run starts."""
    return {
        names.SUITE_NAME.name: spec.name or "suite",
        names.RUN_ID.name: run_id,
        names.MODEL.name: spec.model.label,
    }


def at_run_end(
    span: trace.Span, results: Sequence[ProbeResult] | None, tally: Tally, elided: int
) -> None:
    """Set the attributes of a run at its end; `results` is None if it was aborted."""
    if results is None:
        status = "aborted"
    elif any(result.verdict in (Verdict.FAIL, Verdict.ERROR) for result in results):
        status = "failure"
    else:
        status = "success"
    span.set_attribute(names.SUITE_STATUS.name, status)
    _set_totals(span, tally, elided)


def at_probe_start(probe: Probe) -> dict[str, Any]:
    """Return the attributes that are known before a probe runs."""
    return {names.CASE_NAME.name: probe.name, names.PROBE_KIND.name: probe.kind}


def at_probe_end(
    span: trace.Span, verdict: Verdict, error: str | None, tally: Tally, elided: int
) -> None:
    """Set the attributes of a probe at its end; of an error, only the class is recorded."""
    span.set_attribute(names.VERDICT.name, verdict.value)
    if verdict in _CASE_STATUS:
        span.set_attribute(names.CASE_STATUS.name, _CASE_STATUS[verdict])
    if error is not None:
        mark_failed(span, error)
    _set_totals(span, tally, elided)


def trace_id_of(span: trace.Span) -> str | None:
    """Return the id of a span's trace as 32 hex digits; None if the span is not recording."""
    if not span.is_recording():
        return None
    return trace.format_trace_id(span.get_span_context().trace_id)


def _set_totals(span: trace.Span, tally: Tally, elided: int) -> None:
    span.set_attributes(
        {
            names.TOTAL_LOOKUPS.name: tally.lookups,
            names.TOTAL_HITS.name: tally.cache_hits,
            names.TOTAL_PASSES.name: tally.forward_passes,
            names.TOTAL_ERRORS.name: tally.forward_errors,
            names.TOTAL_FORWARD_S.name: tally.forward_s,
            names.ELIDED.name: elided,
        }
    )
