"""One run of another tool on our instrumentation: its spans, its counts and its result.

The tool decides which lookups are made, and when. Its tasks or probes are ours by their names: each
has a span, counts of its own and, once the tool has said what it measured, a result.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes import Outcome, Verdict
from forwardscope.recorder import BatchProbes
from forwardscope.suite.observer import Observer, RunStarted
from forwardscope.suite.result import ProbeResult, SuiteResult, Tally
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.run_facts import facts_of_run
from forwardscope.suite.spans import (
    at_probe_start,
    at_run_end,
    at_run_start,
    outcome_attributes,
    probe_error,
    total_attributes,
    trace_id_of,
)
from forwardscope.suite.spec import CacheSpec, ModelSpec, SuiteSpec, TelemetrySpec
from forwardscope.telemetry import names
from forwardscope.telemetry.span_factory import mark_failed
from forwardscope.text import printable

__all__ = ["About", "Measured", "ToolRun", "spec_of_tool"]

_FLUSH_S: Final = 0.5


def spec_of_tool(name: str, model: str, adapter: str = "") -> SuiteSpec:
    """Return a suite without probes, for the run of a tool; options of a run override it.

    Args:
        name: Name of the suite in results, metrics and spans.
        model: Name of the model.
        adapter: Name of the adapter; empty without one.
    """
    return SuiteSpec.model_construct(
        version=1,
        name=printable(name),
        model=ModelSpec.model_construct(path=model, adapter=adapter or None),
        cache=CacheSpec(),
        telemetry=TelemetrySpec(),
        probes=(),
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a tool measured in one of its tasks or probes.

    Attributes:
        kind: Kind of the probe; of a tool without kinds, its name.
        outcome: Verdict and values.
        error_type: Class of the exception of an ERROR.
    """

    kind: str
    outcome: Outcome
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class About:
    """What a result says of the model, where the tool knows it; as in `SuiteResult`."""

    identity: str = ""
    base_identity: str | None = None
    tuned_identity: str | None = None
    exactness: str = "fast"
    dtype: str = ""
    device: str = ""
    warnings: Sequence[str] = ()


@dataclass(slots=True)
class _ProbeSpan:
    """The span of a probe's lookups, whose outcome is known later."""

    span: trace.Span
    end_ns: int | None = None


@dataclass(slots=True)
class _Probe:
    """A probe of the run so far."""

    spans: list[_ProbeSpan] = field(default_factory=list)
    seconds: float = 0.0


class ToolRun:
    """A context manager around one run of a tool, in one thread.

    Args:
        spec: Names of suite, model and adapter, and where telemetry goes.
        instrumentation: Where the tool's lookups are made.
        observer: Receives the events of the run.

    Attributes:
        result: The result of a run that has ended, by `finish` or by an error; None before.
    """

    def __init__(
        self,
        spec: SuiteSpec,
        instrumentation: BackendInstrumentation,
        observer: Observer | None = None,
    ) -> None:
        self._spec: Final = spec
        self._inst: Final = instrumentation
        self._observer: Final = observer or Observer()
        self._probes: dict[str, _Probe] = {}
        self._results: list[ProbeResult] | None = None
        self.result: SuiteResult | None = None

    def __enter__(self) -> Self:
        run_id, self._start_s = uuid.uuid4().hex, time.perf_counter()
        self._counters = RunCounters(self._inst)
        self._inst.set_run_id(run_id)
        self._inst.name_model(self._spec.model.label, self._spec.model.adapter_label)
        attributes = at_run_start(self._spec, run_id)
        self._around = self._inst.spans.around(names.SUITE, self._spec.name, attributes)
        self._span = self._around.__enter__()
        self._run = RunStarted(
            *(self._spec, run_id, trace_id_of(self._span), time.time(), self._counters)
        )
        self._observer.run_started(self._run)
        return self

    def __exit__(self, *raised: Any) -> None:
        for probe in self._probes.values():
            for one in probe.spans:  # of an aborted run
                self._inst.spans.end(one.span, names.PROBE, one.end_ns)
        self._probes.clear()
        tally = Tally.of(self._counters.total())
        at_run_end(self._span, self._results, tally, self._counters.elided)
        self._around.__exit__(*raised)
        self._inst.set_run_id(None)
        self._inst.spans.flush(_FLUSH_S)
        self._observer.run_finished(self.result)

    @property
    def spec(self) -> SuiteSpec:
        """Names of suite, model and adapter, and the settings of the run."""
        return self._spec

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Where the tool's lookups are made."""
        return self._inst

    @property
    def probes(self) -> list[str]:
        """Names of the probes that have begun, in order."""
        return list(self._probes)

    @contextmanager
    def probe(self, name: str) -> Iterator[None]:
        """Label the lookups that are made inside, with a span around them.

        A name is shown, recorded and exported as printable text.
        """
        name = printable(name)
        began = time.perf_counter()
        live = self._begin(name, None)
        span = trace.INVALID_SPAN if live is None else live.span
        self._inst.set_current_probe(name)
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        finally:
            self._inst.set_current_probe(None)
            if live is not None:
                live.end_ns = self._inst.spans.clock.perf_counter_ns()
            self._probes[name].seconds += time.perf_counter() - began

    def several(self, probes: Sequence[str]) -> BatchProbes:
        """Label the lookups of one batch, each with its own probe."""
        labels = list(map(printable, probes))
        for name in labels:
            self._probes.setdefault(name, _Probe())
        return BatchProbes(labels, self._parent)

    def _parent(self, name: str, start_ns: int, end_ns: int) -> Context:
        live = self._begin(name, start_ns)
        if live is None:
            return otel_context.get_current()
        live.end_ns = end_ns
        return trace.set_span_in_context(live.span)

    def _begin(self, name: str, start_ns: int | None) -> _ProbeSpan | None:
        probe = self._probes.setdefault(name, _Probe())
        attributes = at_probe_start(name, self._spec.name or "")
        span = self._inst.spans.begin(names.PROBE, name, attributes, start_ns)
        if span is None:
            return None
        probe.spans.append(_ProbeSpan(span))
        return probe.spans[-1]

    def finish(self, measured: Mapping[str, Measured], about: About) -> SuiteResult:
        """End the run's probes with what was measured; return the result.

        A probe that made lookups, and of which nothing was measured, is an ERROR.
        """
        unknown = Measured("", Outcome(Verdict.ERROR, "the tool reported no result"))
        found = {printable(name): one for name, one in measured.items()}
        order = dict.fromkeys([*self._probes, *found])
        self._results = [self._finished(name, found.get(name, unknown)) for name in order]
        self._inst.spans.flush(_FLUSH_S)
        self.result = SuiteResult(
            **facts_of_run(self._run, {}),
            identity=about.identity,
            base_identity=about.base_identity,
            tuned_identity=about.tuned_identity,
            exactness=about.exactness,
            dtype=about.dtype,
            device=about.device,
            wall_s=time.perf_counter() - self._start_s,
            probes=self._results,
            warnings=[printable(one) for one in about.warnings],
        )
        return self.result

    def _finished(self, name: str, measured: Measured) -> ProbeResult:
        probe = self._probes.pop(name, _Probe())
        outcome = replace(measured.outcome, message=printable(measured.outcome.message))
        tally = self._counters.tally(name)
        result = ProbeResult.of(
            *(name, measured.kind or self._spec.name or "", outcome),
            error_type=measured.error_type,
            duration_s=max(probe.seconds, tally.scoring_wall_s),
            stats=tally,
        )
        for one in probe.spans:
            if (error := probe_error(result)) is not None:
                mark_failed(one.span, error)
            attributes = outcome_attributes(result) | total_attributes(tally)
            one.span.set_attributes({**attributes, names.PROBE_KIND.name: result.kind})
            self._inst.spans.end(one.span, names.PROBE, one.end_ns)
        self._observer.probe_finished(result)
        return result
