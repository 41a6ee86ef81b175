"""`perplexity_shift`: whether the adapter predicts some texts worse, or better, than the base.

The perplexity of both models over all tokens of the texts is measured. The raw value is
their ratio, perplexity of the fine-tuned model / perplexity of the base model:

    ratio = exp(sum over texts (log p_base - log p_tuned) / number of scored tokens)

A text's first token is not scored. Texts that the adapter should leave alone (held-out text
of other subjects) show damage; texts of its own subject that it has not seen show whether
it learned.

**Verdict.** With `expect: kept`, passes where the ratio <= 1 + `max_rise`. With
`expect: learned`, passes where the ratio <= 1 - `min_fall`. z compares with random
adapters on the same texts; it decides nothing.

**Score.** `kept`: 2 ** -(rise / `max_rise`), 1 for no rise. `learned`:
1 - 2 ** -(fall / `min_fall`), 0 for no fall. Both are 0.5 at the threshold.

**Interval.** 95 % percentile bootstrap over texts, each weighted by its number of scored
tokens; none for a single text.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from forwardscope.backends.values import RollingLogprob
from forwardscope.errors import ProbeError
from forwardscope.probes.base import (
    Outcome,
    Probe,
    ProbeContext,
    Prompt,
    Texts,
    Threshold,
    Verdict,
    score_against,
)
from forwardscope.probes.bootstrap import bootstrap_interval
from forwardscope.probes.general import GENERAL_TEXTS
from forwardscope.text import plural

__all__ = ["PerplexityShift"]

#: Larger logarithms of a perplexity are cut, so that it stays finite.
_MAX_LOG = 700.0
#: Ratios from here on are written with an exponent.
_LARGE = 1e6


class PerplexityShift(Probe):
    """Ratio of the fine-tuned model's perplexity to the base model's.

    Attributes:
        texts: Texts of other subjects (`kept`), or unseen ones of the adapter's own (`learned`).
        expect: Whether the perplexity should not rise (`kept`) or should fall (`learned`).
        max_rise: Rise to pass with `kept`, as a share.
        min_fall: Fall to pass with `learned`, as a share.
    """

    kind: Literal["perplexity_shift"] = "perplexity_shift"
    texts: Texts = GENERAL_TEXTS
    expect: Literal["kept", "learned"] = "kept"
    max_rise: Threshold = 0.1
    min_fall: Annotated[Threshold, Field(lt=1)] = 0.1

    def run(self, context: ProbeContext) -> Outcome:
        """Score all texts in both views and compare their perplexities."""
        with context.backend.as_base() as base:
            before = base.rolling_logprob_batch(self.texts)
        with context.backend.as_finetuned() as tuned:
            after = tuned.rolling_logprob_batch(self.texts)
        return self._judge(before, after, context)

    def calibration(self, sentinels: tuple[Prompt, ...]) -> Probe:  # noqa: ARG002 - the own texts
        """Return a probe that measures the ratio of the same texts."""
        return PerplexityShift(name="null", texts=self.texts)

    def _judge(
        self, before: list[RollingLogprob], after: list[RollingLogprob], context: ProbeContext
    ) -> Outcome:
        if any(b.num_tokens != a.num_tokens for b, a in zip(before, after, strict=True)):
            raise ProbeError(
                "base and fine-tuned model split the texts into different tokens, so their "
                "perplexities cannot be compared"
            )
        if not all(math.isfinite(one.total_logprob) for one in (*before, *after)):
            raise ProbeError("a text has a non-finite log-probability; check the model's logits")
        counts = [one.num_tokens - 1 for one in before]
        tokens = sum(counts)
        if tokens == 0:
            raise ProbeError("no text has two tokens, so there is no perplexity; use longer texts")
        rises = [
            (b.total_logprob - a.total_logprob) / max(1, count)
            for b, a, count in zip(before, after, counts, strict=True)
        ]
        base = -sum(one.total_logprob for one in before) / tokens
        tuned = -sum(one.total_logprob for one in after) / tokens
        ratio = _exp(tuned - base)
        interval = bootstrap_interval(rises, context.seed, counts)
        null = context.baseline and context.baseline.stats.get(self.calibration(()))
        z = null.z_score(ratio) if null else None
        passed, limit, score = self._against(ratio)
        shown = f"{ratio:.3f}" if ratio < _LARGE else f"{ratio:.3g}"
        message = f"perplexity {_exp(base):.4g}, fine-tuned {_exp(tuned):.4g}, ratio {shown}"
        message += f", at most {limit:g}"
        if null and z is not None:
            message += f"; z {z:+.1f} of {plural(null.n, 'random adapter')}"
        return Outcome(
            verdict=Verdict.PASS if passed else Verdict.FAIL,
            message=message,
            score=score,
            raw=ratio,
            z_score=z,
            ci_95=interval and (_exp(interval[0]), _exp(interval[1])),
            n=len(counts),
            lower_is_better=True,
            evidence={
                "perplexity_base": _exp(base),
                "perplexity_tuned": _exp(tuned),
                "per_text_log_ratio": rises,
                "per_text_tokens": counts,
                **context.named(self.texts),
                "expect": self.expect,
                "random_adapters": null.to_evidence() if null else None,
                "thresholds": {"max_ratio": limit},
            },
        )

    def _against(self, ratio: float) -> tuple[bool, float, float]:
        """Return whether a ratio passes, its limit, and its score."""
        if self.expect == "learned":
            limit = 1.0 - self.min_fall
            return ratio <= limit, limit, score_against(1.0 - ratio, self.min_fall)
        limit = 1.0 + self.max_rise
        score = 1.0 - score_against(ratio - 1.0, self.max_rise)
        return ratio <= limit, limit, score


def _exp(log: float) -> float:
    return math.exp(min(log, _MAX_LOG))
