"""`adapter_ablation`: how the adapter's effect grows with its scale.

The adapter's change is multiplied by each λ, and the mean divergence from λ=0
over the prompts is measured. Three numbers describe the curve:

- *linearity*: R² of a straight line through the curve (least squares). A curve
  that rises in one step scores low. This is the raw value.
- *saturation*: the smallest λ whose divergence reaches 90 % of the maximum. A
  small value means that a fraction of the adapter's change has almost the whole
  effect: the adapter is fragile, and probably overtrained.
- *overshoot*: div(λmax) / div(1). A value below 1 means that the effect shrinks
  when the adapter is scaled beyond λ=1.

**Verdict.** Passes where linearity >= `min_linearity`, saturation >=
`min_saturation` and overshoot >= `min_overshoot`. The divergence of a healthy
small adapter grows with λ² at first and flattens later. A straight line through
λ² at the default λs has R² 0.92, so the default of 0.85 accepts both shapes.

**Score.** The mean of three parts: R²; 1 where saturation is in bounds, else 0;
overshoot / `min_overshoot`, at most 1.

**Degenerate case.** An adapter without effect at λ=1 has no curve: no raw value,
score 0, fail.

**No calibration.** A random adapter has a similar curve, so the shape of a curve
is no evidence of training; `null_adapter` does not calibrate this probe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from forwardscope.backends.base import ScalableBackend
from forwardscope.probes.base import (
    Outcome,
    ProbeContext,
    PromptProbe,
    Threshold,
    Verdict,
    skip_without,
)
from forwardscope.probes.divergence import FloatArray, divergences

__all__ = ["AdapterAblation", "r_squared", "saturation"]

_SATURATION_SHARE = 0.9


def _check_lambdas(lambdas: tuple[float, ...]) -> tuple[float, ...]:
    if 1.0 not in lambdas:
        raise ValueError("must contain 1.0, the reference of overshoot")
    if list(lambdas) != sorted(set(lambdas)):
        raise ValueError("must be strictly increasing")
    return lambdas


Lambda = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Lambdas = Annotated[
    tuple[Lambda, ...], Field(strict=False, min_length=3), AfterValidator(_check_lambdas)
]


class AdapterAblation(PromptProbe):
    """Effect of the adapter at several scales.

    Attributes:
        lambdas: Scales of the adapter, increasing; one is 1.
        min_linearity: R² of a straight line through the curve, to pass.
        min_saturation: Scale that has 90 % of the largest effect, to pass.
        min_overshoot: Effect at the largest scale as a multiple of that at 1, to pass.
    """

    kind: Literal["adapter_ablation"] = "adapter_ablation"
    lambdas: Lambdas = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    min_linearity: Threshold = 0.85
    min_saturation: Threshold = 0.3
    min_overshoot: Threshold = 1.0

    def run(self, context: ProbeContext) -> Outcome:
        """Score all prompts in each scaled view and compare them with λ=0."""
        if not isinstance(context.backend, ScalableBackend):
            return skip_without(context.backend, "scaled", "this backend cannot scale its adapter")
        prompts = context.render(self.prompts)
        per_lambda = np.asarray(self._measure(context.backend, prompts, self.k(context)))
        means = per_lambda.mean(axis=1)
        evidence = {
            "divergence": self.divergence,
            "lambdas": list(self.lambdas),
            "mean_divergence_per_lambda": means.tolist(),
            "per_prompt": per_lambda.T.tolist(),
            **context.named(prompts),
            "thresholds": {
                "min_linearity": self.min_linearity,
                "min_saturation": self.min_saturation,
                "min_overshoot": self.min_overshoot,
            },
        }
        return self._judge(np.asarray(self.lambdas), means, evidence)

    def _measure(
        self, backend: ScalableBackend, prompts: Sequence[str], k: int
    ) -> list[list[float]]:
        with backend.as_scaled_adapter(0.0) as base:
            reference = base.next_token_dist_batch(prompts, top_k=k)
        measured = []
        for lam in self.lambdas:
            with backend.as_scaled_adapter(lam) as scaled:
                dists = scaled.next_token_dist_batch(prompts, top_k=k)
            measured.append(divergences(reference, dists, self.divergence))
        return measured

    def _judge(
        self, lambdas: FloatArray, means: FloatArray, evidence: dict[str, object]
    ) -> Outcome:
        at_one = float(means[self.lambdas.index(1.0)])
        if means.max() <= 0 or at_one <= 0:
            message = "the adapter has no effect at λ=1, so there is no curve"
            return Outcome(Verdict.FAIL, message, score=0.0, evidence=evidence)
        linearity = r_squared(lambdas, means)
        saturated = saturation(lambdas, means)
        overshoot = float(means[-1]) / at_one
        unsaturated = saturated >= self.min_saturation
        passed = linearity >= self.min_linearity and unsaturated and overshoot >= self.min_overshoot
        parts = (linearity, float(unsaturated), min(1.0, overshoot / self.min_overshoot))
        return Outcome(
            verdict=Verdict.PASS if passed else Verdict.FAIL,
            message=f"R² {linearity:.2f} (minimum {self.min_linearity:g}), "
            f"{self._saturation(saturated)} (minimum {self.min_saturation:g}), "
            f"overshoot {overshoot:.2f} (minimum {self.min_overshoot:g})",
            score=math.fsum(parts) / len(parts),
            raw=linearity,
            evidence={
                **evidence,
                "linearity": linearity,
                "saturation_lambda": saturated,
                "overshoot": overshoot,
            },
        )

    def _saturation(self, lam: float) -> str:
        """Describe where the curve saturates; at the largest λ it may still rise."""
        if lam == self.lambdas[-1]:
            return f"no saturation up to λ={lam:g}"
        return f"saturation at λ={lam:g}"


def r_squared(x: FloatArray, y: FloatArray) -> float:
    """Return the share of y's variance that a straight line in x explains, in [0, 1].

    This is the square of Pearson's correlation; 0.0 where y does not vary.

    Args:
        x: Shape (n,), n >= 2, not all equal.
        y: Shape (n,).
    """
    if np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def saturation(lambdas: FloatArray, divergences: FloatArray) -> float:
    """Return the smallest λ whose divergence reaches 90 % of the maximum.

    Args:
        lambdas: Scales in increasing order, shape (n,).
        divergences: Mean divergence at each scale, shape (n,), maximum above 0.
    """
    reached = divergences >= _SATURATION_SHARE * divergences.max()
    return float(lambdas[np.argmax(reached)])
