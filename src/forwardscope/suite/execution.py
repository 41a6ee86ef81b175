"""Run the probes of a suite on a backend; used for runs and for plans."""

from __future__ import annotations

import time
from typing import Final

from forwardscope.backends.base import Backend
from forwardscope.errors import ForwardscopeError, UnsupportedViewError
from forwardscope.probes import Outcome, Probe, ProbeContext, Verdict
from forwardscope.suite.observer import Observer
from forwardscope.suite.result import ProbeResult
from forwardscope.suite.run_counters import RunCounters
from forwardscope.suite.spans import at_probe_end, at_probe_start
from forwardscope.suite.spec import SuiteSpec
from forwardscope.telemetry import names
from forwardscope.text import printable

__all__ = ["FINITE_CHECK", "format_error", "run_probes"]

#: Name of the check for finite logits, which is among the probes of a result if it fails.
FINITE_CHECK: Final = "finite_check"
_CHECK_PROMPT = "hello"
_CHECK_TOP_K = 8
_MAX_MESSAGE = 300


def run_probes(
    spec: SuiteSpec, backend: Backend, counters: RunCounters, observer: Observer
) -> list[ProbeResult]:
    """Check both views for finite logits, then run the probes in order.

    Args:
        spec: The suite.
        backend: The backend to measure.
        counters: Counters of that backend.
        observer: Receives the start and the result of each probe.

    Returns:
        The result of each probe. If the backend cannot open a view, the verdict
        is SKIP; after any other exception it is ERROR. If the check fails, the
        only result is its ERROR.

    Raises:
        KeyboardInterrupt: A stop was requested before the last probe began, or
            before a forward call; see `BackendInstrumentation.request_stop`.
    """
    failed_check = _finite_check(backend, counters, show_errors=spec.show_errors)
    if failed_check is not None:
        return [failed_check]
    results: list[ProbeResult] = []
    baseline = None
    for index, probe in enumerate(spec.probes):
        if backend.instrumentation.stopping:
            raise KeyboardInterrupt
        observer.probe_started(index, probe)
        context = ProbeContext(
            backend=backend,
            seed=spec.defaults.seed,
            top_k=spec.defaults.top_k,
            baseline=baseline,
            later=spec.probes[index + 1 :],
        )
        outcome, result = _run_probe(probe, context, counters, show_errors=spec.show_errors)
        baseline = outcome.baseline or baseline
        results.append(result)
        observer.probe_finished(result)
    return results


def _finite_check(
    backend: Backend, counters: RunCounters, *, show_errors: bool
) -> ProbeResult | None:
    """Score one prompt in both views; return an ERROR if that fails."""
    start = time.perf_counter()
    try:
        for view in (backend.as_base(), backend.as_finetuned()):
            with view as opened:
                opened.next_token_dist(_CHECK_PROMPT, top_k=_CHECK_TOP_K)
    except Exception as error:  # noqa: BLE001 - a backend may raise anything; it becomes the result
        return ProbeResult(
            name=FINITE_CHECK,
            kind=FINITE_CHECK,
            verdict=Verdict.ERROR,
            message=format_error(error, show=show_errors),
            duration_s=time.perf_counter() - start,
            stats=counters.tally(None),
        )
    return None


def _run_probe(
    probe: Probe, context: ProbeContext, counters: RunCounters, *, show_errors: bool
) -> tuple[Outcome, ProbeResult]:
    instrumentation = context.backend.instrumentation
    start, elided = time.perf_counter(), counters.elided
    error: str | None = None
    with instrumentation.spans.around(names.PROBE_RUN, at_probe_start(probe)) as span:
        instrumentation.set_current_probe(probe.name)
        try:
            outcome = probe.run(context)
        except UnsupportedViewError as unsupported:
            outcome = Outcome(Verdict.SKIP, format_error(unsupported))
        except Exception as failure:  # noqa: BLE001 - the other probes still run
            message = format_error(failure, show=show_errors)
            outcome, error = Outcome(Verdict.ERROR, message), type(failure).__name__
        finally:
            instrumentation.set_current_probe(None)
        tally = counters.tally(probe.name)
        at_probe_end(span, outcome.verdict, error, tally, counters.elided - elided)
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


def format_error(error: Exception, *, show: bool = False) -> str:
    """Return the message of a `ForwardscopeError`, which never has the text of a prompt.

    Of other exceptions, whose message may have it, the class, and with `show` the first line.
    """
    if isinstance(error, ForwardscopeError):
        return printable(str(error))
    name = printable(type(error).__name__)
    if not show:
        return f"{name}; run with --show-errors for its message"
    first_line = next(iter(str(error).splitlines()), "")
    return f"{name}: {printable(first_line)[:_MAX_MESSAGE]}"
