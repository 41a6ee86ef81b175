"""Running a suite's probes on a backend."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Final, Protocol

from forwardscope.backends.base import Backend
from forwardscope.errors import ForwardscopeError
from forwardscope.probes import Outcome, Probe, ProbeContext, Verdict
from forwardscope.suite.accounts import Accounts
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.suite.spec import SuiteSpec

__all__ = ["FINITE_CHECK", "Observer", "run_suite"]

#: The name that a failed check of the views has among the probes of a result.
FINITE_CHECK: Final = "finite_check"
_CHECK_PROMPT = "hello"
_CHECK_TOP_K = 8
_LONGEST_MESSAGE = 300
_COMPUTING = ("forwardscope", "numpy", "torch", "transformers", "peft")


class Observer(Protocol):
    """Told how a run goes on, in the thread that runs it."""

    def probe_started(self, index: int, probe: Probe) -> None:
        """Take note that the probe at this place of the suite begins."""
        ...

    def probe_finished(self, result: ProbeResult) -> None:
        """Take note of what it found."""
        ...


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
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    run_id = uuid.uuid4().hex
    accounts = Accounts(backend.instrumentation)
    backend.instrumentation.set_run_id(run_id)
    try:
        probes = _run_probes(spec, backend, accounts, observer)
    finally:
        backend.instrumentation.set_current_probe(None)
        backend.instrumentation.set_run_id(None)
    return SuiteResult(
        run_id=run_id,
        suite=spec.name or "suite",
        model=_printable(spec.model.path),
        adapter=_printable(spec.model.adapter),
        identity=identity,
        exactness=spec.exactness,
        dtype=spec.model.dtype,
        device=spec.model.device,
        versions=_versions(),
        seed=spec.defaults.seed,
        period_s=spec.period_s,
        started_at=started_at,
        wall_s=time.perf_counter() - start,
        probes=probes,
        backend_stats=accounts.backend_stats().to_dict(),
        series=accounts.series_results(),
        cache=accounts.cache_use(),
        reconciliation=accounts.reconciliation(),
    )


def _run_probes(
    spec: SuiteSpec, backend: Backend, accounts: Accounts, observer: Observer | None
) -> list[ProbeResult]:
    broken = _finite_check(backend, accounts)
    if broken is not None:
        return [broken]
    results: list[ProbeResult] = []
    baseline = None
    for index, probe in enumerate(spec.probes):
        if observer is not None:
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
        if observer is not None:
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
    instrumentation.set_current_probe(probe.name)
    start = time.perf_counter()
    try:
        outcome = probe.run(context)
    except Exception as error:  # noqa: BLE001 - the suite goes on whatever a probe raises
        outcome = Outcome(Verdict.ERROR, _told(error))
    finally:
        instrumentation.set_current_probe(None)
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
        stats=accounts.tally(probe.name),
    )


def _told(error: Exception) -> str:
    """Return our own errors as they are, and of others the class and the first line."""
    if isinstance(error, ForwardscopeError):
        return _printable(str(error))
    first_line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {_printable(first_line)[:_LONGEST_MESSAGE]}"


def _printable(text: str) -> str:
    """Escape lone surrogates (bytes of a file name that are not UTF-8), which JSON cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in _COMPUTING:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
