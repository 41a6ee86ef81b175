"""The command `forwardscope gate`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from forwardscope.analysis.checks import Check
from forwardscope.analysis.formatting import plural
from forwardscope.analysis.gate import Limits, compare, comparison_table
from forwardscope.analysis.junit import Case, as_junit
from forwardscope.analysis.run_data import RunData, is_result, run_data_of_result, run_data_of_trace
from forwardscope.analysis.score_gate import ScoreLimits, differences
from forwardscope.analysis.tables import (
    Column,
    Table,
    as_dicts,
    as_markdown,
    as_rich,
    markdown_text,
)
from forwardscope.cli.reading import Traces, require_plain_file
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.files import write_file
from forwardscope.suite.report import print_line
from forwardscope.suite.result import SuiteResult
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["gate"]


def gate(
    reference: Annotated[
        Path,
        typer.Argument(
            help="Result or trace of the reference run.", metavar="REFERENCE", show_default=False
        ),
    ],
    current: Annotated[
        Path,
        typer.Argument(
            help="Result or trace of the run to check.", metavar="CURRENT", show_default=False
        ),
    ],
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Share of a probe's value, z-score and score by which it may be worse, for "
            "example change=0.1, or 0.1 for all probes. By default a value may be within the "
            "reference run's 95 % interval, z may fall by half, and a score by 0.1.",
            metavar="[PROBE=]SHARE",
            show_default=False,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Smallest score of the suite, the mean of the probes' scores by their weights.",
            min=0,
            max=1,
            show_default=False,
        ),
    ] = None,
    max_more_passes: Annotated[
        int,
        typer.Option(help="Additional forward passes to allow per probe and view.", min=0),
    ] = 0,
    max_hit_rate_drop: Annotated[
        float,
        typer.Option(
            help="Drop of the hit rate to allow; 0.01 is one percentage point.", min=0, max=1
        ),
    ] = 0.0,
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            help="Allowed ratio of the mean durations of a forward pass, for example 1.5. By "
            "default times are printed and not checked.",
            min=0,
            show_default=False,
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(help="Write the checks to this file as JUnit XML.", metavar="FILE.xml"),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["terminal", "json", "markdown"],
        typer.Option("--format", help="Output format; markdown suits a pull request comment."),
    ] = "terminal",
) -> None:
    """Compare a run with a reference run of the same suite.

    Each argument is a result (`forwardscope run --json`) or a trace (`--trace`).
    A check fails when what a probe measured got worse beyond a limit, when its
    verdict got worse, when a probe needed more forward passes on a view, or when
    the hit rate fell. A trace has no measurements. Needed passes are those that a
    run paid, and those that a store spared it. From two traces, additional passes
    for new distinct lookups (view, op, prompt and top_k) are counted.

    Exit status: 0 when nothing is worse, 1 when something is, 2 when the files
    cannot be compared.
    """
    before, now = _run_data(reference), _run_data(current)
    _check_for_results("--max-drop", max_drop, before, now)
    _check_for_results("--min-score", min_score, now)
    scores = _score_limits(max_drop or [], min_score, now)
    limits = Limits(max_more_passes, max_hit_rate_drop, max_slowdown, scores)
    checks = compare(before, now, limits)
    if junit is not None:
        cases = [Case(one.name, "pass" if one.ok else "failure", one.finding) for one in checks]
        write_file("JUnit file", junit, as_junit("forwardscope gate", cases), [reference, current])
    table = comparison_table(before, now)
    failed = [check for check in checks if not check.ok]
    if format == "json":
        urls = {"reference_trace": before.trace_url, "current_trace": now.trace_url}
        facts = {"differences": _differences(before, now), "score": _suite_score(now)}
        Terminal().write(json.dumps(_facts(checks, table) | facts | urls, indent=2))
    elif format == "markdown":
        Terminal().write(_markdown(failed, len(checks), table, _notes(before, now, markdown_text)))
    else:
        _print(failed, len(checks), table, _notes(before, now))
    raise typer.Exit(1 if failed else 0)


def _run_data(path: Path) -> RunData:
    require_plain_file(path)
    if is_result(path):
        return run_data_of_result(path)
    return run_data_of_trace(path, Traces([path]))


def _facts(checks: list[Check], table: Table) -> dict[str, Any]:
    found = [{"name": check.name, "ok": check.ok, "says": check.finding} for check in checks]
    return {"ok": all(check.ok for check in checks), "checks": found, "compared": as_dicts(table)}


def _summary(failed: list[Check], checks: int) -> str:
    if not failed:
        return f"nothing is worse: {plural(checks, 'check')}"
    return f"worse than the reference run: {len(failed)} of {plural(checks, 'check')}"


def _notes(before: RunData, now: RunData, form: Callable[[str], str] = str) -> list[str]:
    """Return what is compared, how models and adapters differ, and the addresses of traces.

    Args:
        before: The reference run.
        now: The run to check.
        form: Escapes a sentence; the addresses of traces are as they are.
    """
    runs = {"reference": before, "current": now}
    about = [f"{name} run: {_about(run.result)}" for name, run in runs.items() if run.result]
    differ = [f"the runs differ in {one}" for one in _differences(before, now)]
    texts = [form(shown(line, MAX_SENTENCE)) for line in (*about, *differ)]
    traces = [
        f"trace of the {name} run: {run.trace_url}" for name, run in runs.items() if run.trace_url
    ]
    return [*texts, *(shown(line, MAX_SENTENCE) for line in traces)]


def _differences(before: RunData, now: RunData) -> list[str]:
    if before.result is None or now.result is None:
        return []
    return differences(before.result, now.result)


def _about(result: SuiteResult) -> str:
    states = [f"{name} {state}" for name, state in result.optimisations.items()]
    store = [] if result.store is None else [f"store {result.store.name}"]
    return "; ".join([result.about, *states, *store])


def _suite_score(run: RunData) -> float | None:
    return None if run.result is None else run.result.score


def _check_for_results(option: str, given: object, *runs: RunData) -> None:
    """Raise a UserError if an option is given that needs results, and a run has none."""
    for run in runs:
        if given is not None and run.result is None:
            raise UserError(
                f"{option}: {run.source} is a trace, which has no measurements; give the result "
                "of this run (run --json)"
            )


def _score_limits(given: list[str], min_score: float | None, now: RunData) -> ScoreLimits:
    """Return the limits of the options.

    Raises:
        UserError: A share is no number from 0 on, or the run has no such probe.
    """
    general, of_probe = None, {}
    for option in given:
        name, _, text = option.rpartition("=")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share < math.inf:
            raise UserError(f"--max-drop {option}: give a share such as 0.1, or PROBE=0.1")
        if not name:
            general = share
        elif name in (now.verdicts or {}):
            of_probe[name] = share
        else:
            raise UserError(f"--max-drop {option}: {now.source} has no probe {name!r}")
    return ScoreLimits(general, of_probe, min_score)


def _print(failed: list[Check], checks: int, table: Table, notes: list[str]) -> None:
    terminal = Terminal()
    for check in failed:
        terminal.print_message("worse", "bold red", check.finding)
    terminal.print(as_rich(table))
    for line in notes:
        print_line(terminal, Text(line))
    style = "bold red" if failed else "bold green"
    terminal.print(Text(_summary(failed, checks), style=style))


def _markdown(failed: list[Check], checks: int, table: Table, notes: list[str]) -> str:
    finding = Column("finding", "finding", length=MAX_SENTENCE)
    rows = [(check.finding,) for check in failed]
    worse = as_markdown(Table("Worse", (finding,), rows)) + "\n" if rows else ""
    lines = "".join(f"{line}\n\n" for line in notes)
    return f"## forwardscope gate: {_summary(failed, checks)}\n\n{lines}{worse}{as_markdown(table)}"
