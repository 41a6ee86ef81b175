"""Any content of a suite file gives a suite or a `SpecError` of a few short lines."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import yaml
from hypothesis import given, settings

from forwardscope.errors import SpecError
from forwardscope.suite import SuiteSpec, load_suite
from forwardscope.suite.loading import parse_suite

SUITE: dict[str, Any] = {
    "version": 1,
    "model": {"path": "m", "adapter": "a"},
    "defaults": {"seed": 0},
    "cache": {"enabled": True},
    "period": "1d",
    "probes": [
        {"name": "one", "kind": "delta_kl", "prompts": ["a"], "top_k": 5},
        {"name": "two", "kind": "adapter_ablation", "prompts": ["a"], "lambdas": [0.0, 0.5, 1.0]},
        {"name": "three", "kind": "null_adapter", "runs": 2},
        {"name": "four", "kind": "prompt_collapse", "prompts": ["a"], "context_lengths": [0, 8]},
    ],
}
PLACES: list[tuple[str | int, ...]] = [
    ("version",),
    ("model",),
    ("model", "path"),
    ("defaults", "seed"),
    ("cache",),
    ("period",),
    ("probes",),
    *(("probes", i) for i in range(4)),
    *(("probes", i, "kind") for i in range(4)),
    ("probes", 0, "prompts"),
    ("probes", 0, "prompts", 0),
    ("probes", 1, "lambdas"),
    ("probes", 3, "context_lengths", 1),
    ("delta_kl",),
    ("probes", 2, "delta_kl"),
]
words = st.sampled_from(["delta_kl", "probes", "name", "kind", "model", "base", "1d", "<<", "="])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.dates()
    | st.binary(max_size=4)
    | words
)
trees = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(words | st.text(max_size=4) | st.integers(), below, max_size=3)
    ),
    max_leaves=6,
)
yaml_text = st.text(
    st.sampled_from(list("ab01:-?#&*!|>%@`'\"[]{},.~<=\\ \n\t\u2028\ufeff\x85")), max_size=60
)


def check(read: Callable[[], SuiteSpec]) -> None:
    """Read a suite; an error must be a `SpecError` of at most 21 short lines."""
    try:
        spec = read()
    except SpecError as error:
        assert str(error).splitlines() == list(error.sentences)
        assert 1 <= len(error.sentences) <= 21
        assert all(len(sentence) < 1000 for sentence in error.sentences)
    else:
        assert spec.probes


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Random bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.yaml"
        path.write_bytes(data)
        check(lambda: load_suite(path))


@given(st.text(max_size=100) | yaml_text)
def test_any_text(text: str) -> None:
    """Random text, also of YAML's special characters."""
    check(lambda: parse_suite(text, "suite.yaml"))


@given(yaml_text, st.integers(0, 10_000), st.integers(0, 12))
@settings(max_examples=200)
def test_overwritten_characters(patch: str, at: int, cut: int) -> None:
    """A suite with some characters replaced."""
    text = yaml.safe_dump(SUITE, sort_keys=False)
    at %= len(text)
    check(lambda: parse_suite(text[:at] + patch + text[at + cut :], "suite.yaml"))


def replaced(place: tuple[str | int, ...], value: Any) -> str:
    """Return a suite with one value replaced.

    Raises:
        yaml.YAMLError: YAML cannot write the value.
    """
    tree = yaml.safe_load(yaml.safe_dump(SUITE))
    inner = tree
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    return yaml.safe_dump(tree, allow_unicode=True)


@given(st.sampled_from(PLACES), trees)
@settings(max_examples=200)
def test_any_value_at_any_key(place: tuple[str | int, ...], value: Any) -> None:
    """A suite with one value replaced by a random value."""
    with contextlib.suppress(yaml.YAMLError):  # text that YAML cannot write
        text = replaced(place, value)
        check(lambda: parse_suite(text, "suite.yaml"))
