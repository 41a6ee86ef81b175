"""The terminal report of a run."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from forwardscope import BackendInstrumentation
from forwardscope.probes import DeltaKL, NullAdapter, Probe, Verdict
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.suite.formats import format_z
from forwardscope.suite.plan import enough_entries
from forwardscope.suite.report import print_report
from forwardscope.suite.result import PromptTokens, Reconciliation, ServerUse
from forwardscope.testing import (
    MemoryStore,
    ScriptedBackend,
    ScriptedView,
    pseudo_random_logits,
)

MakeSpec = Callable[..., SuiteSpec]
RunOf = Callable[..., SuiteResult]


@pytest.fixture
def run_of(make_spec: MakeSpec) -> RunOf:
    """Return a function that runs probes, with settings of the instrumentation."""

    def run(*probes: Probe, **settings: object) -> SuiteResult:
        instrumentation = BackendInstrumentation(**settings)
        return run_suite(make_spec(*probes), ScriptedBackend(instrumentation=instrumentation))

    return run


def lines_of(result: SuiteResult) -> list[str]:
    """Return the lines of a report, 100 columns wide."""
    file = StringIO()
    print_report(result, Console(file=file, width=100))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def row_of(lines: list[str], first: str) -> list[str]:
    """Return the words of the first row of a table that starts with `first`."""
    _, _about, *tables = lines
    return next(row for line in tables if (row := line.split())[:1] == [first])


ONE = DeltaKL(name="one", prompts=["a", "b"])
TWO = DeltaKL(name="two", prompts=["a"])


def test_the_last_lines(run_of: RunOf) -> None:
    """The report ends with the hit rate and the reconciliation, here without trace or spans."""
    *_, cache, reconciled = lines_of(run_of(ONE, TWO))
    assert cache == "cache: 2 of 8 lookups answered without a forward pass (25 %)"
    assert reconciled == "reconciled: 8 lookups; no trace or spans"


def test_names_in_80_columns(run_of: RunOf) -> None:
    """A name of 12 characters is whole beside the widest numbers of a probe."""
    result = run_of(ONE.model_copy(update={"name": "long-context"}))
    widest = {"score": 0.5, "raw": 0.4275, "z_score": 4097.0, "ci_95": (0.3258, 0.5326)}
    probe = result.probes[0].model_copy(update=widest | {"duration_s": 18.4})
    file = StringIO()
    print_report(result.model_copy(update={"probes": [probe]}), Console(file=file, width=80))
    assert row_of(file.getvalue().splitlines(), "long-context")[1] == probe.verdict.value


def test_a_terminal_breaks_lines_between_words(run_of: RunOf) -> None:
    """A path is whole; a line with a path longer than the terminal is not broken."""
    path, long = f"/models/{'m' * 60}", f"/adapters/{'a' * 90}"
    warnings = ["word " * 30, f"the adapter {long} is new"]
    result = run_of(ONE).model_copy(update={"model": path, "warnings": warnings})
    file = StringIO()
    print_report(result, Console(file=file, width=80, force_terminal=True, color_system=None))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert [line for line in lines if len(line) > 80] == [f"warning: {warnings[1]}"]
    assert any(line.endswith(f"{path},") for line in lines)


def test_warnings_of_the_backend(make_spec: MakeSpec) -> None:
    """Warnings of a backend are in the result and, whole, in the report; others have none."""
    backend = ScriptedBackend()
    assert run_suite(make_spec(ONE), backend).warnings == []
    text = f"the adapter was trained on {'a' * 90}, but b was loaded as its base"
    backend.warnings = [text]  # type: ignore[attr-defined]
    result = run_suite(make_spec(ONE), backend)
    assert result.warnings == [text]
    assert SuiteResult.model_validate_json(result.model_dump_json()).warnings == [text]
    assert f"warning: {text}" in lines_of(result)


def test_optimisations_of_the_backend(make_spec: MakeSpec) -> None:
    """Their states are in the result and in one line of the report; other backends have none."""
    backend = ScriptedBackend()
    assert run_suite(make_spec(ONE), backend).optimisations == {}
    states = {"prefix sharing": "off (this model keeps a sliding window)", "padded batches": "on"}
    backend.optimisations = states  # type: ignore[attr-defined]
    result = run_suite(make_spec(ONE), backend)
    assert SuiteResult.model_validate_json(result.model_dump_json()).optimisations == states
    line = "prefix sharing: off (this model keeps a sliding window); padded batches: on"
    assert line in lines_of(result)


def test_reused_tokens(run_of: RunOf) -> None:
    """Reused tokens have a line; without reuse there is none."""
    result = run_of(ONE)
    assert not [line for line in lines_of(result) if "tokens" in line]
    shared = result.model_copy(update={"prompt_tokens": PromptTokens(computed=1, reused=3)})
    assert lines_of(shared)[-2] == (
        "prompt tokens: 1 computed, 3 reused from shared prefixes (75 %)"
    )


@pytest.mark.parametrize(("failed", "more"), [(0, ""), (2, ", failed 2")])
def test_requests_to_the_server(run_of: RunOf, failed: int, more: str) -> None:
    """A served model has a line with its requests, retries and throttled answers."""
    result = run_of(ONE)
    assert not [line for line in lines_of(result) if "server" in line]
    use = {"requests": 9, "retries": 4, "throttled": 3, "failed": failed}
    server = ServerUse(address="server", port=8000, **use)
    assert lines_of(result.model_copy(update={"server": server}))[-2] == (
        f"requests to the server: 9, retried 4, throttled 3{more}"
    )


def run_with(store: MemoryStore, suite: SuiteSpec, **settings: object) -> SuiteResult:
    """Run a suite on a backend whose values are in a store."""
    instrumentation = BackendInstrumentation(store=store, **settings)
    backend = ScriptedBackend(instrumentation=instrumentation, view_identity=lambda view: view)
    return run_suite(suite, backend)


def test_a_store_in_use(make_spec: MakeSpec) -> None:
    """The line compares with what was needed, and the views have their share of it."""
    store, suite = MemoryStore("s.db"), make_spec(ONE, TWO)
    cold, warm = (lines_of(run_with(store, suite, verify=1.0)) for _ in range(2))
    assert "store: 0 of 6 forward passes answered from disk (s.db), 0 verified" in cold
    assert "store: 6 of 6 forward passes answered from disk (s.db), 6 verified" in warm
    assert "cache: 8 of 8 lookups answered without a forward pass (100 %)" in warm
    assert row_of(cold, "base")[1:5] == ["4", "1", "0", "3"]
    assert row_of(warm, "base")[1:5] == ["4", "4", "3", "0"]


def test_a_store_and_a_cache_that_is_too_small(make_spec: MakeSpec) -> None:
    """What the store answered again counts as needed again; a warm run is not within its plan."""
    store, suite = MemoryStore(), make_spec(ONE, TWO)
    lines = [lines_of(run_with(store, suite, cache_maxsize=1)) for _ in range(2)]
    for report in lines:
        assert (
            "8 forward passes needed, 6 expected: 2 needed again after 7 evictions in two on base "
            "(1), two on ft (1); raise cache.max_entries to at least 4"
        ) in report


def test_every_probe_has_a_row(run_of: RunOf) -> None:
    """A row has name, verdict, score, raw, z, time, lookups and hit rate."""
    result = run_of(NullAdapter(name="null", runs=2), ONE, DeltaKL(name="solo", prompts=["a"]))
    lines = lines_of(result)
    _, one, solo = result.probes
    assert row_of(lines, "one") == [
        "one",
        "pass",
        f"{one.score:.2f}",
        f"{one.raw:.4g}",
        format_z(one.z_score),
        f"{one.duration_s:.1f}",
        "s",
        "4",
        "0",
        "%",
    ]
    assert solo.z_score is not None
    assert row_of(lines, "solo")[-3:] == ["2", "100", "%"]
    assert row_of(lines, "null")[1:5] == ["pass", "–", "–", "–"]


def test_every_probe_has_its_message(run_of: RunOf) -> None:
    """The messages are below the table."""
    result = run_of(ONE, TWO)
    lines = lines_of(result)
    for probe in result.probes:
        assert f"{probe.name}: {probe.message}" in " ".join(" ".join(lines).split())
    (low, high), message = result.probes[0].ci_95, " ".join(" ".join(lines).split())
    assert f"; 95 % interval {low:.4g} to {high:.4g} from 2 values; 8 would halve it" in message


def test_a_message_of_many_probes_is_said_once(run_of: RunOf) -> None:
    """A server that is lost has one line, not one for each later probe."""
    result = run_of(ONE)
    lost = {"verdict": Verdict.ERROR, "message": "the server is gone"}
    probes = [result.probes[0].model_copy(update={**lost, "name": f"p{n}"}) for n in range(9)]
    lines = lines_of(result.model_copy(update={"probes": probes}))
    [line] = [line for line in lines if "the server is gone" in line]
    assert line.startswith("  p0, p1, p2 and 6 more: the server is gone")
    assert (
        lines[-1] == "next: fix what is said above of p0, p1, p2, p3, p4 and 4 more, and run again"
    )


def test_every_view_has_a_row(run_of: RunOf) -> None:
    """Lookups, hits, passes, errors and hit rate of each view, over all probes."""
    lines = lines_of(run_of(ONE, TWO))
    assert row_of(lines, "base")[:7] == ["base", "4", "1", "3", "0", "25", "%"]
    assert row_of(lines, "ft")[:7] == ["ft", "4", "1", "3", "0", "25", "%"]


def test_a_probe_without_lookups_has_no_hit_rate(run_of: RunOf) -> None:
    """The hit rate of a skipped probe is a dash."""
    lines = lines_of(run_of(NullAdapter(name="null")))
    row = row_of(lines, "null")
    assert (row[1], row[-2:]) == ("skip", ["0", "–"])


def test_a_failed_probe(make_spec: MakeSpec) -> None:
    """A probe with an error has its verdict and message, and the view its number of errors."""

    def script(view: ScriptedView, prompt: str) -> object:
        if prompt == "b":
            raise RuntimeError("the model is gone")
        return pseudo_random_logits(view, prompt)

    lines = lines_of(run_suite(make_spec(ONE, TWO), ScriptedBackend(script)))
    assert row_of(lines, "one")[1] == "error"
    assert "  one: RuntimeError; add show_errors: true (--show-errors) for its message" in lines
    assert row_of(lines, "base")[:5] == ["base", "4", "0", "2", "2"]


def test_markup_in_names_is_text(run_of: RunOf) -> None:
    """Square brackets in names and messages are printed unchanged."""
    result = run_of(DeltaKL(name="[red]x[/]", prompts=["a"]))
    probe = result.probes[0].model_copy(update={"message": "[/nope] [bold]loud"})
    renamed = result.model_copy(update={"probes": [probe], "suite": "[b]s[/b]", "series": []})
    lines = lines_of(renamed)
    assert "  [red]x[/]: [/nope] [bold]loud" in lines
    assert row_of(lines, "[red]x[/]")[1] == "pass"
    assert any(line.startswith("[b]s[/b], ") for line in lines)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"cache_enabled": False}, "(0 %); the cache is off"),
        ({"cache_maxsize": 5}, "(25 %); evictions: 1 (max_entries 5)"),
    ],
)
def test_the_cache_line(run_of: RunOf, settings: dict[str, int], end: str) -> None:
    """The line states that the cache is off, or has the number of evictions and the bound."""
    cache = lines_of(run_of(ONE, TWO, **settings))[-2]
    assert cache.startswith("cache: ")
    assert cache.endswith(end)


def test_a_run_over_its_plan(run_of: RunOf, make_spec: MakeSpec) -> None:
    """One line has actual and expected passes, the probes and views, and the setting of `plan`."""
    three = [DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two", "three")]
    result = run_of(*three, cache_maxsize=3)
    passes, evicted = result.backend_stats["forward_passes"], result.cache.evictions
    line = f"{passes} forward passes, 6 expected: {passes - 6} repeated after"
    places = "two on base (1), two on ft (1), three on base (1), three on ft (1)"
    end = f"raise cache.max_entries to at least {enough_entries(make_spec(*three))}"
    assert lines_of(result)[-2] == f"{line} {evicted} evictions in {places}; {end}"


def test_the_trace_id(run_of: RunOf) -> None:
    """A run with spans has a line with the trace id; a run without has none."""
    result = run_of(ONE)
    assert not any(line.startswith("trace ") for line in lines_of(result))
    assert "trace 4bf9" in lines_of(result.model_copy(update={"trace_id": "4bf9"}))


@pytest.mark.parametrize(
    ("cache", "cause"),
    [
        ({"evictions": 0}, ""),
        (
            {"evictions": 66, "max_entries": 79},
            ": 60 repeated after 66 evictions; raise cache.max_entries to at least 80",
        ),
        (
            {"evictions": 66, "max_entries": 80, "max_bytes": 9},
            ": 60 repeated after 66 evictions; raise cache.max_bytes",
        ),
        (
            {"evictions": 66, "max_entries": 9, "max_bytes": 9},
            ": 60 repeated after 66 evictions; raise cache.max_entries to at least 80",
        ),
        (
            {"rejections": 3, "max_entries": 9, "max_bytes": 9},
            ": 60 repeated after 3 rejections; raise cache.max_bytes",
        ),
        (
            {"evictions": 1, "rejections": 3, "max_entries": 9, "max_bytes": 9},
            ": 60 repeated after 1 eviction and 3 rejections; "
            "raise cache.max_entries to at least 80 and cache.max_bytes",
        ),
        ({"evictions": 66, "max_entries": 80}, ": 60 repeated after 66 evictions"),
    ],
)
def test_the_setting_to_raise(run_of: RunOf, cache: dict[str, int], cause: str) -> None:
    """The setting follows from evictions, rejections and bounds; an unknown one is omitted."""
    result = run_of(ONE)
    more = {
        "backend_stats": {**result.backend_stats, "forward_passes": 140},
        "expected_forward_passes": 80,
        "cache": result.cache.model_copy(update=cache),
    }
    line = lines_of(result.model_copy(update=more))[-2]
    assert line == f"140 forward passes, 80 expected{cause}"


@pytest.mark.parametrize("expected", [6, 7, None])
def test_a_run_within_its_plan(run_of: RunOf, expected: int | None) -> None:
    """A run that is within its plan or was not planned has no such line."""
    result = run_of(ONE, TWO)
    assert (result.backend_stats["forward_passes"], result.expected_forward_passes) == (6, 6)
    lines = lines_of(result.model_copy(update={"expected_forward_passes": expected}))
    assert not any(" expected" in line for line in lines)


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
            "NOT reconciled: 114 lookups; 113 trace records",
        ),
    ],
)
def test_the_last_line_reconciles(run_of: RunOf, found: Reconciliation, line: str) -> None:
    """The last line compares lookups with trace records."""
    assert lines_of(run_of(ONE).model_copy(update={"reconciliation": found}))[-1] == line


def test_verdicts_are_words(run_of: RunOf) -> None:
    """The table has each verdict as a word, also without colours."""
    result = run_of(ONE)
    for verdict in Verdict:
        probe = result.probes[0].model_copy(update={"verdict": verdict})
        lines = lines_of(result.model_copy(update={"probes": [probe]}))
        assert row_of(lines, "one")[1] == verdict.value


@pytest.mark.parametrize(("z", "text"), [(-0.5, "-0.5"), (12.345, "+12.3"), (4097.0, "+4097")])
def test_format_z(z: float, text: str) -> None:
    """There are three significant digits, and no exponent, which would widen the table."""
    assert format_z(z) == text


def test_the_title_has_the_score_of_the_suite(run_of: RunOf) -> None:
    """It is the weighted mean of the scores."""
    result = run_of(ONE, TWO)
    assert result.score is not None
    assert any(line.endswith(f" s, score {result.score:.2f}") for line in lines_of(result))


def test_lookups_outside_the_probes_have_a_row(run_of: RunOf) -> None:
    """With it the lookups of the table are those of the run."""
    lines = lines_of(run_of(ONE, TWO))
    assert row_of(lines, "(outside)")[-3:] == ["2", "0", "%"]
    assert sum(int(row_of(lines, name)[-3]) for name in ("one", "two", "(outside)")) == 8


@pytest.mark.parametrize(("runs", "folded"), [(10, False), (11, True)])
def test_many_views_are_folded_into_families(run_of: RunOf, runs: int, folded: bool) -> None:
    """Twelve views have a row each; of more, those of one family share one."""
    lines = lines_of(run_of(NullAdapter(name="null", runs=runs, sentinel_prompts=["s"]), ONE))
    rows = [line for line in lines if line.startswith("null")][1:]
    assert len(rows) == (1 if folded else runs)
    if folded:
        assert row_of(lines, "null")[0] == "null"
        assert any(line.split()[:4] == ["null", "(11", "views)", "11"] for line in lines)


def test_what_to_do_next(run_of: RunOf) -> None:
    """Where a probe failed, the last line names it and the command that shows its values."""
    passed = run_of(ONE)
    assert not [line for line in lines_of(passed) if line.startswith("next: ")]
    probe = passed.probes[0].model_copy(update={"verdict": Verdict.FAIL})
    failed = passed.model_copy(update={"probes": [probe]})
    last = lines_of(failed)[-1]
    assert last.startswith("next: run again with --json result.json, then forwardscope report ")
    assert "the values behind one" in last
    file = StringIO()
    print_report(failed, Console(file=file), saved=Path("my result.json"))
    assert "next: forwardscope report 'my result.json' -o report.html" in file.getvalue()


def test_sentences_in_a_pipe_are_whole_lines(run_of: RunOf) -> None:
    """A message is one line where no terminal needs it wrapped."""
    result = run_of(ONE)
    probe = result.probes[0].model_copy(update={"message": "word " * 60})
    lines = lines_of(result.model_copy(update={"probes": [probe]}))
    assert any(line.count("word") == 60 for line in lines)
