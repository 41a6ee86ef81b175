"""`forwardscope plan`: lookups and forward passes of a suite, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope.errors import ModelError
from forwardscope.suite import SuiteResult
from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]
ErrorOf = Callable[..., str]
Loaded = list[ScriptedBackend]


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)


def json_of(ran: Result) -> dict[str, Any]:
    """Return the plan that a command printed as JSON."""
    assert (ran.exit_code, ran.stderr) == (0, "")
    return dict(json.loads(ran.stdout))


def test_a_plan_in_a_terminal(invoke: Invoke, suite_file: Path) -> None:
    """Counts by probe and view, shared work, and the sufficient cache size."""
    ran = invoke("plan", suite_file)
    assert (ran.exit_code, ran.stderr) == (0, "")
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert ["second", "ft", "2", "1", "1"] in rows
    assert ["in", "all", "10", "8", "8"] in rows
    assert ["second", "first", "2"] in rows
    assert ran.stdout.endswith(
        "10 lookups cost 8 forward passes with an unbounded cache: a hit rate of 20.0 %\n"
        "max_entries 4 096 is enough; 3 would be too\n"
    )


def test_a_cache_that_is_too_small(invoke: Invoke, suite_file: Path) -> None:
    """The additional forward passes and the sufficient size are printed."""
    suite_file.write_text(suite_file.read_text() + "cache: {max_entries: 2}\n")
    ran = invoke("plan", suite_file)
    assert ["in", "all", "10", "8", "10"] in [line.split() for line in ran.stdout.splitlines()]
    assert ran.stdout.endswith(
        "max_entries 2 costs 2 more, after 8 evictions; set cache.max_entries to at least 3\n"
    )


def test_a_cache_that_is_off(invoke: Invoke, suite_file: Path) -> None:
    """No cache size is printed."""
    suite_file.write_text(suite_file.read_text() + "cache: {enabled: false}\n")
    ran = invoke("plan", suite_file)
    assert ran.exit_code == 0
    assert "the suite's cache is off" in ran.stdout
    assert "max_entries" not in ran.stdout


@pytest.mark.parametrize("size", [2, 3, 4096])
def test_a_run_has_the_planned_counts(
    invoke: Invoke, suite_file: Path, loaded: list[ScriptedBackend], tmp_path: Path, size: int
) -> None:
    """Forward passes and evictions are equal, by probe and view, at every cache size."""
    suite_file.write_text(suite_file.read_text() + f"cache: {{max_entries: {size}}}\n")
    planned = json.loads(invoke("plan", suite_file, "--format", "json").stdout)
    path = tmp_path / "r.json"
    invoke("run", suite_file, "--json", path)
    result = json.loads(path.read_text())
    assert len(loaded) == 1
    assert planned["forward_passes"] == result["expected_forward_passes"]
    assert planned["forward_passes_of_cache"] == result["backend_stats"]["forward_passes"]
    assert planned["evictions"] == result["cache"]["evictions"]
    assert [
        (one["probe"], one["view"], one["lookups"], one["forward_passes_of_cache"])
        for one in planned["series"][:-1]
    ] == [
        (one["probe"] or "(outside)", one["view_id"], one["lookups"], one["forward_passes"])
        for one in result["series"]
    ]


def test_markdown(invoke: Invoke, suite_file: Path) -> None:
    """The Markdown has both tables and the summary."""
    text = invoke("plan", suite_file, "--format", "markdown").stdout
    assert (
        "### lookups and forward passes\n\n| probe | view | lookups | passes | at 4 096 |" in text
    )
    assert "### shared work" in text
    assert text.endswith("max_entries 4 096 is enough; 3 would be too\n")


def test_a_plan_without_shared_work(invoke: Invoke, suite_file: Path) -> None:
    """A table without rows is left out, and is an empty list as JSON."""
    suite_file.write_text(suite_file.read_text().partition("  - name: second")[0])
    assert "shared work" not in invoke("plan", suite_file).stdout
    assert "shared work" not in invoke("plan", suite_file, "--format", "markdown").stdout
    assert json_of(invoke("plan", suite_file, "--json"))["shared"] == []


def test_what_a_store_would_answer(
    invoke: Invoke, suite_file: Path, loaded: Loaded, tmp_path: Path
) -> None:
    """The next run is answered and pays what is planned, and the plan computes nothing."""
    store, path = tmp_path / "s.db", tmp_path / "r.json"
    invoke("run", suite_file, "--store", store)
    suite_file.write_text(suite_file.read_text().replace("[b, c]", "[b, c, d]"))
    content = store.read_bytes()
    planned = json_of(invoke("plan", suite_file, "--store", store, "--format", "json"))
    assert loaded[-1].forward_batches == []
    assert loaded[-1].closed
    assert store.read_bytes() == content
    assert planned["store"] == {
        "name": str(store),
        "exists": True,
        "stored": 8,
        "to_pay": 2,
        "verified_at_least": 2,
        "unidentified_views": [],
        "reason": None,
    }
    invoke("run", suite_file, "--store", store, "--json", path)
    result = SuiteResult.model_validate_json(path.read_text())
    assert [(one["stored"], one["to_pay"]) for one in planned["series"][:-1]] == [
        (one.store_hits, one.forward_passes) for one in result.series
    ]
    assert result.store is not None
    assert result.store.verified >= planned["store"]["verified_at_least"]


def test_a_store_in_a_terminal(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """The table has what is stored and what is to pay, the last line their sum."""
    store = suite_file.with_name("s.db")
    invoke("run", suite_file, "--store", store)
    lines = invoke("plan", suite_file, "--store", store).stdout.splitlines()
    assert ["in", "all", "10", "8", "8", "8", "0"] in [line.split() for line in lines]
    assert lines[-2:] == [
        f"store {store}: 8 of 8 forward passes stored, 0 to pay",
        "a run computes at least 2 stored values again, to verify them",
    ]
    assert loaded


def test_a_store_that_does_not_exist(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """Nothing is stored yet; it is not made, and no model is loaded."""
    store = suite_file.with_name("s.db")
    lines = invoke("plan", suite_file, "--store", store).stdout.splitlines()
    assert lines[-1] == f"nothing is stored yet in {store}: a run would pay all 8"
    assert ["in", "all", "10", "8", "8", "0", "8"] in [line.split() for line in lines]
    assert not store.exists()
    assert loaded == []


def test_a_small_cache_and_a_store(invoke: Invoke, suite_file: Path, loaded: Loaded) -> None:
    """What the cache evicts is needed again, and paid only once."""
    store = suite_file.with_name("s.db")
    suite_file.write_text(suite_file.read_text() + "cache: {max_entries: 2}\n")
    lines = invoke("plan", suite_file, "--store", store).stdout.splitlines()
    assert lines[-2:] == [
        "max_entries 2 needs 2 more, which a store answers, after 8 evictions; set "
        "cache.max_entries to at least 3",
        f"nothing is stored yet in {store}: a run would pay all 8",
    ]
    assert loaded == []


def test_where_the_store_of_a_plan_is_named(
    invoke: Invoke, suite_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option wins over the suite, and the suite over the variable; --no-store over all."""

    def name(*options: object) -> str | None:
        store = json_of(invoke("plan", suite_file, "--format", "json", *options))["store"]
        return None if store is None else str(store["name"])

    found = [name()]
    monkeypatch.setenv("FORWARDSCOPE_STORE", "variable.db")
    found.append(name())
    suite_file.write_text(suite_file.read_text() + "cache: {store: suite.db}\n")
    found += [name(), name("--store", "option.db"), name("--no-store")]
    suite_file.write_text(suite_file.read_text().replace("{store", "{enabled: false, store"))
    found.append(name())
    assert found == [None, "variable.db", "suite.db", "option.db", None, None]
    assert loaded == []


def test_a_model_that_cannot_be_loaded(
    invoke: Invoke, suite_file: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the plan is there, and the reason why the store was not asked."""
    store = suite_file.with_name("s.db")
    invoke("run", suite_file, "--store", store)

    def fail(*_: object, **__: object) -> None:
        raise ModelError("model some-model does not exist")

    monkeypatch.setattr("forwardscope.cli.planned_store._load", fail)
    ran = invoke("plan", suite_file, "--store", store)
    assert (ran.exit_code, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert ["in", "all", "10", "8", "8"] in [line.split() for line in lines]
    assert lines[-1] == (
        f"what the store {store} would answer is not known: model some-model does not exist"
    )
    planned = json_of(invoke("plan", suite_file, "--store", store, "--format", "json"))["store"]
    assert (planned["stored"], planned["to_pay"]) == (None, None)
    assert planned["reason"] == "model some-model does not exist"
    assert len(loaded) == 1


def test_a_plan_with_the_backend_knows_its_limits(
    invoke: Invoke, suite_file: Path, loaded: Loaded, tmp_path: Path
) -> None:
    """Where the model is loaded, all numbers are those of its run, and not of plain LoRA."""
    store = tmp_path / "s.db"
    invoke("run", suite_file, "--store", store)
    suite_file.write_text(suite_file.read_text() + "defaults: {top_k: 32}\n")
    with suite_file.open("a") as file:
        file.write("  - {name: third, kind: delta_kl, prompts: [a], top_k: 99}\n")
    text = suite_file.read_text().replace("defaults: {top_k: 32}\n", "")
    suite_file.write_text(f"{text}defaults: {{top_k: 32}}\n")
    passes = [
        json_of(invoke("plan", suite_file, "--format", "json", *options))["forward_passes"]
        for options in ((), ("--store", store))
    ]
    assert passes == [10, 8]
    assert len(loaded) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--store", "redis://host/x"), "the path of the store's URL is the number of a database"),
        (("--store", "x.db", "--no-store"), "--store and --no-store contradict each other"),
        (("--store", ""), "--store needs a path, or default"),
    ],
)
def test_stores_that_cannot_be_asked(
    error_of: ErrorOf, suite_file: Path, options: tuple[str, ...], message: str
) -> None:
    """They end the command with one sentence, as they end a run."""
    assert error_of("plan", suite_file, *options).startswith(message)


def test_json_has_a_short_form(invoke: Invoke, suite_file: Path) -> None:
    """`--json` prints what `--format json` does."""
    assert json_of(invoke("plan", suite_file, "--json")) == json_of(
        invoke("plan", suite_file, "--format", "json")
    )


def test_errors(error_of: ErrorOf, tmp_path: Path) -> None:
    """The error has the path of a missing or invalid suite."""
    missing, invalid = tmp_path / "nope.yaml", tmp_path / "bad.yaml"
    invalid.write_text("[]\n")
    assert error_of("plan", missing).startswith(f"suite file {missing} does not exist")
    assert error_of("plan", invalid).startswith(f"{invalid}: a suite is a mapping")
