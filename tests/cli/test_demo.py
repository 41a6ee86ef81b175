"""`forwardscope demo`, with a scripted model: what it says of a store."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forwardscope import BackendInstrumentation
from forwardscope.cli.demo import store_notice
from forwardscope.probes import DeltaKL
from forwardscope.suite import SuiteSpec, run_suite
from forwardscope.suite.spec import ModelSpec
from forwardscope.testing import MemoryStore, ScriptedBackend

Invoke = Callable[..., Result]

_SECONDS = r"\(they took \d+\.\d s\)\."


@pytest.fixture
def user_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[ScriptedBackend]
) -> Path:
    """The user's cache folder, with a scripted model in place of the demo's."""
    monkeypatch.setattr("forwardscope.backends.hf.demo_model.demo_model", lambda _: tmp_path)
    monkeypatch.setattr("forwardscope.backends.hf.demo_model.demo_adapter", lambda *_: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FORWARDSCOPE_STORE", raising=False)
    assert loaded == []
    return tmp_path / "cache" / "forwardscope"


def last_line(ran: Result) -> str:
    """Return the last line of a demo that ended well."""
    assert ran.exit_code == 0, ran.output
    return ran.stdout.splitlines()[-1]


def test_a_demo_has_no_store_and_says_what_one_would_do(invoke: Invoke, user_cache: Path) -> None:
    """The figures are those of the run, and no file is made."""
    line = last_line(invoke("demo"))
    would = "With --store default a second run would pay 0 of these 80 forward passes"
    assert re.fullmatch(f"{would} {_SECONDS}", line), line
    assert not (user_cache / "store.db").exists()


def test_a_demo_with_a_store_says_what_it_spared(
    invoke: Invoke, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run says what the second will pay; the second, what it was spared."""
    first = last_line(invoke("demo", "--store", "default"))
    would = "A second run with this store would pay 0 of these 80 forward passes"
    assert re.fullmatch(f"{would} {_SECONDS}", first), first
    assert (user_cache / "store.db").exists()
    spared = "The store spared this run 80 of 80 forward passes."
    assert last_line(invoke("demo", "--store", "default")) == spared
    monkeypatch.setenv("FORWARDSCOPE_STORE", "default")
    assert last_line(invoke("demo")) == spared


@pytest.mark.usefixtures("user_cache")
def test_a_demo_that_says_nothing_of_a_store(invoke: Invoke) -> None:
    """Without a cache there are no figures to go by, and with --quiet there is no output."""
    assert "reconciled" in last_line(invoke("demo", "--no-cache"))
    assert invoke("demo", "--quiet").stdout == ""


def test_no_promise_where_values_were_lost() -> None:
    """Nothing is promised after a first run whose values could not be stored."""
    store = MemoryStore()
    store.close()
    spec = SuiteSpec(
        version=1,
        model=ModelSpec(path="m", adapter="a"),
        probes=(DeltaKL(name="one", prompts=["a"]),),
    )
    backend = ScriptedBackend(
        instrumentation=BackendInstrumentation(store=store), view_identity=lambda view: view
    )
    assert store_notice(run_suite(spec, backend)) is None
