"""`forwardscope trace why` on the traces of runs with a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation, TraceReader
from forwardscope.suite import SuiteSpec
from forwardscope.testing import ScriptedBackend

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORWARDSCOPE_STORE", "FORWARDSCOPE_TRACES_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(invoke: Invoke, suite_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the suite with a store and an adapter of the given weights; return the trace."""
    store = suite_file.with_name("store.db")

    def call(name: str, weights: str, *options: object) -> Path:
        def load(
            _: SuiteSpec, instrumentation: BackendInstrumentation, *__: object
        ) -> ScriptedBackend:
            adapted = {"adapter weights": weights, "dtype": "float32"}
            parts = {"base": {"dtype": "float32"}, "ft": adapted}
            return ScriptedBackend(
                instrumentation=instrumentation,
                view_identity=lambda view_id: str(parts[view_id]),
                view_identity_parts=parts.__getitem__,
            )

        monkeypatch.setattr("forwardscope.cli.running._load", load)
        trace = suite_file.with_name(f"{name}.jsonl")
        arguments = ("run", suite_file, "--quiet", "--store", store, "--trace", trace, *options)
        assert invoke(*arguments).exit_code == 0
        return trace

    return call


def _first_on(trace: Path, view: str) -> dict[str, Any]:
    return next(one.to_dict() for one in TraceReader(trace) if one.view_id == view)


def test_a_retrained_adapter(invoke: Invoke, run: Callable[..., Path]) -> None:
    """The part of the identity that differs, and the run that has the other value, are named."""
    first = run("first", "old")
    second = run("second", "new")
    store = second.with_name("store.db")
    ran = invoke("trace", "why", second, "--miss", 1, "--store", store)
    assert (ran.exit_code, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("miss 1: (outside) on ft, prompt ")
    assert lines[2] == "  store: not found; this run stored the value"
    assert lines[3].startswith(
        f"    run {_first_on(first, 'ft')['run_id']} (some-adapter on some-model, last used "
    )
    assert lines[3].endswith(" stored it with other adapter weights (old; here new)")
    ran = invoke("trace", "why", second, "--miss", 1, "--store", store, "--format", "json")
    (output,) = json.loads(ran.stdout)
    (other,) = output["store"]["others"]
    assert output["store"]["state"] == "saved"
    assert other["differences"] == [{"part": "adapter weights", "stored": "old", "here": "new"}]


def test_a_warm_run(invoke: Invoke, run: Callable[..., Path]) -> None:
    """A hit names the run that computed the value; a miss that is not there leads to the hits."""
    paid = _first_on(run("first", "old"), "ft")
    warm = run("second", "old", "--verify", "1")
    hit = _first_on(warm, "ft")
    ran = invoke("trace", "why", warm, "--prompt-hash", hit["prompt_hash"])
    assert ran.exit_code == 0
    assert (
        f"  from the store (disk), computed by run {paid['run_id']}; verified: computed again, it "
        "agreed" in ran.stdout.splitlines()
    )
    ran = invoke("trace", "why", warm, "--prompt-hash", hit["prompt_hash"], "--format", "json")
    assert {one["reason"] for one in json.loads(ran.stdout)} == {"stored"}
    ran = invoke("trace", "why", warm, "--miss", 1)
    assert ran.exit_code == 2
    assert "no miss 1, but 8 hits in a store: give --prompt-hash to explain them" in ran.stderr


def test_where_the_store_is_named(
    invoke: Invoke, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option wins over the variable; without either, the trace says that there was one."""
    trace = run("first", "old")
    explained = "store: not found; this run stored the value"
    assert "the run had a store: add --store" in invoke("trace", "why", trace, "--miss", 1).stdout
    monkeypatch.setenv("FORWARDSCOPE_STORE", str(trace.with_name("store.db")))
    assert explained in invoke("trace", "why", trace, "--miss", 1).stdout
    monkeypatch.setenv("FORWARDSCOPE_STORE", str(trace.with_name("none.db")))
    ran = invoke("trace", "why", trace, "--miss", 1)
    assert (ran.exit_code, ran.stderr) == (0, "")
    store = trace.with_name("store.db")
    assert explained in invoke("trace", "why", trace, "--miss", 1, "--store", store).stdout


def test_a_store_is_not_changed(invoke: Invoke, run: Callable[..., Path]) -> None:
    """A search leaves the file as it is."""
    trace = run("first", "old")
    store = trace.with_name("store.db")
    before = store.read_bytes()
    assert invoke("trace", "why", trace, "--miss", 1, "--store", store).exit_code == 0
    assert store.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.db", "none.db does not exist; give the store of the run"),
        ("", "is no place for a store"),
        ("first.jsonl", "is no SQLite file"),
        ("redis://127.0.0.1:1", "there is no connection to the server"),
    ],
)
def test_stores_that_cannot_be_searched(
    error_of: Callable[..., str], run: Callable[..., Path], name: str, message: str
) -> None:
    """The error is one sentence with the reason."""
    trace = run("first", "old")
    store = name if ":" in name or not name else trace.with_name(name)
    assert message in error_of("trace", "why", trace, "--miss", 1, "--store", store)


def test_all_misses_by_their_reasons(
    invoke: Invoke, error_of: Callable[..., str], run: Callable[..., Path]
) -> None:
    """Without options a table counts them, and says how to explain one."""
    trace = run("one", "new")
    ran = invoke("trace", "why", trace)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == f"one of them: forwardscope trace why {trace} --miss N"
    rows = json.loads(invoke("trace", "why", trace, "--format", "json").stdout)
    misses = sum(not one.hit for one in TraceReader(trace))
    assert sum(row["misses"] for row in rows) == misses > 0
    assert {row["reason"] for row in rows} == {"first lookup", "seen elsewhere"}
    assert "give either" in error_of("trace", "why", trace, "--miss", 1, "--prompt-hash", "a")
    warm = run("warm", "new")
    assert invoke("trace", "why", warm).stdout == "every lookup was a hit\n"
