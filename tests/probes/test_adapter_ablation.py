"""`adapter_ablation`: the curve of divergence over the adapter's scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from pydantic import ValidationError

from forwardscope.probes import AdapterAblation, Outcome, ProbeContext, Verdict
from forwardscope.probes.adapter_ablation import r_squared, saturation
from forwardscope.probes.divergence import divergences
from forwardscope.testing import ScriptedBackend, ScriptedView

PROMPTS = ("one", "two")
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
FloatArray = npt.NDArray[np.float64]


def backend_with(effect: Callable[[float], float]) -> ScriptedBackend:
    """Return a backend whose first logit depends on the adapter's scale."""

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        return np.array([1.0 + len(prompt) / 8 + effect(view.strength), 0.5, 0.0, -0.5])

    return ScriptedBackend(script, vocab_size=4)


def run(effect: Callable[[float], float], **settings: object) -> Outcome:
    """Run the probe on a backend with this effect of the scale."""
    probe = AdapterAblation(name="response", prompts=PROMPTS, **settings)
    return probe.run(ProbeContext(backend_with(effect)))


def test_each_scale_is_one_batch() -> None:
    """λ=0 is the base view, λ=1 the fine-tuned view, and the reference λ=0 is computed once."""
    backend = backend_with(lambda strength: strength)
    AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(backend))
    views = ("base", "scaled_0.25", "scaled_0.5", "scaled_0.75", "ft", "scaled_1.25")
    assert backend.forward_batches == [(view, list(PROMPTS)) for view in views]
    assert backend.instrumentation.stats.cache_hits == len(PROMPTS)


def test_the_reference_need_not_be_a_scale() -> None:
    """Divergence is from λ=0, also if `lambdas` does not contain 0."""
    backend = backend_with(lambda strength: strength)
    probe = AdapterAblation(name="response", prompts=PROMPTS, lambdas=(0.5, 1.0, 2.0))
    probe.run(ProbeContext(backend))
    views = [view for view, _ in backend.forward_batches]
    assert views == ["base", "scaled_0.5", "ft", "scaled_2.0"]


def test_evidence_has_the_curve() -> None:
    """The evidence has the mean divergence from λ=0 and that of each prompt, by scale."""
    backend = backend_with(lambda strength: strength)
    outcome = AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(backend))
    dists = []
    for lam in LAMBDAS:
        with backend.as_scaled_adapter(lam) as view:
            dists.append(view.next_token_dist_batch(PROMPTS))
    per_lambda = np.array([divergences(dists[0], scaled, "js") for scaled in dists])
    evidence = outcome.evidence
    assert evidence["divergence"] == "js"
    assert evidence["lambdas"] == list(LAMBDAS)
    assert evidence["mean_divergence_per_lambda"] == pytest.approx(per_lambda.mean(axis=1))
    assert evidence["per_prompt"] == per_lambda.T.tolist()
    assert evidence["mean_divergence_per_lambda"][0] == 0.0


def test_a_steady_curve_passes() -> None:
    """A nearly linear divergence passes with a high score."""
    outcome = run(math.sqrt)
    evidence = outcome.evidence
    means = np.array(evidence["mean_divergence_per_lambda"])
    assert outcome.verdict is Verdict.PASS
    assert outcome.raw == evidence["linearity"] == r_squared(np.array(LAMBDAS), means)
    assert evidence["linearity"] > 0.98
    assert evidence["saturation_lambda"] == 1.25
    assert "no saturation up to λ=1.25 (minimum 0.3)" in outcome.message
    assert evidence["overshoot"] > 1.0
    assert outcome.score == pytest.approx((evidence["linearity"] + 1 + 1) / 3)
    assert (outcome.z_score, outcome.ci_95) == (None, None)


def test_an_early_saturation_fails() -> None:
    """An effect that is complete at λ=0.25 fails by saturation."""
    outcome = run(lambda strength: min(strength, 0.25))
    evidence = outcome.evidence
    assert outcome.verdict is Verdict.FAIL
    assert evidence["saturation_lambda"] == 0.25
    assert evidence["overshoot"] == 1.0
    assert outcome.score == pytest.approx((evidence["linearity"] + 0 + 1) / 3)
    assert "saturation at λ=0.25 (minimum 0.3)" in outcome.message


def test_a_collapse_beyond_full_strength_fails() -> None:
    """An effect that is gone at λ=1.25 has an overshoot of 0."""
    outcome = run(lambda strength: math.sqrt(strength) if strength <= 1 else 0.0)
    assert outcome.verdict is Verdict.FAIL
    assert outcome.evidence["overshoot"] == 0.0
    assert outcome.score == pytest.approx((outcome.evidence["linearity"] + 1 + 0) / 3)


def test_each_threshold_can_fail_alone() -> None:
    """One threshold that is not reached fails the probe."""
    assert run(math.sqrt, min_linearity=1.0).verdict is Verdict.FAIL
    assert run(math.sqrt, min_saturation=1.5).verdict is Verdict.FAIL
    assert run(math.sqrt, min_overshoot=5.0).verdict is Verdict.FAIL
    assert run(math.sqrt, min_linearity=0.9, min_saturation=1.25).verdict is Verdict.PASS


def test_score_of_overshoot() -> None:
    """Half of `min_overshoot` gives half of its part of the score."""
    overshoot = run(math.sqrt).evidence["overshoot"]
    outcome = run(math.sqrt, min_overshoot=2 * overshoot)
    assert outcome.score == pytest.approx((outcome.evidence["linearity"] + 1 + 0.5) / 3)


def test_a_flat_curve_is_not_linear() -> None:
    """A constant curve has an R² of 0, without a warning."""
    outcome = run(lambda strength: 1.0 if strength else 0.0, lambdas=(0.5, 1.0, 1.5))
    assert (outcome.verdict, outcome.raw) == (Verdict.FAIL, 0.0)
    assert outcome.evidence["saturation_lambda"] == 0.5


@pytest.mark.parametrize(
    "effect", [lambda strength: 0.0, lambda strength: 1.0 if strength == 0.5 else 0.0]
)
def test_without_an_effect_at_full_strength_there_is_no_curve(
    effect: Callable[[float], float],
) -> None:
    """An adapter without effect at λ=1 fails with a score of 0 and no raw value."""
    outcome = run(effect)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.FAIL, None, 0.0)
    assert "no effect at λ=1" in outcome.message
    assert len(outcome.evidence["mean_divergence_per_lambda"]) == len(LAMBDAS)


def test_a_backend_that_cannot_scale_is_skipped(plain_backend: object) -> None:
    """A backend without scaled views gives the verdict skip."""
    outcome = AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(plain_backend))
    assert (outcome.verdict, outcome.score) == (Verdict.SKIP, None)
    assert plain_backend.instrumentation.stats.total_lookups == 0


def test_the_reason_of_a_backend_is_the_message(plain_backend: Any) -> None:
    """A backend that names why it has no scaled views gives the message of the skip."""
    plain_backend.refused_views = {"scaled": "there is no adapter"}
    outcome = AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(plain_backend))
    assert (outcome.verdict, outcome.message) == (Verdict.SKIP, "there is no adapter")


def test_it_has_no_calibration() -> None:
    """The shape of the curve is no evidence of training."""
    assert AdapterAblation(name="response", prompts=PROMPTS).calibration(("calm",)) is None


@pytest.mark.parametrize(
    ("lambdas", "message"),
    [
        ((0.0, 0.5, 0.75), "must contain 1.0"),
        ((0.0, 1.0, 0.5), "strictly increasing"),
        ((0.0, 1.0, 1.0), "strictly increasing"),
        ((0.0, 1.0), "at least 3"),
        ((-0.5, 0.0, 1.0), "greater than or equal to 0"),
        ((0.0, 1.0, math.inf), "finite"),
        ((0.0, 1.0, math.nan), "finite"),
    ],
)
def test_invalid_scales(lambdas: tuple[float, ...], message: str) -> None:
    """At least three increasing, finite, non-negative scales with 1.0 are required."""
    with pytest.raises(ValidationError, match=message):
        AdapterAblation(name="response", prompts=PROMPTS, lambdas=lambdas)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8))
def test_r_squared_agrees_with_a_fit(values: list[float]) -> None:
    """It is the share of variance that a least-squares line explains."""
    assume(np.std(values) > 1e-3)
    x, y = np.arange(len(values), dtype=float), np.array(values)
    fitted = np.polyval(np.polyfit(x, y, 1), x)
    expected = 1 - np.sum((y - fitted) ** 2) / np.sum((y - y.mean()) ** 2)
    assert r_squared(x, y) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.0, 0.5, 1.0], 2.0),
        ([0.0, 0.89, 1.0], 2.0),
        ([0.0, 0.9, 1.0], 1.0),
        ([1.0, 0.95, 0.2], 0.0),
        ([0.0, 1.0, 0.1], 1.0),
    ],
)
def test_saturation_is_the_first_scale_at_90_percent(curve: list[float], expected: float) -> None:
    """It is the smallest scale with 90 % of the maximum, wherever the maximum is."""
    assert saturation(np.array([0.0, 1.0, 2.0]), np.array(curve)) == expected
