"""Running a suite's probes on a backend."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Final

from forwardscope.backends.base import Backend
from forwardscope.core.keys import printable
from forwardscope.errors import ForwardscopeError
from forwardscope.probes import Outcome, Probe, ProbeContext, Verdict
from forwardscope.suite.accounts import Accounts
from forwardscope.suite.observer import Observer, Observers, RunStarted
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.spans import (
    at_probe_end,
    at_probe_start,
    at_run_end,
    at_run_start,
    trace_id_of,
)
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import names

__all__ = ["FINITE_CHECK", "run_suite"]

#: The name that a failed check of the views has among the probes of a result.
FINITE_CHECK: Final = "finite_check"
_CHECK_PROMPT = "hello"
_CHECK_TOP_K = 8
_LONGEST_MESSAGE = 300
_FLUSH_S = 0.5
_COMPUTING = ("forwardscope", "numpy", "torch", "transformers", "peft")


def run_suite(
    spec: SuiteSpec, backend: Backend, *, observer: Observer | None = None
) -> SuiteResult:
    """Run all probes of a suite, in order, and count what they asked.

    Both views are checked for finite logits first; if that fails, the suite
    stops there with an ERROR in the result. A probe that raises is an ERROR
    too, and the suite goes on. An interrupt is raised on; the trace then has
    what was answered so far.

    Args:
        spec: What to run.
        backend: What to ask; left open. One that was used before is counted
            from now on.
        observer: Told of each probe.
    """
    identity = backend.identity()
    instrumentation = backend.instrumentation
    started_s, start = time.time(), time.perf_counter()
    run_id = uuid.uuid4().hex
    accounts = Accounts(instrumentation)
    telling = Observers() if observer is None else observer
    probes: list[ProbeResult] | None = None
    instrumentation.set_run_id(run_id)
    instrumentation.spans.model = instrumentation.spans.model or printable(spec.model.path)
    try:
        with instrumentation.spans.around(names.SUITE_RUN, at_run_start(spec, run_id)) as span:
            trace_id = trace_id_of(span)
            telling.run_started(RunStarted(spec, run_id, trace_id, started_s, accounts))
            try:
                probes = _run_probes(spec, backend, accounts, telling)
            finally:
                at_run_end(span, probes, accounts.total(), accounts.elided)
    except BaseException:
        telling.run_finished(None)
        raise
    finally:
        instrumentation.set_run_id(None)
    wall_s = time.perf_counter() - start
    instrumentation.spans.flush(_FLUSH_S)
    result = SuiteResult(
        run_id=run_id,
        trace_id=trace_id,
        suite=spec.name or "suite",
        model=printable(spec.model.path),
        adapter=printable(spec.model.adapter),
        identity=identity,
        exactness=spec.exactness,
        dtype=spec.model.dtype,
        device=spec.model.device,
        versions=_versions(),
        seed=spec.defaults.seed,
        period_s=spec.period_s,
        started_at=datetime.fromtimestamp(started_s, UTC).isoformat(timespec="seconds"),
        wall_s=wall_s,
        probes=probes,
        backend_stats=accounts.backend_stats().to_dict(),
        series=accounts.series_results(),
        cache=accounts.cache_use(),
        reconciliation=accounts.reconciliation(),
    )
    telling.run_finished(result)
    return result


def _run_probes(
    spec: SuiteSpec, backend: Backend, accounts: Accounts, observer: Observer
) -> list[ProbeResult]:
    broken = _finite_check(backend, accounts)
    if broken is not None:
        return [broken]
    results: list[ProbeResult] = []
    baseline = None
    for index, probe in enumerate(spec.probes):
        observer.probe_started(index, probe)
        context = ProbeContext(
            backend=backend,
            seed=spec.defaults.seed,
            top_k=spec.defaults.top_k,
            baseline=baseline,
            later=spec.probes[index + 1 :],
        )
        outcome, result = _run_probe(probe, context, accounts)
        baseline = outcome.baseline or baseline
        results.append(result)
        observer.probe_finished(result)
    return results


def _finite_check(backend: Backend, accounts: Accounts) -> ProbeResult | None:
    """Ask both views one question; return an ERROR where that fails."""
    start = time.perf_counter()
    try:
        for view in (backend.as_base(), backend.as_finetuned()):
            with view as opened:
                opened.next_token_dist(_CHECK_PROMPT, top_k=_CHECK_TOP_K)
    except Exception as error:  # noqa: BLE001 - a backend may raise anything; the result tells it
        return ProbeResult(
            name=FINITE_CHECK,
            kind=FINITE_CHECK,
            verdict=Verdict.ERROR,
            message=_told(error),
            duration_s=time.perf_counter() - start,
            stats=accounts.tally(None),
        )
    return None


def _run_probe(
    probe: Probe, context: ProbeContext, accounts: Accounts
) -> tuple[Outcome, ProbeResult]:
    instrumentation = context.backend.instrumentation
    start, elided = time.perf_counter(), accounts.elided
    error: str | None = None
    with instrumentation.spans.around(names.PROBE_RUN, at_probe_start(probe)) as span:
        instrumentation.set_current_probe(probe.name)
        try:
            outcome = probe.run(context)
        except Exception as raised:  # noqa: BLE001 - the suite goes on whatever a probe raises
            outcome, error = Outcome(Verdict.ERROR, _told(raised)), type(raised).__name__
        finally:
            instrumentation.set_current_probe(None)
        tally = accounts.tally(probe.name)
        at_probe_end(span, outcome.verdict, error, tally, accounts.elided - elided)
    return outcome, ProbeResult(
        name=probe.name,
        kind=probe.kind,
        verdict=outcome.verdict,
        score=outcome.score,
        raw=outcome.raw,
        z_score=outcome.z_score,
        ci_95=outcome.ci_95,
        message=outcome.message,
        evidence=dict(outcome.evidence),
        duration_s=time.perf_counter() - start,
        stats=tally,
    )


def _told(error: Exception) -> str:
    """Return our own errors as they are, and of others the class and the first line."""
    if isinstance(error, ForwardscopeError):
        return printable(str(error))
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {printable(first_line)[:_LONGEST_MESSAGE]}"


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in _COMPUTING:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
