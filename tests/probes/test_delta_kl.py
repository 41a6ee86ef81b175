"""`delta_kl`: mean divergence between base and fine-tuned model, verdict and interval."""

from __future__ import annotations

import numpy as np
import pytest

from forwardscope import MISS
from forwardscope.backends import TokenDist
from forwardscope.errors import NonFiniteError
from forwardscope.probes import DeltaKL, ProbeContext, Verdict
from forwardscope.probes.base import score_against
from forwardscope.probes.calibration import NullBaseline, NullStats
from forwardscope.probes.divergence import divergence
from forwardscope.testing import ScriptedBackend, ScriptedView, pseudo_random_logits

PROMPTS = ("one", "two", "three")


def distributions(view_name: str, top_k: int) -> list[TokenDist]:
    """Return the distributions of all prompts from a new backend."""
    backend = ScriptedBackend()
    with backend.as_base() if view_name == "base" else backend.as_finetuned() as view:
        return view.next_token_dist_batch(PROMPTS, top_k=top_k)


def baseline(probe: DeltaKL, mean: float, std: float) -> NullBaseline:
    """Return a baseline for the probe with one sentinel prompt."""
    return NullBaseline(("calm",), {probe.calibration(("calm",)): NullStats(mean, std, 3, 0.01)})


@pytest.mark.parametrize("kind", ["js", "kl"])
def test_raw_is_the_mean_over_prompts(kind: str) -> None:
    """The raw value is the mean divergence of the fine-tuned from the base distribution."""
    probe = DeltaKL(name="change", prompts=PROMPTS, divergence=kind, top_k=8)
    outcome = probe.run(ProbeContext(ScriptedBackend()))
    pairs = zip(distributions("base", 8), distributions("ft", 8), strict=True)
    expected = [divergence(base, tuned, probe.divergence) for base, tuned in pairs]
    assert outcome.evidence["divergence"] == kind
    assert outcome.evidence["per_prompt"] == expected
    assert outcome.raw == pytest.approx(np.mean(expected), rel=1e-12)


def test_each_view_is_one_batch() -> None:
    """There are two forward batches: base, then fine-tuned."""
    backend = ScriptedBackend()
    DeltaKL(name="change", prompts=PROMPTS).run(ProbeContext(backend))
    assert backend.forward_batches == [("base", list(PROMPTS)), ("ft", list(PROMPTS))]


@pytest.mark.parametrize(("own", "used"), [(None, 16), (4, 4)])
def test_top_k_reaches_the_views(own: int | None, used: int) -> None:
    """Lookups have the `top_k` of the probe, or of the suite if it has none."""
    backend = ScriptedBackend()
    DeltaKL(name="change", prompts=PROMPTS, top_k=own).run(ProbeContext(backend, top_k=16))
    cache = backend.instrumentation.cache
    assert len(cache) == 6
    assert cache.get(("next_token_dist", "base", "one", used)) is not MISS


def test_without_a_baseline_the_mean_decides() -> None:
    """A mean of `min_mean` passes with a score of 0.5; a lower one fails."""
    context = ProbeContext(ScriptedBackend())
    mean = DeltaKL(name="change", prompts=PROMPTS).run(context).raw
    assert mean is not None
    at = DeltaKL(name="change", prompts=PROMPTS, min_mean=mean).run(context)
    above = DeltaKL(name="change", prompts=PROMPTS, min_mean=mean * 2).run(context)
    assert (at.verdict, at.score, at.z_score) == (Verdict.PASS, 0.5, None)
    assert (above.verdict, above.z_score) == (Verdict.FAIL, None)
    assert above.score == pytest.approx(1 - 2**-0.5)
    assert "no baseline" in at.message


@pytest.mark.parametrize(
    ("distance", "verdict"), [(3.5, Verdict.PASS), (2.5, Verdict.FAIL), (-4.0, Verdict.FAIL)]
)
def test_with_a_baseline_z_decides(distance: float, verdict: Verdict) -> None:
    """The z-score is (raw - mean) / deviation; `min_mean` is not used."""
    lenient = verdict is Verdict.FAIL
    probe = DeltaKL(name="change", prompts=PROMPTS, min_mean=1e-9 if lenient else 100.0)
    backend = ScriptedBackend()
    raw = probe.run(ProbeContext(backend)).raw
    assert raw is not None
    null = baseline(probe, raw - distance * 0.01, 0.01)
    outcome = probe.run(ProbeContext(backend, baseline=null))
    assert outcome.verdict is verdict
    assert outcome.z_score == pytest.approx(distance)
    assert outcome.score == pytest.approx(score_against(distance, 3.0))
    assert outcome.message.endswith(
        f"{raw / 0.01:.3g} times the largest of 3 random adapters, z {distance:+.1f}, minimum 3"
    )


def test_a_baseline_of_another_calibration_is_not_used() -> None:
    """A baseline of another divergence gives no z-score."""
    probe = DeltaKL(name="change", prompts=PROMPTS)
    other = DeltaKL(name="change", prompts=PROMPTS, divergence="kl")
    context = ProbeContext(ScriptedBackend(), baseline=baseline(other, 0.0, 1.0))
    assert probe.run(context).z_score is None


def test_a_baseline_without_deviation_is_not_used() -> None:
    """If all random adapters agree there is no z-score, and the mean decides."""
    probe = DeltaKL(name="change", prompts=PROMPTS, min_mean=100.0)
    outcome = probe.run(ProbeContext(ScriptedBackend(), baseline=baseline(probe, 0.0, 0.0)))
    assert (outcome.verdict, outcome.z_score) == (Verdict.FAIL, None)


def test_no_change_scores_0() -> None:
    """Equal views have a raw value, a score and an interval of 0."""

    def unmoved(view: ScriptedView, prompt: str) -> np.ndarray:
        return pseudo_random_logits(view, prompt, change=0.0)

    outcome = DeltaKL(name="change", prompts=PROMPTS).run(ProbeContext(ScriptedBackend(unmoved)))
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.FAIL, 0.0, 0.0)
    assert outcome.ci_95 == (0.0, 0.0)


def test_non_finite_logits_are_an_error() -> None:
    """A NaN raises an error with the view."""

    def broken(view: ScriptedView, prompt: str) -> np.ndarray:
        logits = pseudo_random_logits(view, prompt)
        return logits * np.nan if view.id == "ft" and prompt == "two" else logits

    with pytest.raises(NonFiniteError, match="'ft'"):
        DeltaKL(name="change", prompts=PROMPTS).run(ProbeContext(ScriptedBackend(broken)))


def test_interval_depends_on_the_seed() -> None:
    """The same seed gives the same interval, and another seed a different one."""
    probe = DeltaKL(name="change", prompts=[f"prompt {i}" for i in range(20)])
    one, same, other = (
        probe.run(ProbeContext(ScriptedBackend(), seed=seed)).ci_95 for seed in (1, 1, 2)
    )
    assert one == same != other


def test_one_prompt_has_no_interval() -> None:
    """A single value has no interval."""
    probe = DeltaKL(name="change", prompts=["one"])
    assert probe.run(ProbeContext(ScriptedBackend())).ci_95 is None
