"""Attributes and status of the spans of a suite and its probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import trace

from forwardscope.probes import Verdict
from forwardscope.suite.result import ProbeResult, Tally
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import CallIds, mark_failed
from forwardscope.text import printable

__all__ = [
    "at_probe_end",
    "at_probe_start",
    "at_run_end",
    "at_run_start",
    "outcome_attributes",
    "probe_error",
    "run_error",
    "run_status",
    "total_attributes",
    "trace_id_of",
]

_CASE_STATUS = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.ERROR: "fail"}
_FAILED = "probe_failed"


def at_run_start(spec: SuiteSpec, run_id: str) -> dict[str, Any]:
    """Return the attributes that are known when a run starts."""
    return {
        names.SUITE_NAME.name: printable(spec.name or "suite"),
        names.RUN_ID.name: run_id,
        names.RUN_MODEL.name: spec.model.label,
        names.RUN_ADAPTER.name: spec.model.adapter_label,
    }


def at_run_end(
    span: trace.Span, probes: Sequence[ProbeResult] | None, tally: Tally, elided: int
) -> None:
    """Set attributes and status of a run at its end; `probes` is None if it was aborted."""
    span.set_attribute(names.SUITE_STATUS.name, "aborted" if probes is None else run_status(probes))
    if (error := run_error(probes or ())) is not None:
        mark_failed(span, error)
    span.set_attributes({**total_attributes(tally), names.ELIDED.name: elided})


def at_probe_start(name: str, kind: str) -> dict[str, Any]:
    """Return the attributes that are known before a probe runs."""
    return {names.CASE_NAME.name: printable(name), names.PROBE_KIND.name: kind}


def at_probe_end(span: trace.Span, probe: ProbeResult, elided: int) -> None:
    """Set attributes and status of a probe at its end; of an error, only the class is recorded."""
    if (error := probe_error(probe)) is not None:
        mark_failed(span, error)
    span.set_attributes(outcome_attributes(probe))
    span.set_attributes({**total_attributes(probe.stats), names.ELIDED.name: elided})


def run_status(probes: Sequence[ProbeResult]) -> str:
    """Return the value of `test.suite.run.status` for a run that was not aborted."""
    return "success" if run_error(probes) is None else "failure"


def run_error(probes: Sequence[ProbeResult]) -> str | None:
    """Return the `error.type` of a run, which is that of its first failed probe."""
    return next(filter(None, map(probe_error, probes)), None)


def probe_error(probe: ProbeResult) -> str | None:
    """Return the `error.type` of a probe; None if it did not fail."""
    if probe.verdict is Verdict.ERROR and probe.error_type is not None:
        return probe.error_type
    return _FAILED if probe.verdict in (Verdict.FAIL, Verdict.ERROR) else None


def outcome_attributes(probe: ProbeResult) -> dict[str, Any]:
    """Return the attributes of a probe that are known at its end, without its totals."""
    found = {
        names.VERDICT.name: probe.verdict.value,
        names.CASE_STATUS.name: _CASE_STATUS.get(probe.verdict),
        names.SCORE.name: probe.score,
        names.RAW.name: probe.raw,
        names.Z_SCORE.name: probe.z_score,
    }
    return {name: value for name, value in found.items() if value is not None}


def total_attributes(tally: Tally) -> dict[str, Any]:
    """Return the counts of a probe or a run."""
    return {
        names.TOTAL_LOOKUPS.name: tally.lookups,
        names.TOTAL_HITS.name: tally.cache_hits,
        names.TOTAL_PASSES.name: tally.forward_passes,
        names.TOTAL_ERRORS.name: tally.forward_errors,
        names.TOTAL_FORWARD_S.name: tally.forward_s,
    }


def trace_id_of(span: trace.Span) -> str | None:
    """Return the id of a span's trace as 32 hex digits; None if the span is not sampled."""
    ids = CallIds.of(span)
    return None if ids is None else ids.trace_id
