"""Run the probes of a suite on a backend; used for runs and for plans."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from forwardscope.backends.base import Backend
from forwardscope.errors import ForwardscopeError, UnsupportedError
from forwardscope.instrumentation import BackendInstrumentation
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
    check = _finite_check(backend, counters, show_errors=spec.show_errors)
    if check.verdict is not Verdict.PASS:
        return [check]
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
            chat=spec.chat,
            show_prompts=spec.report.prompts == "show",
        )
        outcome, result = _run_probe(probe, context, counters, show_errors=spec.show_errors)
        baseline = outcome.baseline or baseline
        results.append(result)
        observer.probe_finished(result)
    return results


def _finite_check(backend: Backend, counters: RunCounters, *, show_errors: bool) -> ProbeResult:
    """Score one prompt in both views; the verdict is ERROR if that fails."""

    def check() -> Outcome:
        for view in (backend.as_base(), backend.as_finetuned()):
            with view as opened:
                opened.next_token_dist(_CHECK_PROMPT, top_k=_CHECK_TOP_K)
        return Outcome(Verdict.PASS, "all logits are finite")

    instrumentation = backend.instrumentation
    return _measure(
        FINITE_CHECK, FINITE_CHECK, check, instrumentation, counters, show_errors=show_errors
    )[1]


def _run_probe(
    probe: Probe, context: ProbeContext, counters: RunCounters, *, show_errors: bool
) -> tuple[Outcome, ProbeResult]:
    def run() -> Outcome:
        try:
            return probe.run(context)
        except UnsupportedError as unsupported:
            return Outcome(Verdict.SKIP, format_error(unsupported))

    instrumentation = context.backend.instrumentation
    return _measure(
        *(probe.name, probe.kind, run, instrumentation, counters),
        show_errors=show_errors,
        weight=probe.weight,
    )


def _measure(
    name: str,
    kind: str,
    measure: Callable[[], Outcome],
    instrumentation: BackendInstrumentation,
    counters: RunCounters,
    *,
    show_errors: bool,
    weight: float = 1.0,
) -> tuple[Outcome, ProbeResult]:
    """Run one measurement in its span; the check's lookups are outside any probe."""
    label = None if kind == FINITE_CHECK else name
    start, elided = time.perf_counter(), counters.elided
    error_type: str | None = None
    with instrumentation.spans.around(names.PROBE, name, at_probe_start(name, kind)) as span:
        instrumentation.set_current_probe(label)
        try:
            outcome = measure()
        except Exception as failure:  # noqa: BLE001 - the other probes still run
            outcome = Outcome(Verdict.ERROR, format_error(failure, show=show_errors))
            error_type = type(failure).__name__
        finally:
            instrumentation.set_current_probe(None)
        result = ProbeResult.of(
            *(name, kind, outcome),
            error_type=error_type,
            duration_s=time.perf_counter() - start,
            weight=weight,
            stats=counters.tally(label),
        )
        at_probe_end(span, result, counters.elided - elided)
    return outcome, result


def format_error(error: Exception, *, show: bool = False) -> str:
    """Return the message of a `ForwardscopeError`, which never has the text of a prompt.

    Of other exceptions, whose message may have it, the class, and with `show` the first line.
    """
    if isinstance(error, ForwardscopeError):
        return printable(str(error))
    name = printable(type(error).__name__)
    if not show:
        return f"{name}; add show_errors: true (--show-errors) for its message"
    first_line = next(iter(str(error).splitlines()), "")
    return f"{name}: {printable(first_line)[:_MAX_MESSAGE]}"
