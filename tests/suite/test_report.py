"""What a person reads after a run."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from forwardscope import BackendInstrumentation
from forwardscope.probes import DeltaKL, NullAdapter, Probe, Verdict
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.report import print_report
from forwardscope.suite.result import PromptTokens, Reconciliation
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

MakeSpec = Callable[..., SuiteSpec]
RunOf = Callable[..., SuiteResult]


@pytest.fixture
def run_of(make_spec: MakeSpec) -> RunOf:
    """Run some probes on an instrumentation with these settings."""

    def run(*probes: Probe, **settings: object) -> SuiteResult:
        instrumentation = BackendInstrumentation(**settings)
        return run_suite(make_spec(*probes), ScriptedBackend(instrumentation=instrumentation))

    return run


def lines_of(result: SuiteResult) -> list[str]:
    """Render a report on a page of 100 columns and return its lines."""
    file = StringIO()
    print_report(result, Console(file=file, width=100))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row_of(lines: list[str], first: str) -> list[str]:
    """Return the cells of the first row that begins with a word."""
    return next(line.split() for line in lines if line.split()[:1] == [first])


ONE = DeltaKL(name="one", prompts=["a", "b"])
TWO = DeltaKL(name="two", prompts=["a"])


def test_the_last_lines_sum_it_up(run_of: RunOf) -> None:
    """They say what the cache answered, and that no trace or span was asked for."""
    *_, cache, reconciled = lines_of(run_of(ONE, TWO))
    assert cache == "cache: 2 of 8 lookups answered without a forward pass (25 %)"
    assert reconciled == "reconciled: 8 lookups; no trace or span was asked for"


def test_what_was_taken_over_is_told(run_of: RunOf) -> None:
    """Tokens of shared prefixes have a line, and none where nothing was shared."""
    result = run_of(ONE)
    assert not [line for line in lines_of(result) if "tokens" in line]
    shared = result.model_copy(update={"prompt_tokens": PromptTokens(computed=1, reused=3)})
    assert lines_of(shared)[-2] == ("prompt tokens: 1 computed, 3 reused of shared prefixes (75 %)")


def test_every_probe_has_a_row(run_of: RunOf) -> None:
    """Verdict, score, raw, z, interval, lookups and hit rate stand beside the name."""
    result = run_of(NullAdapter(name="null", runs=2), ONE, DeltaKL(name="solo", prompts=["a"]))
    lines = lines_of(result)
    _, one, solo = result.probes
    assert one.ci_95 is not None
    assert row_of(lines, "one") == [
        "one",
        "pass",
        f"{one.score:.2f}",
        f"{one.raw:.4g}",
        f"{one.z_score:+.3g}",
        f"{one.ci_95[0]:.3g}…{one.ci_95[1]:.3g}",
        f"{one.duration_s:.1f}",
        "s",
        "4",
        "0",
        "%",
    ]
    assert solo.ci_95 is None
    assert row_of(lines, "solo")[5] == "–"
    assert row_of(lines, "solo")[-3:] == ["2", "100", "%"]
    assert row_of(lines, "null")[1:6] == ["pass", "–", "–", "–", "–"]


def test_every_probe_has_its_message(run_of: RunOf) -> None:
    """What a probe says stands below the table."""
    result = run_of(ONE, TWO)
    lines = lines_of(result)
    for probe in result.probes:
        assert f"  {probe.name}: {probe.message}" in lines


def test_every_view_has_a_row(run_of: RunOf) -> None:
    """Lookups, hits, passes, errors and hit rate of each view, over all probes."""
    lines = lines_of(run_of(ONE, TWO))
    assert row_of(lines, "base")[:7] == ["base", "4", "1", "3", "0", "25", "%"]
    assert row_of(lines, "ft")[:7] == ["ft", "4", "1", "3", "0", "25", "%"]


def test_a_probe_without_lookups_has_no_hit_rate(run_of: RunOf) -> None:
    """A skipped probe asked nothing, and its share of hits is a dash."""
    lines = lines_of(run_of(NullAdapter(name="null")))
    row = row_of(lines, "null")
    assert (row[1], row[-2:]) == ("skip", ["0", "–"])


def test_an_error_is_shown(make_spec: MakeSpec) -> None:
    """A probe that raised has its word in the table, and its view a count of errors."""

    def script(view: ScriptedView, prompt: str) -> object:
        if prompt == "b":
            raise RuntimeError("the model is gone")
        return pseudo_random_logits(view, prompt)

    lines = lines_of(run_suite(make_spec(ONE, TWO), ScriptedBackend(script)))
    assert row_of(lines, "one")[1] == "error"
    assert "  one: RuntimeError: the model is gone" in lines
    assert row_of(lines, "base")[:5] == ["base", "4", "0", "2", "2"]


def test_markup_in_names_is_text(run_of: RunOf) -> None:
    """Square brackets in a name or a message are printed as they are, and break nothing."""
    result = run_of(DeltaKL(name="[red]x[/]", prompts=["a"]))
    probe = result.probes[0].model_copy(update={"message": "[/nope] [bold]loud"})
    told = result.model_copy(update={"probes": [probe], "suite": "[b]s[/b]", "series": []})
    lines = lines_of(told)
    assert "  [red]x[/]: [/nope] [bold]loud" in lines
    assert row_of(lines, "[red]x[/]")[1] == "pass"
    assert any(line.startswith("[b]s[/b], ") for line in lines)


def test_a_cache_that_is_off_is_told_of(run_of: RunOf) -> None:
    """Nobody wonders why there was no hit."""
    cache = lines_of(run_of(ONE, TWO, cache_enabled=False))[-2]
    assert cache == (
        "cache: 0 of 8 lookups answered without a forward pass (0 %); the cache is off"
    )


def test_evictions_are_told_of(run_of: RunOf) -> None:
    """A cache that was too small says how much it dropped, and what its bound is."""
    cache = lines_of(run_of(ONE, TWO, cache_maxsize=5))[-2]
    assert cache.endswith("(25 %); evictions: 1 (max_entries 5)")


def test_a_run_that_paid_more_is_told_of(run_of: RunOf) -> None:
    """One line has what was paid, what was expected, by whom, and the bound that was too small."""
    three = [DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two", "three")]
    result = run_of(*three, cache_maxsize=3)
    paid, evicted = result.backend_stats["forward_passes"], result.cache.evictions
    line = f"paid {paid} forward passes, 6 expected: {paid - 6} again for what was evicted"
    again = "two on base (1), two on ft (1), three on base (1), three on ft (1)"
    end = "raise cache.max_entries to at least 6"
    assert lines_of(result)[-2] == f"{line} ({evicted}), by {again}; {end}"


def test_the_trace_can_be_found_by_its_id(run_of: RunOf) -> None:
    """A run with spans tells their trace's id; one without has no such line."""
    result = run_of(ONE)
    assert not any(line.startswith("trace ") for line in lines_of(result))
    assert "trace 4bf9" in lines_of(result.model_copy(update={"trace_id": "4bf9"}))


@pytest.mark.parametrize(
    ("cache", "why"),
    [
        ({"evictions": 0}, ""),
        (
            {"evictions": 66, "max_entries": 79},
            ": 60 again for what was evicted (66); raise cache.max_entries to at least 80",
        ),
        (
            {"evictions": 66, "max_entries": 80, "max_bytes": 9},
            ": 60 again for what was evicted (66); raise cache.max_bytes",
        ),
        (
            {"evictions": 66, "max_entries": 9, "max_bytes": 9},
            ": 60 again for what was evicted (66); raise cache.max_entries to at least 80",
        ),
        (
            {"rejections": 3, "max_entries": 9, "max_bytes": 9},
            ": 60 again for what was rejected (3); raise cache.max_bytes",
        ),
        (
            {"evictions": 6, "rejections": 3, "max_entries": 9, "max_bytes": 9},
            ": 60 again for what was evicted (6) or rejected (3); "
            "raise cache.max_entries to at least 80 and cache.max_bytes",
        ),
        ({"evictions": 66, "max_entries": 80}, ": 60 again for what was evicted (66)"),
    ],
)
def test_what_is_known_of_why_is_told(run_of: RunOf, cache: dict[str, int], why: str) -> None:
    """Evictions, rejections and bounds say which bound to raise, and no more than they know."""
    result = run_of(ONE)
    more = {
        "backend_stats": {**result.backend_stats, "forward_passes": 140},
        "expected_forward_passes": 80,
        "cache": result.cache.model_copy(update=cache),
    }
    line = lines_of(result.model_copy(update=more))[-2]
    assert line == f"paid 140 forward passes, 80 expected{why}"


@pytest.mark.parametrize("expected", [6, 7, None])
def test_a_run_that_paid_no_more_is_not_told_of(run_of: RunOf, expected: int | None) -> None:
    """Nothing is said of a run that paid what was expected or less, or that was not planned."""
    result = run_of(ONE, TWO)
    assert (result.backend_stats["forward_passes"], result.expected_forward_passes) == (6, 6)
    lines = lines_of(result.model_copy(update={"expected_forward_passes": expected}))
    assert not any(line.startswith("paid ") for line in lines)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            Reconciliation(lookups=114, trace_records=114, trace_write_errors=0, holds=True),
            "reconciled: 114 lookups = 114 trace records",
        ),
        (
            Reconciliation(lookups=114, trace_records=100, trace_write_errors=14, holds=True),
            "reconciled: 114 lookups = 100 trace records + 14 not written",
        ),
        (
            Reconciliation(lookups=114, trace_records=113, trace_write_errors=0, holds=False),
            "NOT reconciled: 114 lookups ≠ 113 trace records",
        ),
    ],
)
def test_the_last_line_reconciles(run_of: RunOf, found: Reconciliation, line: str) -> None:
    """Lookups and trace records are put side by side, equal or not."""
    assert lines_of(run_of(ONE).model_copy(update={"reconciliation": found}))[-1] == line


def test_share_of_hits_is_rounded(run_of: RunOf) -> None:
    """39 of 114 are 34 %."""
    result = run_of(ONE)
    stats = {**result.backend_stats, "cache_hits": 39, "cache_misses": 75, "hit_rate": 39 / 114}
    cache = lines_of(result.model_copy(update={"backend_stats": stats}))[-2]
    assert cache == "cache: 39 of 114 lookups answered without a forward pass (34 %)"


def test_verdicts_are_not_told_by_colour_alone(run_of: RunOf) -> None:
    """The words stand in the table where there is no colour at all."""
    result = run_of(ONE)
    for verdict in Verdict:
        probe = result.probes[0].model_copy(update={"verdict": verdict})
        lines = lines_of(result.model_copy(update={"probes": [probe]}))
        assert row_of(lines, "one")[1] == verdict.value
