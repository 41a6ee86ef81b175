"""Parts that probes share: scores and strict settings."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import ValidationError

from forwardscope.probes import (
    PROBES,
    AdapterAblation,
    DeltaKL,
    NullAdapter,
    Probe,
    ProbeContext,
    PromptCollapse,
)
from forwardscope.probes.base import score_against
from forwardscope.testing import ScriptedBackend

positive = st.floats(1e-6, 1e6)


def test_values_of_the_score() -> None:
    """0 scores 0, the threshold 0.5, twice the threshold 0.75, and a large value nearly 1."""
    assert score_against(0.0, 3.0) == 0.0
    assert score_against(3.0, 3.0) == 0.5
    assert score_against(6.0, 3.0) == 0.75
    assert score_against(300.0, 3.0) == pytest.approx(1.0)
    assert score_against(-5.0, 3.0) == 0.0


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), positive)
def test_score_is_monotonic_and_bounded(one: float, other: float, threshold: float) -> None:
    """A score is in [0, 1], and a larger value never has a lower score."""
    low, high = (score_against(value, threshold) for value in sorted((one, other)))
    assert 0.0 <= low <= high <= 1.0


def test_names_of_kinds() -> None:
    """Each key of `PROBES` is the `kind` of its class."""
    kinds = {name: kind.model_fields["kind"].default for name, kind in PROBES.items()}
    assert kinds == {name: name for name in kinds}
    assert len(kinds) == 6


@pytest.mark.parametrize("probe", [DeltaKL, AdapterAblation, PromptCollapse])
@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": "8"},
        {"top_k": True},
        {"top_k": 8.0},
        {"top_k": 0},
        {"prompts": []},
        {"prompts": ["a", ""]},
        {"prompts": "a"},
        {"prompts": [1]},
        {"divergence": "tv"},
        {"name": ""},
        {"name": 5},
        {"kind": "other"},
        {"promts": ["a"]},
    ],
    ids=repr,
)
def test_shared_settings_are_strict(probe: type[Probe], wrong: dict[str, Any]) -> None:
    """Wrong types, empty values and unknown keys are errors."""
    right: dict[str, Any] = {"name": "one", "prompts": ["a"], "top_k": 8, "divergence": "kl"}
    assert probe(**right).name == "one"
    with pytest.raises(ValidationError) as caught:
        probe(**{**right, **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


@pytest.mark.parametrize(
    ("probe", "wrong"),
    [
        (DeltaKL, {"min_mean": 0}),
        (DeltaKL, {"min_mean": "0.1"}),
        (DeltaKL, {"min_z": float("nan")}),
        (DeltaKL, {"min_z": True}),
        (AdapterAblation, {"min_linearity": -1.0}),
        (AdapterAblation, {"min_overshoot": float("inf")}),
        (AdapterAblation, {"lambdas": [0, "0.5", 1]}),
        (PromptCollapse, {"min_half_life": 0.0}),
        (PromptCollapse, {"context_lengths": [0, 2.5]}),
        (PromptCollapse, {"context_lengths": [0, "256"]}),
        (PromptCollapse, {"context_lengths": [False, True]}),
        (PromptCollapse, {"context_lengths": [-1, 5]}),
    ],
)
def test_own_settings_are_strict(probe: type[Probe], wrong: dict[str, Any]) -> None:
    """Thresholds are positive and finite, and lists contain only numbers."""
    with pytest.raises(ValidationError) as caught:
        probe(name="one", prompts=["a"], **wrong)
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"runs": 0},
        {"runs": "3"},
        {"runs": True},
        {"seed_base": -1},
        {"seed_base": 1.5},
        {"init_scale": 0.0},
        {"sentinel_prompts": []},
        {"sentinel_prompts": [""]},
        {"prompts": ["a"]},
    ],
    ids=repr,
)
def test_settings_of_the_baseline_are_strict(wrong: dict[str, Any]) -> None:
    """Wrong types, values out of range and `prompts` are errors."""
    with pytest.raises(ValidationError) as caught:
        NullAdapter(name="null", **wrong)
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


def test_probes_are_values() -> None:
    """Probes with equal settings are equal, have equal hashes and are immutable."""
    one, same = (DeltaKL(name="one", prompts=["a"]) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != DeltaKL(name="one", prompts=["b"])
    with pytest.raises(ValidationError, match="frozen"):
        one.name = "other"


def test_top_k_of_probe_and_suite() -> None:
    """A probe without its own `top_k` uses that of the suite."""
    context = ProbeContext(ScriptedBackend(), top_k=64)
    assert DeltaKL(name="one", prompts=["a"]).k(context) == 64
    assert DeltaKL(name="one", prompts=["a"], top_k=5).k(context) == 5
