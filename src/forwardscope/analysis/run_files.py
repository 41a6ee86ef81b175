"""A run as JUnit XML and as Markdown, for CI systems and pull requests."""

from __future__ import annotations

from typing import Final, Literal

from forwardscope.analysis.formatting import plural, seconds
from forwardscope.analysis.junit import Case, as_junit
from forwardscope.analysis.tables import Column, Table, as_markdown, markdown_text
from forwardscope.probes import Verdict
from forwardscope.suite.formats import format_interval, format_raw, format_z
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["result_junit", "result_markdown"]

_OUTCOMES: Final[dict[Verdict, Literal["pass", "failure", "error", "skipped"]]] = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "failure",
    Verdict.ERROR: "error",
    Verdict.SKIP: "skipped",
}


def result_junit(result: SuiteResult) -> str:
    """Return a test case for each probe; one that an interrupt left out is an error."""
    cases = [
        Case(probe.name, _OUTCOMES[probe.verdict], probe.message, probe.duration_s)
        for probe in result.probes
    ]
    cases += [Case(name, "error", "the run was interrupted") for name in result.not_run]
    if result.store is not None and result.store.mismatches:
        message = f"{plural(result.store.mismatches, 'stored value')} did not agree"
        cases.append(Case("store", "failure", message))
    return as_junit(f"forwardscope {result.suite}", cases)


def result_markdown(result: SuiteResult) -> str:
    """Return what was measured, on which model, and its cost."""
    columns = (
        Column("probe", "probe"),
        Column("verdict", "verdict"),
        Column("score", "score"),
        Column("value", "value"),
        Column("interval", "95 % interval"),
        Column("z", "z"),
        Column("message", "finding", length=MAX_SENTENCE),
    )
    table = Table("probes", columns, [_row(probe) for probe in result.probes])
    passed = "passed" if result.passed else "did not pass"
    score = "" if result.score is None else f", score {result.score:.3f}"
    paid, time = result.backend_stats["forward_passes"], sum(one.forward_s for one in result.series)
    lines = [
        f"## {markdown_text(shown(result.suite))}: {passed}{score}",
        markdown_text(shown(result.about, MAX_SENTENCE)),
        *(markdown_text(shown(warning, MAX_SENTENCE)) for warning in result.warnings),
        as_markdown(table).rstrip("\n"),
        f"{plural(int(paid), 'forward pass')} in {seconds(time)}; run {result.run_id}",
    ]
    return "\n\n".join(lines) + "\n"


def _row(probe: ProbeResult) -> tuple[str, ...]:
    interval = "" if probe.ci_95 is None else format_interval(probe.ci_95)
    number = "" if probe.n is None or not interval else f" (n={probe.n})"
    return (
        probe.name,
        str(probe.verdict),
        "" if probe.score is None else f"{probe.score:.3f}",
        "" if probe.raw is None else format_raw(probe.raw),
        interval + number,
        "" if probe.z_score is None else format_z(probe.z_score),
        probe.message,
    )
