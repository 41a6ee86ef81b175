"""`completion_preference`: whether the adapter moves the model towards wanted completions.

Each pair has a prompt, a wanted and an unwanted completion. A model's margin for a pair is
log p(wanted | prompt) - log p(unwanted | prompt), in nats over the whole completions; its
shift is the fine-tuned model's margin less the base model's. The raw value is the mean shift.
(The margin is the implicit reward of Rafailov et al., Direct Preference Optimization, 2023,
with beta 1.)

**Verdict.** Passes where the mean shift >= `min_shift` and, with a null baseline whose
deviation is not 0, z >= `min_z`: a random adapter of the same shape moves the margins
too, in any direction.

**Score.** 1 - 2 ** -(mean / `min_shift`): 0 for no shift or one away from the wanted
completions, 0.5 at the threshold.

**Interval.** 95 % percentile bootstrap of the mean over pairs; none for a single pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from forwardscope.backends.base import ScoringView
from forwardscope.core.keys import fold_strings
from forwardscope.errors import ProbeError
from forwardscope.probes.base import (
    Outcome,
    Probe,
    ProbeContext,
    Prompt,
    Threshold,
    Verdict,
    score_against,
)
from forwardscope.probes.bootstrap import bootstrap_interval
from forwardscope.probes.divergence import FloatArray
from forwardscope.text import plural

__all__ = ["CompletionPreference", "Pair"]

_Text = Annotated[str, Field(min_length=1)]


class Pair(BaseModel):
    """A prompt with a completion that is wanted and one that is not.

    Attributes:
        prompt: A text, or a chat.
        wanted: Completion that the adapter should prefer.
        unwanted: Completion that it should not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: Prompt
    wanted: _Text
    unwanted: _Text

    @model_validator(mode="after")
    def _check_that_they_differ(self) -> Self:
        if self.wanted == self.unwanted:
            raise ValueError("wanted and unwanted are equal")
        return self


class CompletionPreference(Probe):
    """Shift of the preference for wanted over unwanted completions.

    Attributes:
        pairs: Prompts, each with a wanted and an unwanted completion.
        min_shift: Mean shift to pass, in nats.
        min_z: z to pass with a baseline, in standard deviations.
    """

    kind: Literal["completion_preference"] = "completion_preference"
    pairs: Annotated[tuple[Pair, ...], Field(strict=False, min_length=1)]
    min_shift: Threshold = 0.5
    min_z: Threshold = 3.0

    def run(self, context: ProbeContext) -> Outcome:
        """Score both completions of all pairs in both views and compare the margins."""
        prompts = context.render([pair.prompt for pair in self.pairs])
        with context.backend.as_base() as base:
            before = self._margins(base, prompts)
        with context.backend.as_finetuned() as tuned:
            after = self._margins(tuned, prompts)
        return self._judge(before, after, context, prompts)

    def calibration(self, sentinels: tuple[Prompt, ...]) -> Probe:  # noqa: ARG002 - the own pairs
        """Return a probe that measures the shift of the same pairs."""
        return CompletionPreference(name="null", pairs=self.pairs)

    def _margins(self, view: ScoringView, prompts: Sequence[str]) -> FloatArray:
        """Return the margin of each pair, in nats; one forward call."""
        wanted = [(at, pair.wanted) for at, pair in zip(prompts, self.pairs, strict=True)]
        unwanted = [(at, pair.unwanted) for at, pair in zip(prompts, self.pairs, strict=True)]
        logprobs = np.asarray(view.logprob_of_batch(wanted + unwanted), dtype=np.float64)
        if not np.isfinite(logprobs).all():
            raise ProbeError(
                "a completion has a non-finite log-probability; check the model's logits"
            )
        return logprobs[: len(wanted)] - logprobs[len(wanted) :]

    def _named(self, context: ProbeContext, prompts: Sequence[str]) -> dict[str, list[str]]:
        """Return evidence that names each pair as the trace names its wanted completion."""
        pairs = list(zip(prompts, self.pairs, strict=True))
        return context.named(
            [fold_strings(at, pair.wanted) for at, pair in pairs],
            [f"{at}{pair.wanted} (unwanted: {pair.unwanted})" for at, pair in pairs],
        )

    def _judge(
        self,
        before: FloatArray,
        after: FloatArray,
        context: ProbeContext,
        prompts: Sequence[str],
    ) -> Outcome:
        shifts = (after - before).tolist()
        mean = float(np.mean(shifts))
        null = context.baseline and context.baseline.stats.get(self.calibration(()))
        z = null.z_score(mean) if null else None
        message = (
            f"wanted preferred in {int((after > 0).sum())} of {plural(len(shifts), 'pair')}, by "
            f"the base in {int((before > 0).sum())}; mean shift {mean:+.3f} nats, minimum "
            f"{self.min_shift:g}"
        )
        if null and z is not None:
            message += f"; z {z:+.1f} of {plural(null.n, 'random adapter')}, minimum {self.min_z:g}"
        passed = mean >= self.min_shift and (z is None or z >= self.min_z)
        return Outcome(
            verdict=Verdict.PASS if passed else Verdict.FAIL,
            message=message,
            score=score_against(mean, self.min_shift),
            raw=mean,
            z_score=z,
            ci_95=bootstrap_interval(shifts, context.seed),
            n=len(shifts),
            evidence={
                "margins_base": before.tolist(),
                "margins_tuned": after.tolist(),
                "per_pair": shifts,
                **self._named(context, prompts),
                "random_adapters": null.to_evidence() if null else None,
                "thresholds": {"min_shift": self.min_shift, "min_z": self.min_z},
            },
        )
