"""The words for a verdict: what it means and how sure it is."""

from __future__ import annotations

from typing import Any

import pytest

from forwardscope.analysis.verdicts import certainty, meaning
from forwardscope.probes import PROBES, Verdict
from forwardscope.suite.result import ProbeResult, Tally


def probe(kind: str = "delta_kl", verdict: str = "pass", **more: Any) -> ProbeResult:
    tally = Tally(
        lookups=0, cache_hits=0, coalesced=0, cache_misses=0, forward_passes=0,
        forward_errors=0, hit_rate=0, scoring_wall_s=0, forward_s=0,
    )  # fmt: skip
    return ProbeResult(
        name="p", kind=kind, verdict=Verdict(verdict), message="", duration_s=0, stats=tally, **more
    )


def test_each_kind_has_a_sentence_of_its_own() -> None:
    """For a pass and for a failure, and they differ."""
    unknown = {meaning(probe("says_yes", verdict)) for verdict in ("pass", "fail")}
    assert unknown == {"The value is within its limit.", "The value is not within its limit."}
    for kind in PROBES:
        said = {meaning(probe(kind, verdict, raw=1.0)) for verdict in ("pass", "fail")}
        assert len(said) == 2
        if kind != "null_adapter":  # it cannot fail
            assert not said & unknown, kind


def test_a_task_of_another_tool_has_no_limit() -> None:
    """So nothing is said to be within one."""
    assert meaning(probe("lm-eval")) == "It has run; a task has no limit of its own."


def test_what_was_not_measured_says_nothing_of_the_adapter() -> None:
    """An error and a skip."""
    assert "failed" in meaning(probe(verdict="error"))
    assert meaning(probe(verdict="skip")) == "Nothing was measured."


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"saturation_lambda": 0.25, "overshoot": 0.5}, "A fraction of the adapter"),
        ({"saturation_lambda": 1.0, "overshoot": 0.5}, "The effect shrinks"),
        ({"saturation_lambda": 1.0, "overshoot": 1.2}, "does not grow evenly"),
        ({"saturation_lambda": "a", "overshoot": None}, "does not grow evenly"),
    ],
)
def test_a_bad_curve_says_what_is_wrong(evidence: dict[str, Any], words: str) -> None:
    """The first of saturation, overshoot and linearity that is below its threshold."""
    thresholds = {"min_linearity": 0.85, "min_saturation": 0.3, "min_overshoot": 1.0}
    found = probe(
        "adapter_ablation", "fail", raw=0.5, evidence={**evidence, "thresholds": thresholds}
    )
    assert words in meaning(found)


@pytest.mark.parametrize(
    ("kind", "evidence"),
    [("adapter_ablation", {}), ("prompt_collapse", {"mean_divergence_per_length": [0.0, 0.0]})],
)
def test_a_curve_without_effect(kind: str, evidence: dict[str, Any]) -> None:
    """It has no value, and is 0 everywhere."""
    assert meaning(probe(kind, "fail", evidence=evidence)) == "The adapter has no effect."
    lost = probe("prompt_collapse", "fail", evidence={"mean_divergence_per_length": [0.1, 0.0]})
    assert "loses its effect" in meaning(lost)


@pytest.mark.parametrize(
    ("means", "words"),
    [([0.0, 0.0], "has no effect"), ([0.1, 0.0], "loses its effect"), ("a", "loses its effect")],
)
def test_an_effect_that_is_lost(means: object, words: str) -> None:
    """What was never there is not lost with the context."""
    evidence = {"mean_divergence_per_length": means}
    assert words in meaning(probe("prompt_collapse", "fail", evidence=evidence))


@pytest.mark.parametrize(
    ("raw", "z", "words"),
    [
        (0.7, 1.0, "not clearly more than random adapters"),
        (0.2, 1.0, "does not move"),
        (0.2, 9.0, "does not move"),
        (0.2, None, "does not move"),
    ],
)
def test_a_shift_like_that_of_random_adapters(raw: float, z: float | None, words: str) -> None:
    """It is said where the shift is large enough and z is not."""
    evidence = {"thresholds": {"min_shift": 0.5, "min_z": 3.0}}
    found = probe("completion_preference", "fail", raw=raw, z_score=z, evidence=evidence)
    assert words in meaning(found)


@pytest.mark.parametrize(
    ("expect", "verdict", "words"),
    [
        ("kept", "pass", "leaves the model as good"),
        ("kept", "fail", "makes the model worse"),
        ("learned", "pass", "has learned"),
        ("learned", "fail", "has not learned"),
        (None, "fail", "not within its limit"),
    ],
)
def test_perplexity_by_what_was_expected(expect: str | None, verdict: str, words: str) -> None:
    """Results of older versions do not say what was expected."""
    assert words in meaning(probe("perplexity_shift", verdict, evidence={"expect": expect}))


def test_how_sure_it_is() -> None:
    """The interval with its number of values, and z with its number of random adapters."""
    few = {"random_adapters": {"n": 3}}
    sure = certainty(probe(ci_95=(0.1, 0.3), n=6, z_score=12.0, evidence=few))
    assert sure == (
        "95 % interval 0.1 to 0.3 from 6 values; 24 would halve it; "
        "z +12 of 3 random adapters, fewer than 8, so z is rough"
    )
    equal = certainty(probe(ci_95=(0.0, 0.0), n=6, z_score=-3.0))
    assert equal == "95 % interval 0 to 0 from 6 values; z -3"
    many = {"random_adapters": {"n": 8}}
    assert certainty(probe(n=1, z_score=12.0, evidence=many)) == (
        "one value alone, so there is no interval; z +12 of 8 random adapters"
    )
    assert certainty(probe(n=4)).endswith("without z: no random adapters before it")
    assert "equal or one" in certainty(probe(n=4, evidence=few))
    assert certainty(probe("null_adapter")) == ""
    assert "from 2 prompts" in certainty(
        probe("prompt_collapse", evidence={"per_prompt": [[1], [1]]})
    )


def test_hostile_evidence_is_no_error() -> None:
    """Of any shape."""
    for value in ([], "a", 3, None, {"n": "many"}):
        found = {
            "random_adapters": value,
            "thresholds": value,
            "per_prompt": value,
            "expect": value,
        }
        for kind in PROBES:
            for z in (None, 1.0):
                assert meaning(probe(kind, "fail", raw=1.0, z_score=z, evidence=found))
                certainty(probe(kind, z_score=z, evidence=found))
