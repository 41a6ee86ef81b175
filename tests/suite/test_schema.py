"""The JSON schema of a suite takes what a run takes, and describes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from forwardscope.errors import SpecError
from forwardscope.probes import PROBES
from forwardscope.suite.loading import parse_suite
from forwardscope.suite.mistakes import Mistakes
from forwardscope.suite.schema import kind_schemas, suite_schema
from forwardscope.suite.yaml_source import read_yaml

from .test_loading import SUITE
from .test_loading_hostile import PLACES, replaced, trees

_VALIDATOR = jsonschema.Draft7Validator(suite_schema())


def is_valid(text: str) -> bool:
    """Return whether an editor with the schema finds no mistake in a suite."""
    return bool(_VALIDATOR.is_valid(read_yaml(text, Mistakes("suite"))[1]))


def test_it_is_a_schema() -> None:
    """It is valid itself, and each of its references leads somewhere."""
    jsonschema.Draft7Validator.check_schema(suite_schema())


@pytest.mark.parametrize("name", ["template.yaml", "demo.yaml"])
def test_own_suites_are_valid(name: str) -> None:
    """The files of the package, and their first line names the schema for editors."""
    text = (files("forwardscope.suite") / name).read_text(encoding="utf-8")
    assert is_valid(text)
    first = text.replace("$$", "$").splitlines()[0]
    assert first == "# yaml-language-server: $schema=suite.schema.json"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("version: 1", "version: 2"),
        ("version: 1\n", ""),
        ("defaults:", "defualts:"),
        ("path: some-model", "path: 3"),
        ("  adapter: some-adapter\n", ""),
        ("some-adapter", "some-adapter\n  tuned: other"),
        ("seed: 3", "seed: '3'"),
        ("seed: 3", "seed: -1"),
        ("max_entries: 9", "max_bytes: 10 XB"),
        ("defaults:", "exactness: exact\ndefaults:"),
        ("defaults:", "period: 1y\ndefaults:"),
        ("defaults:", "telemetry: {span_budget: some}\ndefaults:"),
        ("delta_kl", "delta_lk"),
        ("kind: delta_kl\n    ", ""),
        ("name: one\n    ", ""),
        ("prompts:\n", "promts:\n"),
        ("prompts:\n", "prompts_file: a\n    prompts:\n"),
        ("- second", "- 2"),
        ("- second", "- ''"),
        ("- second", "- [{role: user}]"),
        ("[third]", "[]"),
        ("[third]", "[third]\n    lambdas: [0, 1]"),
        ("[third]", "[third]\n    min_z: 1"),
        ("[third]", "[third]\n    top_k: 0"),
    ],
)
def test_mistakes(right: str, wrong: str) -> None:
    """An editor shows what a run would refuse."""
    assert is_valid(SUITE)
    assert not is_valid(SUITE.replace(right, wrong))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("[third]", "[[{role: user, content: third}]]"),
        ("prompts: [third]", "prompts_file: third.txt"),
        ("max_entries: 9", "max_bytes: 0.5GiB"),
        ("adapter: some-adapter", "adapter: null\n  tuned: other"),
        ("defaults:", "telemetry: {span_budget: all}\ndefaults:"),
    ],
)
def test_other_ways_to_write(right: str, wrong: str) -> None:
    """An editor takes them, as a run does."""
    assert is_valid(SUITE.replace(right, wrong))


@given(st.sampled_from(PLACES), trees)
@settings(max_examples=300)
def test_what_a_run_takes_is_valid(place: tuple[str | int, ...], value: Any) -> None:
    """A suite with a random value at any key is valid for an editor if it is for a run."""
    with contextlib.suppress(yaml.YAMLError, SpecError):
        text = replaced(place, value)
        parse_suite(text, "suite.yaml")
        assert is_valid(text)


@pytest.mark.parametrize("kind", PROBES)
def test_each_setting_is_described(kind: str) -> None:
    """The description is that of the class's docstring, and so are its defaults."""
    schema = kind_schemas()[kind]
    assert schema["description"] == (PROBES[kind].__doc__ or "").splitlines()[0]
    described = {key for key, one in schema["properties"].items() if one.get("description")}
    assert described >= PROBES[kind].model_fields.keys()


def test_an_installed_kind(install: Callable[[str], None]) -> None:
    """It is in the schema, with its settings; one that cannot be imported takes all."""
    install("longest = some_probes:Longest\nbroken = no_such_module:Other")
    validator = jsonschema.Draft7Validator(suite_schema())
    content = {"version": 1, "model": {"path": "m", "adapter": "a"}}
    for probe, valid in (
        ({"kind": "longest", "prompts": ["a"], "most": 2}, True),
        ({"kind": "longest", "prompts": ["a"], "most": 0}, False),
        ({"kind": "longest", "prompts": ["a"], "mots": 1}, False),
        ({"kind": "broken", "any": 1}, True),
        ({"kind": "missing"}, False),
    ):
        assert validator.is_valid({**content, "probes": [{"name": "own", **probe}]}) is valid
    assert "cannot be imported" in kind_schemas()["broken"]["description"]
