"""Run a suite on a backend and return its result."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from forwardscope.backends.base import Backend
from forwardscope.backends.views import BASE, FINETUNED
from forwardscope.probes.base import PromptProbe
from forwardscope.suite.execution import FINITE_CHECK, run_probes
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.plan import Plan, enough_entries, forward_calls, plan_run
from forwardscope.suite.result import ProbeResult, SuiteResult, Tally
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.run_facts import facts_of_run
from forwardscope.suite.spans import at_run_end, at_run_start, trace_id_of
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import names
from forwardscope.text import printable

__all__ = ["RunInterrupted", "run_suite"]


_FLUSH_S: Final = 0.5


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted after its first probe.

    Attributes:
        result: The result of the probes that ran.
    """

    def __init__(self, result: SuiteResult) -> None:
        super().__init__()
        self.result = result


def run_suite(
    spec: SuiteSpec, backend: Backend, *, observer: Observer | None = None
) -> SuiteResult:
    """Run the probes of a suite in order and count their lookups.

    Plans the forward passes (see `plan_suite`), checks that the base and
    fine-tuned views give finite logits, then runs the probes in order. If the
    check fails, no probe runs.

    Args:
        spec: The suite.
        backend: The backend to measure; it stays open. It may have been used
            before: only lookups of this run count.
        observer: Receives the events of the run.

    Returns:
        The verdicts and counts. A probe or check that raised an exception has
        the verdict ERROR.

    Raises:
        KeyboardInterrupt: The run was interrupted, or a stop was requested
            (`BackendInstrumentation.request_stop`). The trace has the lookups
            made so far. It is a `RunInterrupted` if a probe has run.
    """
    identity, plan = backend.identity(), plan_run(spec, backend)
    planned = None if plan is None else plan.total
    instrumentation = backend.instrumentation
    started_s, start = time.time(), time.perf_counter()
    run_id = uuid.uuid4().hex
    counters = RunCounters(instrumentation)
    finished = _FinishedProbes()
    observer = Observers(finished, observer or Observer())
    device = str(getattr(backend, "device", spec.model.device))
    probes: list[ProbeResult] | None = None
    instrumentation.set_run_id(run_id)
    instrumentation.name_model(spec.model.label, spec.model.adapter_label)
    try:
        attributes = at_run_start(spec, run_id)
        with instrumentation.spans.around(names.SUITE, spec.name, attributes) as span:
            trace_id = trace_id_of(span)
            run = RunStarted(
                *(spec, run_id, trace_id, started_s, counters),
                expected_forward_passes=planned.forward_passes if planned else None,
                expected_lookups=planned.lookups if planned else None,
                device=device,
            )
            observer.run_started(run)
            try:
                if getattr(backend, "base_first", False):
                    _compute_base(spec, backend)
                probes = run_probes(spec, backend, counters, observer)
            finally:
                at_run_end(span, probes, Tally.of(counters.total()), counters.elided)
    except BaseException as error:
        observer.run_finished(None)
        if isinstance(error, KeyboardInterrupt) and finished.results:
            partial = _result(run, backend, identity, start, finished.results, plan)
            raise RunInterrupted(partial) from error
        raise
    finally:
        instrumentation.set_run_id(None)
    result = _result(run, backend, identity, start, probes, plan)
    observer.run_finished(result)
    return result


class _FinishedProbes(Observer):
    """Keeps the results of probes, for a run that is interrupted."""

    def __init__(self) -> None:
        self.results: list[ProbeResult] = []

    def probe_finished(self, result: ProbeResult) -> None:
        self.results.append(result)


def _compute_base(spec: SuiteSpec, backend: Backend) -> None:
    """Compute all that the suite will look up in the base view, each for its own probe.

    What fails here fails again in its probe, which reports it.
    """
    instrumentation = backend.instrumentation
    with suppress(Exception), backend.as_base() as view:
        for call in forward_calls(spec, backend):
            if call.view_id != BASE:
                continue
            instrumentation.set_current_probe(call.probe)
            if call.op == "next_token_dist":
                view.next_token_dist_batch(call.prompts, top_k=call.top_k)
            elif call.op == "rolling_logprob":
                view.rolling_logprob_batch(call.prompts)
            else:
                view.logprob_of_batch(call.prompts)
    instrumentation.set_current_probe(None)


def _result(
    run: RunStarted,
    backend: Backend,
    identity: str,
    start_s: float,
    probes: list[ProbeResult],
    plan: Plan | None,
) -> SuiteResult:
    """Return the result of a run that began at `start_s` of `time.perf_counter`."""
    wall_s = time.perf_counter() - start_s
    spec, counters = run.spec, run.counters
    backend.instrumentation.spans.flush(_FLUSH_S)
    not_run, warnings = _not_run(spec, probes), list(getattr(backend, "warnings", ()))
    warnings += _clipped(spec, backend)
    if not_run:
        warnings.append(f"the run was interrupted; without a result: {', '.join(not_run)}")
    facts = facts_of_run(run, {} if plan is None else plan.series)
    facts["versions"] |= getattr(backend, "versions", {})
    planned = run.expected_forward_passes
    over_plan = planned is not None and counters.total().demand > planned
    searched = facts["cache"].evictions and over_plan
    return SuiteResult(
        **facts,
        identity=identity,
        base_identity=_view_identity(backend, BASE),
        tuned_identity=_view_identity(backend, FINETUNED),
        exactness=getattr(backend, "exactness", spec.exactness),
        dtype=getattr(backend, "dtype", spec.model.dtype),
        device=getattr(backend, "device", spec.model.device),
        wall_s=wall_s,
        probes=probes,
        not_run=not_run,
        warnings=[printable(one) for one in warnings],
        optimisations=_optimisations(backend),
        enough_entries=_enough_entries(spec, backend) if searched else None,
    )


def _enough_entries(spec: SuiteSpec, backend: Backend) -> int | None:
    """Return the size with which nothing is computed twice; None for a run without a plan."""
    with suppress(Exception):  # whatever a probe or a backend raises in a plan
        return enough_entries(spec, backend)
    return None


def _not_run(spec: SuiteSpec, probes: list[ProbeResult]) -> list[str]:
    """Return the probes without a result; none where the check before them failed."""
    ran = {probe.name for probe in probes}
    names_left = [probe.name for probe in spec.probes if probe.name not in ran]
    return [] if any(probe.kind == FINITE_CHECK for probe in probes) else names_left


def _clipped(spec: SuiteSpec, backend: Backend) -> list[str]:
    """Return a warning if a suite asks for more tokens than a distribution has."""
    limit: int | None = getattr(backend, "vocab_size", None)
    what = getattr(backend, "top_k_limit", None)
    given = [one.top_k for one in spec.probes if isinstance(one, PromptProbe)]
    if what is not None or "top_k" in spec.defaults.model_fields_set:
        given.append(spec.defaults.top_k)
    largest = max((one for one in given if one is not None), default=0)
    if limit is None or largest <= limit:
        return []
    what = what or "tokens of the vocabulary"
    return [f"top_k {largest} is more than the {limit} {what}: all are used"]


def _view_identity(backend: Backend, view_id: str) -> str | None:
    """Return a view's identity; None where it has none, or raises, which costs no result."""
    identify = getattr(backend, "view_identity", None)
    identity = None
    with suppress(Exception):
        identity = None if identify is None else identify(view_id)
    return identity if isinstance(identity, str) else None


def _optimisations(backend: Backend) -> dict[str, str]:
    states: Mapping[str, str] = getattr(backend, "optimisations", {})
    return {name: printable(state) for name, state in states.items()}
