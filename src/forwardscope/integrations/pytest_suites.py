"""Suites of a pytest session: each runs once, and its verdicts become outcomes of tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forwardscope.errors import UserError
from forwardscope.integrations.pytest_marker import Marker
from forwardscope.probes import Verdict
from forwardscope.suite.backend import load_backend
from forwardscope.suite.execution import FINITE_CHECK
from forwardscope.suite.formats import format_percent, format_z
from forwardscope.suite.result import ProbeResult, SuiteResult, Tally
from forwardscope.suite.runner import run_suite
from forwardscope.suite.spec import SuiteSpec
from forwardscope.text import MAX_SENTENCE, plural, shown

__all__ = ["SUITE", "Case", "NoResultError", "Suites", "finding", "summary"]

#: Id and kind of what is outside the probes.
SUITE: Final = "suite"
_DESTINATIONS: Final = ("otlp", "otlp_metrics", "metrics_port", "pushgateway", "metrics_file")


class NoResultError(UserError):
    """A probe without a result, because its suite did not run to its end."""


@dataclass(frozen=True, slots=True)
class Case:
    """A test of a suite.

    Attributes:
        marker: The suite.
        probe: Name of the probe; None for the suite itself.
    """

    marker: Marker
    probe: str | None


class Suites:
    """The suites of a session, and their results.

    Args:
        root: Root of the session.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._specs: dict[Marker, SuiteSpec] = {}
        self._results: dict[Marker, SuiteResult] = {}
        self._failures: dict[Marker, str] = {}
        self._unwritten: dict[Marker, str] = {}

    def cases(self, marker: Marker) -> list[Case]:
        """Load a suite, and return a case for each probe and one for the suite.

        Raises:
            UserError: The suite has mistakes, or does not have what the marker asks for.
        """
        spec = self._specs[marker.run] = marker.load(self._root)
        return [*(Case(marker, probe.name) for probe in spec.probes), Case(marker, None)]

    def outcome(self, case: Case) -> ProbeResult:
        """Return the result of a case; the first case of a suite loads its model and runs it.

        Raises:
            NoResultError: The suite failed for an earlier case, or a check before its probes.
            UserError: The model cannot be loaded.
        """
        result = self._result(case.marker)
        if case.probe is None:
            unwritten = self._unwritten.get(case.marker.run)
            return _of_suite(result, case.marker.min_score, unwritten)
        for probe in result.probes:
            if probe.name == case.probe:
                return probe
        messages = "; ".join(probe.message for probe in result.probes)
        raise NoResultError(f"not run: the check before the probes failed: {messages}")

    def summaries(self) -> Iterator[tuple[str, list[str]]]:
        """Yield name and summary of each suite that ran."""
        for run, result in self._results.items():
            name = f"{result.suite}, {result.adapter}"
            unwritten = self._unwritten.get(run)
            saved = None if unwritten else run.result
            lines = summary(result, self._specs[run], saved)
            yield shown(name), [*lines, *filter(None, [unwritten])]

    def _result(self, marker: Marker) -> SuiteResult:
        run = marker.run
        if (failure := self._failures.get(run)) is not None:
            raise NoResultError(failure)
        if run not in self._results:
            try:
                self._results[run] = _run(self._specs[run], run)
            except BaseException as error:  # also one of pytest, such as that of a timeout
                other = f"an earlier test of the suite ended with {type(error).__name__}"
                self._failures[run] = f"not run: {error if isinstance(error, UserError) else other}"
                raise
            self._write(run)
        return self._results[run]

    def _write(self, run: Marker) -> None:
        """Write the file of a result; its tests have their verdicts also where that fails."""
        if run.result is not None:
            try:
                self._results[run].write(run.result)
            except UserError as error:
                self._unwritten[run] = shown(str(error), MAX_SENTENCE)


def _run(spec: SuiteSpec, marker: Marker) -> SuiteResult:
    with load_backend(spec, trace_path=marker.trace) as backend:
        return run_suite(spec, backend)


def _of_suite(result: SuiteResult, min_score: float | None, unwritten: str | None) -> ProbeResult:
    """Return what is wrong outside the probes, in the form of a probe's result.

    A check before the probes that failed is returned itself.
    """
    for probe in result.probes:
        if probe.kind == FINITE_CHECK:
            return probe
    wrong = list(filter(None, [*_wrong(result, min_score), unwritten]))
    return ProbeResult(
        name=SUITE,
        kind=SUITE,
        verdict=Verdict.FAIL if wrong else Verdict.PASS,
        score=result.score,
        message="; ".join(wrong) or "nothing is wrong outside the probes",
        duration_s=result.wall_s,
        stats=_total(result),
    )


def _wrong(result: SuiteResult, min_score: float | None) -> Iterator[str]:
    if result.store is not None and result.store.mismatches:
        yield f"store {shown(result.store.name)}: {next(result.store.problems())}"
    if min_score is not None and result.score is None:
        yield f"no probe has a score, and min_score is {min_score:g}"
    elif min_score is not None and result.score is not None and result.score < min_score:
        yield f"score {result.score:.3f} of the suite, minimum {min_score:g}"


def _total(result: SuiteResult) -> Tally:
    total = {
        name: sum(getattr(counts, name) for counts in result.series) for name in Tally.model_fields
    }
    return Tally(**total | {"hit_rate": result.backend_stats["hit_rate"]})


def finding(probe: ProbeResult) -> str:
    """Return why a probe did not pass, and below that its values, as printable lines."""
    message = shown(probe.message, MAX_SENTENCE)
    if probe.error_type is not None and not message.startswith(probe.error_type):
        message = f"{shown(probe.error_type)}: {message}"
    return "\n".join(filter(None, (message, ", ".join(_values(probe)), probe.interval_note)))


def _values(probe: ProbeResult) -> Iterator[str]:
    if probe.raw is not None:
        yield f"raw {probe.raw:.4g}"
    if probe.score is not None:
        yield f"score {probe.score:.2f}"
    if probe.z_score is not None:
        yield f"z {format_z(probe.z_score)}"


def summary(result: SuiteResult, spec: SuiteSpec, saved: str | None) -> Iterator[str]:
    """Yield what a run measured and cost, as printable lines.

    Args:
        result: The run.
        spec: Its suite.
        saved: The file that has the result, if any.
    """
    stats, store = result.backend_stats, result.store
    passed = sum(probe.verdict is Verdict.PASS for probe in result.probes)
    score = "" if result.score is None else f", score {result.score:.2f}"
    yield f"{passed} of {plural(len(spec.probes), 'probe')} passed{score}, {result.wall_s:.1f} s"
    lookups = plural(int(stats["cache_hits"] + stats["cache_misses"]), "lookup")
    yield (
        f"{plural(int(stats['forward_passes']), 'forward pass')} paid; {stats['cache_hits']} of "
        f"{lookups} were hits ({format_percent(stats['hit_rate'])})"
    )
    if store is not None:
        used = f"answered {store.hits} of {plural(result.demand, 'forward pass')}, "
        problems = [f"{store.verified} verified", *store.problems()]
        yield f"store {shown(store.name)}: {used}{'; '.join(problems)}"
    for warning in result.warnings:
        yield f"warning: {shown(warning, MAX_SENTENCE)}"
    if any(getattr(spec.telemetry, name) is not None for name in _DESTINATIONS):
        yield "its telemetry section is not used here, but by forwardscope run"
    if result.trace_id is not None:
        yield " ".join(filter(None, ("trace", result.trace_id, result.trace_url)))
    if saved is not None:
        yield f"forwardscope report {shown(saved)} -o report.html shows each value"
