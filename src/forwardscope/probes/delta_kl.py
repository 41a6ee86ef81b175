"""`delta_kl`: how much the adapter changes the next-token distribution.

For each prompt, the divergence between the next-token distributions of the base
and the fine-tuned model is measured. The raw value is the mean, in nats.

**Verdict.** With a null baseline, passes where z >= `min_z`. Without one, or where
the baseline's deviation is 0, passes where mean >= `min_mean`. Its default is about
ten times the mean of random adapters on the demo's model. A deviation that is estimated
from few random adapters is uncertain (see `null_adapter`), so the message also gives the
ratio of the mean to the largest random adapter's.

**Score.** 1 - 2 ** -(x / t), where x and t are z and `min_z`, or the mean and
`min_mean`: 0 for no change, 0.5 at the threshold.

**Interval.** 95 % percentile bootstrap of the mean over prompts, drawn with the
suite's seed; none for a single prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from forwardscope.probes.base import (
    Outcome,
    Probe,
    ProbeContext,
    Prompt,
    PromptProbe,
    Threshold,
    Verdict,
    score_against,
)
from forwardscope.probes.bootstrap import bootstrap_interval
from forwardscope.probes.calibration import NullStats
from forwardscope.probes.divergence import divergences
from forwardscope.text import factor, plural

__all__ = ["DeltaKL"]


class DeltaKL(PromptProbe):
    """Mean divergence between base and fine-tuned next-token distributions.

    Attributes:
        min_mean: Mean to pass without a baseline, in nats.
        min_z: z to pass with a baseline, in standard deviations.
    """

    kind: Literal["delta_kl"] = "delta_kl"
    min_mean: Threshold = 0.005
    min_z: Threshold = 3.0

    def run(self, context: ProbeContext) -> Outcome:
        """Score all prompts in both views and compare the distributions."""
        k, prompts = self.k(context), context.render(self.prompts)
        with context.backend.as_base() as base:
            before = base.next_token_dist_batch(prompts, top_k=k)
        with context.backend.as_finetuned() as tuned:
            after = tuned.next_token_dist_batch(prompts, top_k=k)
        per_prompt = divergences(before, after, self.divergence)
        return self._judge(per_prompt, context, prompts)

    def calibration(self, sentinels: tuple[Prompt, ...]) -> Probe:
        """Return a probe that measures the same divergence on the sentinel prompts."""
        return DeltaKL(name="null", prompts=sentinels, top_k=self.top_k, divergence=self.divergence)

    def _judge(
        self, per_prompt: list[float], context: ProbeContext, prompts: Sequence[str]
    ) -> Outcome:
        mean = float(np.mean(per_prompt))
        null = self._null(context)
        z = None if null is None else null.z_score(mean)
        measured, threshold = (mean, self.min_mean) if z is None else (z, self.min_z)
        message = f"mean {self.divergence} {mean:.4f} nats, "
        if null is None or z is None:
            message += f"minimum {self.min_mean:g} (no baseline)"
        else:
            message += (
                f"{factor(mean / null.largest)} times the largest of "
                f"{plural(null.n, 'random adapter')}, z {z:+.1f}, minimum {self.min_z:g}"
            )
        return Outcome(
            verdict=Verdict.PASS if measured >= threshold else Verdict.FAIL,
            message=message,
            score=score_against(measured, threshold),
            raw=mean,
            z_score=z,
            ci_95=bootstrap_interval(per_prompt, context.seed),
            n=len(per_prompt),
            evidence={
                "divergence": self.divergence,
                "per_prompt": per_prompt,
                **context.named(prompts),
                "random_adapters": None if null is None else null.to_evidence(),
                "thresholds": {"min_mean": self.min_mean, "min_z": self.min_z},
            },
        )

    def _null(self, context: ProbeContext) -> NullStats | None:
        if context.baseline is None:
            return None
        return context.baseline.stats.get(self.calibration(context.baseline.sentinels))
