"""Probes of installed packages in a suite."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forwardscope.errors import SpecError
from forwardscope.suite import run_suite
from forwardscope.suite.any_probe import known_kinds
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.spec import SuiteSpec
from forwardscope.testing import ScriptedBackend

SUITE = """version: 1
model: {path: m, adapter: a}
probes:
  - {name: first, kind: delta_kl, prompts: [a]}
  - {name: own, kind: KIND, SETTINGS}
"""

Install = Callable[[str], None]


def suite(kind: str = "longest", settings: str = "prompts: [ab, abcd]") -> SuiteSpec:
    """Parse a suite with a probe of this kind."""
    return parse_suite(SUITE.replace("KIND", kind).replace("SETTINGS", settings), "suite.yaml")


def error_of(kind: str = "longest", settings: str = "prompts: [a]") -> str:
    """Return the error message for such a suite."""
    with pytest.raises(SpecError) as caught:
        suite(kind, settings)
    return str(caught.value).removeprefix("suite.yaml:5: probes[1]")


def test_a_suite_runs_it(install: Install) -> None:
    """The probe has its settings, is planned, runs and is in the result, as any other."""
    install("longest = some_probes:Longest")
    result = run_suite(suite(settings="prompts: [ab, abcd], most: 3.5"), ScriptedBackend())
    assert [(probe.kind, probe.verdict) for probe in result.probes][1] == ("longest", "fail")
    assert result.probes[1].raw == 4.0
    assert result.expected_forward_passes == 4


def test_kinds_are_named(install: Install) -> None:
    """An unknown kind is told with those of installed packages."""
    install("longest = some_probes:Longest\ndelta_kl = some_probes:Other")
    assert known_kinds().count("delta_kl") == 1
    assert "longest" in known_kinds()
    assert error_of("longer").startswith(
        ".kind: unknown probe kind 'longer'; did you mean longest? (`forw"
    )
    assert error_of("other").startswith(".kind: unknown probe kind 'other'; known: null_adapter")
    assert "completion_preference, longest (" in error_of("other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("prompts: []", ".prompts: needs at least 1 item; got []"),
        ("prompts: [a], most: 0", ".most: must be greater than 0; got 0"),
        ("prompts: [a], mots: 1", ".mots: unknown key; did you mean most?"),
    ],
)
def test_invalid_settings(install: Install, settings: str, message: str) -> None:
    """The error has the line, the key and the fix, as for forwardscope's own probes."""
    install("longest = some_probes:Longest")
    assert error_of(settings=settings) == message


def test_all_invalid_settings(install: Install) -> None:
    """Each has its own sentence."""
    install("longest = some_probes:Longest")
    assert error_of(settings="prompts: [], most: 0").splitlines() == [
        ".prompts: needs at least 1 item; got []",
        "suite.yaml:5: probes[1].most: must be greater than 0; got 0",
    ]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:Longest", "cannot be imported: ModuleNotFoundError"),
        ("some_probes:Missing", "cannot be imported: AttributeError"),
        ("some_probes:Leaving", "cannot be imported: SystemExit"),
        ("some_probes:no_class", "is no subclass of Probe"),
        ("some_probes:Without", "is no probe of kind 'longest'"),
    ],
)
def test_a_broken_entry_point(install: Install, target: str, message: str) -> None:
    """The error names the entry point."""
    install(f"longest = {target}")
    assert error_of() == f": the entry point {target} {message}"


def test_validators_that_raise(install: Install) -> None:
    """Whatever the class raises for its settings is an error of the suite."""
    install("longest = some_probes:Failing")
    assert error_of() == ": the settings cannot be checked: RuntimeError"


def test_an_entry_point_of_another_kind(install: Install) -> None:
    """The name of the entry point is the kind of the class."""
    install("shortest = some_probes:Longest")
    assert error_of("shortest") == (
        ": the entry point some_probes:Longest is no probe of kind 'shortest'"
    )


def test_nothing_is_imported_for_other_kinds(install: Install) -> None:
    """An entry point that cannot be imported does not disturb a suite without it."""
    install("longest = no_such_module:Longest")
    assert suite("delta_kl", "prompts: [a]").probes[1].kind == "delta_kl"
