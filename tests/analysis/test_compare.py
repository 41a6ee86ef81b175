"""Several results side by side."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from forwardscope.analysis.compare import comparison_notes, comparison_tables
from forwardscope.analysis.tables import as_dicts, as_rich
from forwardscope.probes import DeltaKL, Verdict
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.testing import ScriptedBackend

ResultWith = Callable[..., SuiteResult]


@pytest.fixture
def result_with() -> ResultWith:
    """Return a function that makes a result whose probes have other values."""

    def make(*changes: dict[str, Any], **facts: Any) -> SuiteResult:
        probes = [DeltaKL(name=f"p{index}", prompts=["a"]) for index in range(len(changes))]
        model = {"path": "base", "adapter": "mine"}
        result = run_suite(SuiteSpec(version=1, model=model, probes=probes), ScriptedBackend())
        changed = [
            probe.model_copy(update={"verdict": Verdict.PASS} | change)
            for probe, change in zip(result.probes, changes, strict=True)
        ]
        return result.model_copy(update={"probes": changed} | facts)

    return make


def rows_of(*results: SuiteResult, table: str = "probes") -> list[dict[str, Any]]:
    """Return the rows of a table."""
    return as_dicts(comparison_tables(results, [f"{index}.json" for index in range(9)])[table])


def measured(raw: float, low: float, high: float) -> dict[str, Any]:
    return {"raw": raw, "ci_95": (low, high)}


@pytest.mark.parametrize(
    ("first", "second", "clear"),
    [
        (measured(1.0, 0.9, 1.1), measured(2.0, 1.8, 2.2), True),
        (measured(1.0, 0.5, 2.1), measured(2.0, 1.8, 2.2), False),  # in the first interval
        (measured(1.0, 0.9, 1.1), measured(2.0, 0.9, 2.2), False),  # in the second
        (measured(2.0, 1.8, 2.2), measured(1.0, 0.9, 1.1), True),
    ],
)
def test_a_clear_change(
    result_with: ResultWith, first: dict[str, Any], second: dict[str, Any], clear: bool
) -> None:
    """Each of the values lies outside the other's interval."""
    before, after = rows_of(result_with(first), result_with(second))
    assert (before["change"], before["clear"], before["p"]) == (None, None, None)
    assert after["change"] == second["raw"] - first["raw"]
    assert after["clear"] is clear
    assert after["p"] < 0.05


def test_p_of_one_change(result_with: ResultWith) -> None:
    """A difference of 1.96 standard errors has a p of 0.05, in either direction."""
    one = measured(0.0, -1.96, 1.96)
    for sign in (1, -1):
        value = sign * 1.959964 * 2**0.5
        other = measured(value, value - 1.96, value + 1.96)
        assert rows_of(result_with(one), result_with(other))[1]["p"] == pytest.approx(
            0.05, abs=1e-4
        )


def test_all_p_are_corrected_together(result_with: ResultWith) -> None:
    """Three results of two probes have four comparisons, the smallest p of which counts four."""
    one = measured(0.0, -1.96, 1.96)
    far, near = measured(6.0, 4.04, 7.96), measured(3.0, 1.04, 4.96)
    results = [result_with(one, one), result_with(far, one), result_with(near, one)]
    ps = {(row["probe"], row["run"]): row["p"] for row in rows_of(*results)}
    alone = rows_of(result_with(one), result_with(far))[1]["p"]
    assert ps["p0", "B"] == pytest.approx(4 * alone)
    assert ps["p0", "C"] == pytest.approx(3 * rows_of(result_with(one), result_with(near))[1]["p"])
    assert ps["p1", "B"] == ps["p1", "C"] == 1.0
    assert "corrected for 4 comparisons by Holm's method" in comparison_notes(results)[-2]


def test_values_without_an_interval(result_with: ResultWith) -> None:
    """Their change is shown, and neither tested nor said to be clear."""
    results = [result_with({"raw": 1.0, "ci_95": None}), result_with({"raw": 3.0, "ci_95": None})]
    (_, after) = rows_of(*results)
    assert (after["change"], after["clear"], after["p"]) == (2.0, None, None)
    assert not any("clear" in note for note in comparison_notes(results))


@pytest.mark.parametrize(("second", "p"), [(1.0, 1.0), (2.0, 0.0)])
def test_intervals_of_no_width(result_with: ResultWith, second: float, p: float) -> None:
    """Equal values on all prompts: a difference is certain, and none is none."""
    results = [result_with(measured(one, one, one)) for one in (1.0, second)]
    assert rows_of(*results)[1]["p"] == p


def test_a_probe_that_one_result_lacks(result_with: ResultWith) -> None:
    """It has a row for each result, without a change."""
    one = measured(1.0, 0.9, 1.1)
    rows = rows_of(result_with(one), result_with(one, one))
    found = {(row["probe"], row["run"]): row["verdict"] for row in rows}
    assert found["p1", "A"] == "not run"
    assert found["p1", "B"] == "pass"
    assert rows_of(result_with(one), result_with(one, one), table="changes") == [
        {"probe": "p0", "run": "B", "change": 0.0, "clear": False, "p": 1.0}
    ]


def test_what_differs(result_with: ResultWith) -> None:
    """Models, suites, kinds and numbers of values that differ are said."""
    one = measured(1.0, 0.9, 1.1)
    first = result_with(one | {"n": 6}, one)
    second = result_with(
        one | {"n": 32}, one | {"kind": "other"}, adapter="yours", suite="another", dtype="bfloat16"
    )
    notes = comparison_notes([first, second])
    assert notes[:3] == [
        "B and A differ in adapter: yours, mine before",
        f"B and A differ in dtype: bfloat16, {first.dtype} before",
        "B and A are of different suites: another, suite",
    ]
    assert "B and A differ in the number of values of p0: 32, 6" in notes
    assert "B and A differ in the kind of p1: other, delta_kl" in notes
    assert rows_of(first, second)[3]["change"] is None


def test_other_prompts(result_with: ResultWith) -> None:
    """The same number of other prompts, or another divergence, is said too."""
    asked = [{"evidence": {"prompts": [name], "divergence": name}} for name in ("js", "kl")]
    old: dict[str, object] = {"evidence": {}}
    first, second = result_with(asked[0], asked[0]), result_with(asked[1], old)
    notes = comparison_notes([first, first, second])
    assert [one for one in notes if "differ" in one] == [
        "C and A differ in the prompts of p0",
        "C and A differ in the divergence of p0",
    ]


def test_the_columns_are_explained(result_with: ResultWith) -> None:
    """The unit of each raw value; clear and p only where there is a p."""
    first = result_with(measured(1.0, 0.9, 1.1), {"raw": 9.0, "kind": "prompt_collapse"}, {})
    *_, numbers, changes, passes = comparison_notes([first, first])
    assert "raw: p0 in nats, p1 as a half-life in tokens, p2 in nats; z: " in numbers
    assert changes.startswith("clear: ")
    assert "p: probability of such a change if there were none, corrected for 1 comp" in changes
    assert (passes.startswith("needed: "), "paid: " in passes) == (True, True)
    other = result_with({"raw": 9.0, "ci_95": None, "kind": "says_yes"})
    numbers, passes = comparison_notes([other, other])
    assert "raw: what the probe measures; z: " in numbers


def test_cost(result_with: ResultWith) -> None:
    """What each run needed and paid, as in its result."""
    result = result_with({})
    (row, _) = rows_of(result, result, table="cost")
    stats = result.backend_stats
    assert row["forward_passes"] == stats["forward_passes"] == row["needed_passes"]
    assert row["lookups"] == stats["cache_hits"] + stats["cache_misses"]
    assert (row["hit_rate"], row["wall_s"]) == (stats["hit_rate"], result.wall_s)


def test_paths_are_shortened_in_a_terminal(result_with: ResultWith) -> None:
    """Of a path the last parts that tell it from the others; programs have the whole."""
    models = ["/x/a/models/smol", "/x/b/models/smol", "org/model"]
    results = [result_with({}, model=model) for model in models]
    file = StringIO()
    table = comparison_tables(results, ["1", "2", "3"])["runs"]
    Console(file=file, width=100).print(as_rich(table))
    assert [row["model"] for row in as_dicts(table)] == models
    for short in ("…/a/models/smol", "…/b/models/smol", "org/model"):
        assert f" {short} " in file.getvalue()


def test_a_long_table_in_a_terminal(result_with: ResultWith) -> None:
    """It has the first thousand rows and how many follow; programs have them all."""
    (probe,) = result_with({}).probes
    probes = [probe.model_copy(update={"name": f"p{index}"}) for index in range(600)]
    result = result_with({}).model_copy(update={"probes": probes})
    table = comparison_tables([result, result], ["1", "2"])["probes"]
    file = StringIO()
    Console(file=file, width=100).print(as_rich(table))
    printed = file.getvalue()
    assert len(as_dicts(table)) == 1200
    assert " p499 " in printed
    assert " p500 " not in printed
    assert "and 200 further rows" in printed


def test_a_change_that_overflows(result_with: ResultWith) -> None:
    """It is left out, as JSON has no infinite number."""
    results = [result_with(measured(value, value, value)) for value in (1e308, -1e308)]
    (_, row) = rows_of(*results)
    assert (row["change"], row["clear"], row["p"]) == (None, None, None)


def test_many_probes(result_with: ResultWith) -> None:
    """Each is found by its name: a result of the largest size takes seconds, not minutes."""
    (probe,) = result_with({}).probes
    probes = [probe.model_copy(update={"name": f"p{index}"}) for index in range(20_000)]
    result = result_with({}).model_copy(update={"probes": probes})
    assert len(rows_of(result, result)) == 40_000
