"""Comparison of a run with a reference run, from results and from traces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from forwardscope.analysis.gate import Limits, compare, comparison_table
from forwardscope.analysis.run_data import RunData, run_data_of_result, run_data_of_trace
from forwardscope.analysis.tables import as_dicts
from forwardscope.core.series import Counts, SeriesKey
from forwardscope.errors import UserError
from forwardscope.probes import DeltaKL, Verdict
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import ScriptedBackend

from .conftest import MakeEvent

_KEY = SeriesKey("p", "base", "op")


def recorded(series: dict[SeriesKey, Counts] | None = None, **more: object) -> RunData:
    """Return a run of the suite `s` with 3 forward passes of 1 s and 2 hits."""
    usual = {_KEY: Counts(hits=1, coalesced=1, forward_passes=3, forward_ns=3_000_000_000)}
    one = RunData(Path("r.json"), "s", series or usual, {"p": Verdict.PASS}, None)
    return replace(one, **more)  # type: ignore[arg-type]


def worse(reference: RunData, current: RunData, **limits: float) -> list[str]:
    """Return the findings of all failed checks."""
    checks = compare(reference, current, Limits(**limits))  # type: ignore[arg-type]
    return [check.finding for check in checks if not check.ok]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_run_is_not_worse_than_itself(hits: int, passes: int, errors: int) -> None:
    """No check fails for two equal runs."""
    counts = Counts(hits=hits, forward_passes=passes, forward_ns=passes * 7)
    counts.errors["ValueError"] = errors
    run = recorded({_KEY: counts})
    assert worse(run, run, slowdown=1.0) == []


def test_a_store_moves_no_check() -> None:
    """A run is not worse than one whose passes a store spared, and no better."""
    cold = recorded()
    warm = recorded({_KEY: Counts(hits=4, coalesced=1, disk_hits=3)})
    assert worse(warm, cold) == []
    assert worse(cold, warm) == []
    evicting = recorded({_KEY: Counts(hits=4, disk_hits=4, forward_passes=1)})
    assert "the hit rate without the store is 0.0 %, 40.0 % before" in worse(cold, evicting)


def test_a_store_in_the_table() -> None:
    """Needed and paid passes are apart where a store spared some, and one pair otherwise."""
    cold, warm = recorded(), recorded({_KEY: Counts(hits=4, coalesced=1, disk_hits=3)})
    table = comparison_table(cold, warm)
    assert [column.title for column in table.formatted()[0]] == [
        *("probe", "view", "lookups", "needed", "now", "paid", "now", "time", "now")
    ]
    assert table.formatted()[1][0][2:7] == ["5", "3", "3", "3", "0"]
    (plain, _) = as_dicts(comparison_table(cold, cold))
    assert [column.title for column in comparison_table(cold, cold).formatted()[0]] == [
        *("probe", "view", "lookups", "passes", "now", "time", "now")
    ]
    fewer = comparison_table(cold, recorded({_KEY: Counts(hits=1)}))
    assert [column.title for column in fewer.formatted()[0]][2:4] == ["lookups", "now"]
    assert plain["needed_passes"] == plain["forward_passes"] == 3
    assert as_dicts(table)[0]["needed_passes"] == 3
    assert as_dicts(table)[0]["forward_passes"] == 0


def test_findings_about_runs_with_a_store() -> None:
    """They say that passes were needed, not that they were paid."""
    warm = recorded({_KEY: Counts(hits=6, disk_hits=4)})
    assert worse(recorded(), warm, hit_rate_drop=1.0) == [
        "p on base: 4 needed forward passes, 3 before; 1 more lookup"
    ]
    evicting = recorded({_KEY: Counts(hits=5, disk_hits=4)})
    assert worse(recorded(), evicting, hit_rate_drop=1.0) == [
        "p on base: 4 needed forward passes, 3 before; no additional lookups; values that were no "
        "longer in the cache were needed again"
    ]


def test_more_passes() -> None:
    """The findings are by probe and view, with the cause."""
    more = Counts(hits=1, forward_passes=4, forward_ns=4)
    findings = worse(recorded(), recorded({_KEY: more, SeriesKey(None, "ft", "op"): more}))
    assert findings == [
        "p on base: 4 forward passes, 3 before; no additional lookups; values that were no longer "
        "in the cache were computed again",
        "(outside) on ft: 4 forward passes, 0 before; 5 lookups, none before",
        "the hit rate is 20.0 %, 40.0 % before",
    ]


def test_failed_passes_count() -> None:
    """A failed forward pass counts like a successful one."""
    failing = Counts(hits=2, forward_passes=3, forward_ns=3)
    failing.errors["ValueError"] = 1
    findings = worse(recorded(), recorded({_KEY: failing}), hit_rate_drop=1.0)
    assert findings == ["p on base: 4 forward passes, 3 before; 1 more lookup"]


def test_ops_of_a_view_are_added() -> None:
    """Fewer passes of one op compensate more of another."""
    other = SeriesKey("p", "base", "other")
    before = recorded({_KEY: Counts(forward_passes=3), other: Counts(forward_passes=1)})
    now = recorded({_KEY: Counts(forward_passes=1), other: Counts(forward_passes=3)})
    assert worse(before, now) == []


def test_limits() -> None:
    """A value at its limit passes; one beyond it fails."""
    now = recorded({_KEY: Counts(hits=1, forward_passes=4, forward_ns=6_000_000_000)})
    loose = {"more_passes": 1, "hit_rate_drop": 0.2, "slowdown": 1.5}
    assert worse(recorded(), now, **loose) == []
    assert len(worse(recorded(), now, **loose | {"more_passes": 0})) == 1
    assert len(worse(recorded(), now, **loose | {"hit_rate_drop": 0.19})) == 1
    assert worse(recorded(), now, **loose | {"slowdown": 1.49}) == [
        "a forward pass took 1.50 s, 1.00 s before"
    ]


def test_hit_rates_are_compared_exactly() -> None:
    """Equal shares of different counts pass, and the smallest drop fails."""
    third = Counts(hits=1, forward_passes=2)
    same = Counts(hits=333_333, forward_passes=666_666)
    less = Counts(hits=333_333, forward_passes=666_667)
    free = {"more_passes": 10**6}
    assert worse(recorded({_KEY: third}), recorded({_KEY: same}), **free) == []
    assert len(worse(recorded({_KEY: third}), recorded({_KEY: less}), **free)) == 1


@pytest.mark.parametrize(
    ("before", "now", "worsened"),
    [
        ("pass", "pass", False),
        ("pass", "skip", True),
        ("pass", "fail", True),
        ("fail", "error", True),
        ("skip", "fail", True),
        ("error", "fail", False),
        ("fail", "pass", False),
    ],
)
def test_verdicts(before: str, now: str, worsened: bool) -> None:
    """A worse verdict fails; a better one passes."""
    runs = [recorded(verdicts={"p": Verdict(one)}) for one in (before, now)]
    assert worse(*runs) == [f"the verdict of p is {now}, {before} before"] * worsened


def test_a_probe_that_did_not_run() -> None:
    """A missing probe fails; a new one passes."""
    both = {"p": Verdict.PASS, "q": Verdict.FAIL}
    assert worse(recorded(verdicts=both), recorded()) == ["q did not run; its verdict was fail"]
    assert worse(recorded(), recorded(verdicts=both)) == []


def test_time_is_compared_only_with_a_limit() -> None:
    """Nor is it compared if a run has no forward passes."""
    slow = recorded({_KEY: Counts(hits=2, forward_passes=3, forward_ns=10**12)})
    assert worse(recorded(), slow) == []
    free = recorded({_KEY: Counts(hits=5)})
    assert worse(recorded(), free, slowdown=1.0) == []
    assert len(worse(recorded(), slow, slowdown=2.0)) == 1


def test_new_lookups_in_traces(event: MakeEvent) -> None:
    """From traces, new distinct lookups are distinguished from repeated forward passes."""
    before = [event("a"), event("b"), event("a", hit=True)]
    new = [event("a"), event("b"), event("c"), event("d"), event("c", hit=True)]
    repeated = [event("a"), event("b"), event("a")]
    one, two, three = (run_data_of_trace(Path("t"), events) for events in (before, new, repeated))
    assert worse(one, two, hit_rate_drop=1)[0].endswith(
        "4 forward passes, 2 before; 2 new distinct lookups"
    )
    assert worse(one, three, hit_rate_drop=1)[0].endswith(
        "values that were no longer in the cache were computed again"
    )


def test_two_suites_are_an_error(event: MakeEvent) -> None:
    """Suites differ by name in results, and by probes in traces."""
    with pytest.raises(UserError, match=r"of suite 's' and .* of suite 'other'; compare two"):
        compare(recorded(), recorded(suite="other"), Limits())
    one = run_data_of_trace(Path("one"), [event(probe="p"), event(probe=None)])
    two = run_data_of_trace(Path("two"), [event(probe="q"), event(probe=None)])
    with pytest.raises(UserError, match=r"^one and two have no probe in common"):
        compare(one, two, Limits())
    outside = run_data_of_trace(Path("three"), [event(probe=None)])
    assert compare(outside, one, Limits())


def test_a_trace_of_several_runs_is_an_error(event: MakeEvent) -> None:
    """A comparison needs a trace of one run."""
    with pytest.raises(UserError, match=r"^t has records of 2 runs"):
        run_data_of_trace(Path("t"), [event(run_id="1"), event(run_id="2")])


def test_a_result_and_its_trace_are_equal(tmp_path: Path) -> None:
    """A result and the trace of its run have the same counts."""
    from forwardscope import BackendInstrumentation, TraceReader  # noqa: PLC0415

    spec = SuiteSpec(
        version=1,
        name="s",
        model=ModelSpec(path="m", adapter="a"),
        probes=[DeltaKL(name=name, prompts=["a", "b"]) for name in ("one", "two")],
    )
    trace, path = tmp_path / "t.jsonl", tmp_path / "r.json"
    backend = ScriptedBackend(instrumentation=BackendInstrumentation(trace_path=trace))
    run_suite(spec, backend).write(path)
    backend.close()
    result, traced = run_data_of_result(path), run_data_of_trace(trace, TraceReader(trace))
    assert compare(result, traced, Limits()) != []
    assert worse(result, traced) == worse(traced, result) == []
    for row, other in zip(
        *(as_dicts(comparison_table(one, one)) for one in (result, traced)), strict=True
    ):
        assert row["lookups"] == other["lookups"]
        assert row["forward_passes"] == other["forward_passes"]


def test_table_of_both_runs() -> None:
    """The table has the probes and views of either run, and the totals."""
    now = recorded({SeriesKey("q", "ft", "op"): Counts(forward_passes=1)})
    rows = as_dicts(comparison_table(recorded(), now))
    assert [(one["probe"], one["view"]) for one in rows] == [
        ("p", "base"),
        ("q", "ft"),
        ("in all", ""),
    ]
    passes = [(one["baseline_forward_passes"], one["forward_passes"]) for one in rows]
    assert passes == [(3, None), (None, 1), (3, 1)]
