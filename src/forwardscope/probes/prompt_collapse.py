"""`prompt_collapse`: how the adapter's influence changes with the length of the context.

Neutral filler of increasing length precedes each prompt, or the whole of a chat, and the mean
divergence between base and fine-tuned model is measured at each length. The raw
value is the half-life: the filler length over which the divergence halves, in
tokens, from a straight line through its logarithm. A half-life beyond the longest
filler is an extrapolation, and the message says so. The filler of `HFBackend` is
the tokenizer's pad token (else unk, else eos) repeated, then a blank line.

Lengths that do not fit the model's context are reduced to the longest filler
that fits before every prompt, and the message says so. Where fewer than two
lengths remain, the probe is skipped.

**Verdict.** Passes where the half-life is at least `min_half_life` tokens, or
where divergence does not fall with length.

**Score.** 1 - 2 ** -(half-life / `min_half_life`): 0.5 at the threshold. 1 where
divergence does not fall with length, so that there is no half-life.

**Degenerate case.** Where the adapter has no effect at some length, there is no
logarithm to fit: no raw value, score 0, fail.

**No calibration.** A random adapter has no trained influence that could decay.
On most seeds its divergence does not fall with length and there is no half-life,
so a mean and a deviation of half-lives are not meaningful; `null_adapter` does
not calibrate this probe.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from forwardscope.backends.base import Backend
from forwardscope.probes.base import (
    Outcome,
    ProbeContext,
    PromptProbe,
    Threshold,
    Verdict,
    score_against,
)
from forwardscope.probes.divergence import FloatArray, divergences
from forwardscope.text import plural

__all__ = ["PromptCollapse", "half_life"]


def _check_lengths(lengths: tuple[int, ...]) -> tuple[int, ...]:
    if list(lengths) != sorted(set(lengths)):
        raise ValueError("must be strictly increasing")
    return lengths


Lengths = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(strict=False, min_length=2),
    AfterValidator(_check_lengths),
]


class PromptCollapse(PromptProbe):
    """Decay of the adapter's influence with the context length.

    Attributes:
        context_lengths: Tokens of filler before each prompt, increasing.
        min_half_life: Tokens over which the influence halves, to pass.
    """

    kind: Literal["prompt_collapse"] = "prompt_collapse"
    context_lengths: Lengths = (0, 256, 512, 1024)
    min_half_life: Threshold = 512.0

    def run(self, context: ProbeContext) -> Outcome:
        """Score all prompts at all lengths in both views and fit the decay."""
        prompts = context.render(self.prompts)
        limit = _longest_filler(context.backend, prompts)
        lengths = sorted({min(length, limit) for length in self.context_lengths})
        if len(lengths) < 2:
            message = (
                f"at most {plural(limit, 'token')} of filler fit the model's context before these "
                "prompts, and two lengths are needed; use smaller context_lengths or shorter "
                "prompts"
            )
            return Outcome(Verdict.SKIP, message)
        fillers = [context.backend.filler(length) for length in lengths]
        extended = [filler + prompt for filler in fillers for prompt in prompts]
        k = self.k(context)
        with context.backend.as_base() as base:
            before = base.next_token_dist_batch(extended, top_k=k)
        with context.backend.as_finetuned() as tuned:
            after = tuned.next_token_dist_batch(extended, top_k=k)
        per_length = np.reshape(divergences(before, after, self.divergence), (len(fillers), -1))
        means = per_length.mean(axis=1)
        evidence = {
            "divergence": self.divergence,
            "context_lengths": lengths,
            "mean_divergence_per_length": means.tolist(),
            "per_prompt": per_length.T.tolist(),
            **context.named(prompts),
            "thresholds": {"min_half_life": self.min_half_life},
        }
        outcome = self._judge(lengths, means, evidence)
        if lengths[-1] < self.context_lengths[-1]:
            note = (
                f"filler of {plural(lengths[-1], 'token')}, the most that fit the model's context"
            )
            return replace(outcome, message=f"{outcome.message} ({note})")
        return outcome

    def _judge(self, lengths: list[int], means: FloatArray, evidence: dict[str, object]) -> Outcome:
        if means.max() <= 0:
            message = "the adapter has no effect at any length of the context"
            return Outcome(Verdict.FAIL, message, score=0.0, evidence=evidence)
        if means.min() <= 0:
            length = lengths[int(means.argmin())]
            message = f"base and fine-tuned model agree after {plural(length, 'token')} of filler"
            return Outcome(Verdict.FAIL, message, score=0.0, evidence=evidence)
        life = half_life(np.asarray(lengths, dtype=np.float64), means)
        if life is None:
            message = "divergence does not fall with context, so there is no half-life"
            return Outcome(Verdict.PASS, message, score=1.0, evidence=evidence)
        message = f"half-life {life:.0f} tokens, minimum {self.min_half_life:g}"
        if life > lengths[-1]:
            message += f"; extrapolated, the longest filler has {plural(lengths[-1], 'token')}"
        return Outcome(
            verdict=Verdict.PASS if life >= self.min_half_life else Verdict.FAIL,
            message=message,
            score=score_against(life, self.min_half_life),
            raw=life,
            evidence=evidence,
        )


def _longest_filler(backend: Backend, prompts: Sequence[str]) -> int:
    """Return the most tokens of filler that fit the context before every prompt."""
    longest_filler = getattr(backend, "longest_filler", None)
    if longest_filler is None:
        return sys.maxsize
    limits = (longest_filler(prompt) for prompt in prompts)
    return min((limit for limit in limits if limit is not None), default=sys.maxsize)


def half_life(lengths: FloatArray, divergences: FloatArray) -> float | None:
    """Return the filler length over which divergence halves, in tokens.

    Fits log divergence as a straight line of length (least squares); then
    half-life = -ln 2 / slope.

    Args:
        lengths: Lengths of the filler in tokens, shape (n,), n >= 2.
        divergences: Mean divergence at each length in nats, shape (n,), > 0.

    Returns:
        The half-life, or None where divergence does not fall with length.
    """
    centred = lengths - lengths.mean()
    logs = np.log(divergences)
    # minus logs[0], so that equal divergences give a slope of exactly 0.0
    slope = float(centred @ (logs - logs[0]) / (centred @ centred))
    return None if slope >= 0 else -math.log(2.0) / slope
