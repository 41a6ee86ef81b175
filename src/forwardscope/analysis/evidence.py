"""The evidence of probes as charts need it, checked, because a result is foreign data."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from forwardscope.suite.result import FewKeys

__all__ = [
    "AblationEvidence",
    "CollapseEvidence",
    "DivergenceEvidence",
    "Measured",
    "Number",
    "PerplexityEvidence",
    "PreferenceEvidence",
    "RandomAdapters",
]

#: Bounds within which no arithmetic of a chart overflows.
Number = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]
_Positive = Annotated[float, Field(ge=0, le=1e100, allow_inf_nan=False)]
#: Bounds of what is drawn one by one.
_MAX_POINTS, _MAX_SAMPLES = 1000, 5000
_Log = Annotated[float, Field(ge=-200, le=200, allow_inf_nan=False)]
#: Values of one probe. Of more, and from the first mistake on, nothing is read.
_MAX_VALUES: Final = 1 << 19
_T = TypeVar("_T")
_List = Annotated[list[_T], Field(max_length=_MAX_VALUES, fail_fast=True)]


class _Evidence(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Measured(_Evidence):
    """The value of a probe with its interval."""

    raw: Number
    ci_95: Annotated[tuple[Number, Number] | None, Field(strict=False)] = None


class RandomAdapters(_Evidence):
    """Values of random adapters."""

    mean: Number
    std: _Positive
    samples: Annotated[_List[Number], Field(min_length=1, max_length=_MAX_SAMPLES)]


class _Named(_Evidence):
    """Names of prompts: their hashes, and their texts if the suite shows them."""

    prompts: _List[str] = []
    prompt_texts: _List[str] = []
    thresholds: Annotated[dict[str, Number], FewKeys] = {}

    def names(self, count: int) -> list[str]:
        """Return a name for each of `count` prompts; numbers in results of older versions."""
        for names in (self.prompt_texts, self.prompts):
            if len(names) == count:
                return names
        return [f"no. {place + 1}" for place in range(count)]


class _Calibrated(_Named):
    random_adapters: RandomAdapters | None = None


class DivergenceEvidence(_Calibrated):
    """Evidence of `delta_kl`: the divergence of each prompt in nats."""

    divergence: str = "divergence"
    per_prompt: Annotated[_List[_Positive], Field(min_length=1)]


class PerplexityEvidence(_Calibrated):
    """Evidence of `perplexity_shift`: log of the ratio, and scored tokens of each text."""

    per_text_log_ratio: Annotated[_List[_Log], Field(min_length=1)]
    per_text_tokens: _List[int] = []
    expect: str | None = None


class PreferenceEvidence(_Calibrated):
    """Evidence of `completion_preference`: margins and shift of each pair in nats."""

    per_pair: Annotated[_List[Number], Field(min_length=1)]
    margins_base: _List[Number]
    margins_tuned: _List[Number]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not len(self.per_pair) == len(self.margins_base) == len(self.margins_tuned):
            raise ValueError("the lists have unequal lengths")
        return self


class _Curve(_Named):
    divergence: str = "divergence"
    per_prompt: _List[_List[_Positive]] = []

    def _check_curve(self, along: list[float], means: list[float]) -> None:
        if len(along) < 2 or any(a >= b for a, b in pairwise(along)):
            raise ValueError("the curve needs two places in increasing order")
        if any(len(one) != len(along) for one in (means, *self.per_prompt)):
            raise ValueError("the lists have unequal lengths")


class AblationEvidence(_Curve):
    """Evidence of `adapter_ablation`: mean divergence over λ; numbers only of a curve."""

    lambdas: Annotated[_List[_Positive], Field(max_length=_MAX_POINTS)]
    mean_divergence_per_lambda: _List[_Positive]
    linearity: Number | None = None
    saturation_lambda: Number | None = None
    overshoot: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_curve(self.lambdas, self.mean_divergence_per_lambda)
        return self


class CollapseEvidence(_Curve):
    """Evidence of `prompt_collapse`: mean divergence over the length of the filler."""

    context_lengths: Annotated[_List[_Positive], Field(max_length=_MAX_POINTS)]
    mean_divergence_per_length: _List[_Positive]

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_curve(self.context_lengths, self.mean_divergence_per_length)
        return self
