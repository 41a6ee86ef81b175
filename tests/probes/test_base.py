"""What all probes share: their score, and settings that take no guesses."""

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


def test_score_has_its_landmarks() -> None:
    """Nothing scores 0, the threshold 0.5, twice the threshold 0.75, and much more nearly 1."""
    assert score_against(0.0, 3.0) == 0.0
    assert score_against(3.0, 3.0) == 0.5
    assert score_against(6.0, 3.0) == 0.75
    assert score_against(300.0, 3.0) == pytest.approx(1.0)
    assert score_against(-5.0, 3.0) == 0.0


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), positive)
def test_score_rises_and_stays_in_bounds(one: float, other: float, threshold: float) -> None:
    """A score is in [0, 1], and a larger value never scores less."""
    low, high = (score_against(value, threshold) for value in sorted((one, other)))
    assert 0.0 <= low <= high <= 1.0


def test_every_kind_is_known_by_its_name() -> None:
    """The name in the table of probes is the one that the probe itself has."""
    assert {name: kind.model_fields["kind"].default for name, kind in PROBES.items()} == {
        name: name for name in ("null_adapter", "delta_kl", "adapter_ablation", "prompt_collapse")
    }


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
    """No type is guessed, nothing may be empty, and no key is unknown."""
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
    """Thresholds are positive finite numbers, and lists hold numbers alone."""
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
    """A baseline has sentinels of its own and takes no `prompts`."""
    with pytest.raises(ValidationError) as caught:
        NullAdapter(name="null", **wrong)
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))


def test_probes_are_values() -> None:
    """Equal settings make equal probes with equal hashes, and none can be changed."""
    one, same = (DeltaKL(name="one", prompts=["a"]) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != DeltaKL(name="one", prompts=["b"])
    with pytest.raises(ValidationError, match="frozen"):
        one.name = "other"


def test_top_k_is_the_probes_own_or_the_suites() -> None:
    """A probe that sets no `top_k` uses the suite's."""
    context = ProbeContext(ScriptedBackend(), top_k=64)
    assert DeltaKL(name="one", prompts=["a"]).k(context) == 64
    assert DeltaKL(name="one", prompts=["a"], top_k=5).k(context) == 5
