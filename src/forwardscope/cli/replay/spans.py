"""Spans with recorded times: their names, attributes and statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from forwardscope.cli.replay.calls import Interval, RecordedCall
from forwardscope.cli.replay.ids import question_of
from forwardscope.core.series import Counts
from forwardscope.probes import Verdict
from forwardscope.suite.execution import FINITE_CHECK
from forwardscope.suite.result import ProbeResult, SuiteResult, Tally
from forwardscope.suite.spans import (
    at_probe_start,
    outcome_attributes,
    probe_error,
    run_error,
    run_status,
    total_attributes,
)
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import (
    ForwardNames,
    batch_attributes,
    forward_attributes,
    lookup_attributes,
    lookup_name,
    more_attributes,
    server_attributes,
)
from forwardscope.text import printable
from forwardscope.trace import TraceEvent

__all__ = ["Place", "SpanMaker"]


class Place(NamedTuple):
    """Where a span is: its context, that of its parent (None for a root), and its times."""

    context: SpanContext
    parent: SpanContext | None
    times: Interval


class SpanMaker:
    """Makes spans from records.

    Args:
        resource: Resource of the spans.
        version: Version of forwardscope, for the instrumentation scope.
        result: Result of one of the runs: its suite, model and verdicts.
    """

    def __init__(self, resource: Resource, version: str, result: SuiteResult | None) -> None:
        self._resource = resource
        self._scope = InstrumentationScope(names.TRACER, version, names.SCHEMA_URL)
        self._result = result
        self._forward_names = ForwardNames()

    def lookup(self, event: TraceEvent, place: Place, link: SpanContext | None) -> ReadableSpan:
        """Return the span of a lookup, with a link to a forward call."""
        result = "miss" if not event.hit else "hit" if event.result is None else "coalesced"
        attributes = lookup_attributes(question_of(event), result)
        bypassed = event.bypassed is True
        attributes |= more_attributes(event.tier, event.verified, bypassed=bypassed)
        return self._span(lookup_name(result, event.error), place, attributes, event.error, link)

    def forward(self, misses: list[TraceEvent], place: Place) -> ReadableSpan:
        """Return the span of a forward call."""
        first, result = misses[0], self._result_of(misses[0].run_id)
        model, adapter = (result.model, result.adapter) if result else (None, None)
        attributes = forward_attributes(question_of(first), first.batch or 1, model, adapter)
        if tokens := sum(one.tokens or 0 for one in misses):
            attributes[names.INPUT_TOKENS.name] = tokens
        if reused := sum(one.tokens_reused or 0 for one in misses):
            attributes[names.REUSED_TOKENS.name] = reused
        kind = SpanKind.INTERNAL
        if result is not None and result.server is not None:
            attributes |= server_attributes(result.server.address, result.server.port)
            kind = SpanKind.CLIENT
        name = self._forward_names.of_view(first.view_id)
        return self._span(name, place, attributes, first.error, kind=kind)

    def batch(self, call: RecordedCall, place: Place) -> ReadableSpan:
        """Return the span of a batch. It failed if its last forward call did."""
        records = list(call.records)
        first, misses = records[0], sum(not one.hit for one in records)
        attributes = {
            **batch_attributes(first.op, first.view_id, first.top_k),
            names.BATCH_HITS.name: len(records) - misses,
            names.BATCH_MISSES.name: misses,
        }
        error = next((one.error for one in records if one.error is not None), None)
        return self._span(names.BATCH.name, place, attributes, error)

    def probe(self, run_id: str | None, name: str, place: Place, counts: Counts) -> ReadableSpan:
        """Return the span of a probe, with its outcome if the result has it."""
        tally = Tally.of(counts)
        attributes = {names.CASE_NAME.name: printable(name), **total_attributes(tally)}
        probe = self._probe_result(run_id, name, place.times, tally)
        if probe is None:
            return self._span(names.PROBE.named(name), place, attributes)
        attributes |= at_probe_start(name, probe.kind) | outcome_attributes(probe)
        return self._span(names.PROBE.named(name), place, attributes, probe_error(probe))

    def run(self, run_id: str | None, place: Place, counts: Counts) -> ReadableSpan:
        """Return the span of a run, with its suite, model and status if it is the result's."""
        attributes = {} if run_id is None else {names.RUN_ID.name: printable(run_id)}
        attributes |= total_attributes(Tally.of(counts))
        result = self._result_of(run_id)
        if result is None:
            return self._span(names.SUITE.named(None), place, attributes)
        attributes |= {
            names.SUITE_NAME.name: printable(result.suite),
            names.SUITE_STATUS.name: run_status(result.probes),
            names.RUN_MODEL.name: printable(result.model),
            names.RUN_ADAPTER.name: printable(result.adapter),
        }
        error = run_error(result.probes)
        return self._span(names.SUITE.named(result.suite), place, attributes, error)

    def _result_of(self, run_id: str | None) -> SuiteResult | None:
        result = self._result
        return result if result is not None and result.run_id == run_id else None

    def _probe_result(
        self, run_id: str | None, name: str, times: Interval, tally: Tally
    ) -> ProbeResult | None:
        """Return the result of a probe; that of a check that passed is not in the run's."""
        result = self._result_of(run_id)
        if result is None:
            return None
        found = next((one for one in result.probes if one.name == name), None)
        if found is None and name == FINITE_CHECK:
            return ProbeResult(
                name=name,
                kind=name,
                verdict=Verdict.PASS,
                message="",
                duration_s=(times.end_ns - times.start_ns) / 1e9,
                stats=tally,
            )
        return found

    def _span(
        self,
        name: str,
        place: Place,
        attributes: Mapping[str, Any],
        error: str | None = None,
        link: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> ReadableSpan:
        if error is not None:
            attributes = {**attributes, names.ERROR_TYPE.name: printable(error)}
        return ReadableSpan(
            name,
            context=place.context,
            parent=place.parent,
            resource=self._resource,
            attributes=attributes,
            links=() if link is None else (Link(link),),
            kind=kind,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
            start_time=max(0, place.times.start_ns),  # OTLP has no time before the epoch
            end_time=max(0, place.times.end_ns),
        )
