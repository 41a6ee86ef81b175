"""`adapter_ablation`: the curve of divergence over the adapter's strength."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def pushed(effect: Callable[[float], float]) -> ScriptedBackend:
    """Make a backend whose first logit moves by a function of the adapter's strength."""

    def script(view: ScriptedView, prompt: str) -> FloatArray:
        return np.array([1.0 + len(prompt) / 8 + effect(view.strength), 0.5, 0.0, -0.5])

    return ScriptedBackend(script, vocab_size=4)


def run(effect: Callable[[float], float], **settings: object) -> Outcome:
    """Run the probe on such a backend."""
    probe = AdapterAblation(name="response", prompts=PROMPTS, **settings)
    return probe.run(ProbeContext(pushed(effect)))


def test_each_scale_is_asked_once_for_all_prompts() -> None:
    """One batch a scale: λ=0 is the base and λ=1 the tuned view, and λ=0 is not paid twice."""
    backend = pushed(lambda strength: strength)
    AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(backend))
    views = ("base", "scaled_0.25", "scaled_0.5", "scaled_0.75", "ft", "scaled_1.25")
    assert backend.forward_batches == [(view, list(PROMPTS)) for view in views]
    assert backend.instrumentation.stats.cache_hits == len(PROMPTS)


def test_the_reference_is_asked_where_the_scales_leave_it_out() -> None:
    """Divergence is from λ=0, also where the suite's scales begin later."""
    backend = pushed(lambda strength: strength)
    probe = AdapterAblation(name="response", prompts=PROMPTS, lambdas=(0.5, 1.0, 2.0))
    probe.run(ProbeContext(backend))
    views = [view for view, _ in backend.forward_batches]
    assert views == ["base", "scaled_0.5", "ft", "scaled_2.0"]


def test_evidence_has_the_curve() -> None:
    """Each mean is over the prompts, of the divergence of that scale from λ=0."""
    backend = pushed(lambda strength: strength)
    outcome = AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(backend))
    asked = []
    for lam in LAMBDAS:
        with backend.as_scaled_adapter(lam) as view:
            asked.append(view.next_token_dist_batch(PROMPTS))
    per_lambda = np.array([divergences(asked[0], dists, "js") for dists in asked])
    evidence = outcome.evidence
    assert evidence["divergence"] == "js"
    assert evidence["lambdas"] == list(LAMBDAS)
    assert evidence["mean_divergence_per_lambda"] == pytest.approx(per_lambda.mean(axis=1))
    assert evidence["per_prompt"] == per_lambda.T.tolist()
    assert evidence["mean_divergence_per_lambda"][0] == 0.0


def test_linearity_is_of_a_least_squares_line() -> None:
    """The raw value is the R² of numpy's own fit."""
    outcome = run(lambda strength: strength**3)
    means = np.array(outcome.evidence["mean_divergence_per_lambda"])
    fitted = np.polyval(np.polyfit(LAMBDAS, means, 1), LAMBDAS)
    residual = np.sum((means - fitted) ** 2) / np.sum((means - means.mean()) ** 2)
    assert outcome.raw == pytest.approx(1 - residual, rel=1e-9)
    assert outcome.evidence["linearity"] == outcome.raw


def test_a_steady_curve_passes() -> None:
    """Divergence that grows about evenly is linear, not saturated, and overshoots one."""
    outcome = run(math.sqrt)
    evidence = outcome.evidence
    assert outcome.verdict is Verdict.PASS
    assert evidence["linearity"] > 0.98
    assert evidence["saturation_lambda"] == 1.25
    assert evidence["overshoot"] > 1.0
    assert outcome.score == pytest.approx((evidence["linearity"] + 1 + 1) / 3)
    assert (outcome.z_score, outcome.ci_95) == (None, None)


def test_an_early_saturation_fails() -> None:
    """An adapter that does everything at a quarter of its strength is fragile."""
    outcome = run(lambda strength: min(strength, 0.25))
    evidence = outcome.evidence
    assert outcome.verdict is Verdict.FAIL
    assert evidence["saturation_lambda"] == 0.25
    assert evidence["overshoot"] == 1.0
    assert outcome.score == pytest.approx((evidence["linearity"] + 0 + 1) / 3)
    assert "saturation at λ=0.25 (0.3 wanted)" in outcome.message


def test_a_collapse_beyond_full_strength_fails() -> None:
    """An effect that is gone at λ=1.25 has an overshoot of nothing."""
    outcome = run(lambda strength: math.sqrt(strength) if strength <= 1 else 0.0)
    assert outcome.verdict is Verdict.FAIL
    assert outcome.evidence["overshoot"] == 0.0
    assert outcome.score == pytest.approx((outcome.evidence["linearity"] + 1 + 0) / 3)


def test_each_threshold_can_fail_alone() -> None:
    """The same curve passes or fails by the probe's own bounds."""
    assert run(math.sqrt, min_linearity=1.0).verdict is Verdict.FAIL
    assert run(math.sqrt, min_saturation=1.5).verdict is Verdict.FAIL
    assert run(math.sqrt, min_overshoot=5.0).verdict is Verdict.FAIL
    assert run(math.sqrt, min_linearity=0.9, min_saturation=1.25).verdict is Verdict.PASS


def test_overshoot_scores_by_its_share_of_the_bound() -> None:
    """An overshoot halfway to the bound gives half of its part of the score."""
    overshoot = run(math.sqrt).evidence["overshoot"]
    outcome = run(math.sqrt, min_overshoot=2 * overshoot)
    assert outcome.score == pytest.approx((outcome.evidence["linearity"] + 1 + 0.5) / 3)


def test_a_flat_curve_is_not_linear() -> None:
    """Where every scale does the same, a line explains nothing, and nothing warns."""
    outcome = run(lambda strength: 1.0 if strength else 0.0, lambdas=(0.5, 1.0, 1.5))
    assert (outcome.verdict, outcome.raw) == (Verdict.FAIL, 0.0)
    assert outcome.evidence["saturation_lambda"] == 0.5


@pytest.mark.parametrize(
    "effect", [lambda strength: 0.0, lambda strength: 1.0 if strength == 0.5 else 0.0]
)
def test_without_an_effect_at_full_strength_there_is_no_curve(
    effect: Callable[[float], float],
) -> None:
    """An adapter that changes nothing fails with a score of 0 and no raw value."""
    outcome = run(effect)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.FAIL, None, 0.0)
    assert "changes nothing at full strength" in outcome.message
    assert len(outcome.evidence["mean_divergence_per_lambda"]) == len(LAMBDAS)


def test_a_backend_that_cannot_scale_is_skipped(plain_backend: object) -> None:
    """No scaled views, no verdict."""
    outcome = AdapterAblation(name="response", prompts=PROMPTS).run(ProbeContext(plain_backend))
    assert (outcome.verdict, outcome.score) == (Verdict.SKIP, None)
    assert plain_backend.instrumentation.stats.total_lookups == 0


def test_it_opts_out_of_calibration() -> None:
    """A random adapter has such a curve too, so there is nothing to calibrate."""
    assert AdapterAblation(name="response", prompts=PROMPTS).calibration(("calm",)) is None


@pytest.mark.parametrize(
    ("lambdas", "why"),
    [
        ((0.0, 0.5, 0.75), "must hold 1.0"),
        ((0.0, 1.0, 0.5), "must rise"),
        ((0.0, 1.0, 1.0), "must rise"),
        ((0.0, 1.0), "at least 3"),
        ((-0.5, 0.0, 1.0), "greater than or equal to 0"),
        ((0.0, 1.0, math.inf), "finite"),
        ((0.0, 1.0, math.nan), "finite"),
    ],
)
def test_scales_must_be_usable(lambdas: tuple[float, ...], why: str) -> None:
    """Scales rise, hold 1.0, are at least three, and are finite and not negative."""
    with pytest.raises(ValidationError, match=why):
        AdapterAblation(name="response", prompts=PROMPTS, lambdas=lambdas)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8))
def test_r_squared_agrees_with_a_fit(values: list[float]) -> None:
    """It is the share of variance that numpy's straight line explains."""
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
def test_saturation_is_the_first_to_reach_nine_tenths(curve: list[float], expected: float) -> None:
    """The smallest scale with 90 % of the maximum counts, wherever the maximum is."""
    assert saturation(np.array([0.0, 1.0, 2.0]), np.array(curve)) == expected
