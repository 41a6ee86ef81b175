"""What a probe is: its specification, its context and its outcome."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from forwardscope.backends.base import Backend
from forwardscope.probes.calibration import NullBaseline
from forwardscope.probes.divergence import Divergence

__all__ = [
    "Outcome",
    "Probe",
    "ProbeContext",
    "PromptProbe",
    "Prompts",
    "Threshold",
    "Verdict",
    "score_against",
]

#: One or more prompts, none of them empty.
Prompts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)
]
#: A positive number to be reached.
Threshold = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Verdict(StrEnum):
    """What a probe says in one word."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe found.

    Attributes:
        verdict: Its word.
        message: One sentence with the numbers behind it.
        score: In [0, 1], by the probe's own formula; None where there is none.
        raw: The measured quantity itself; None where there is none.
        z_score: Its distance from the null baseline in standard deviations.
        ci_95: A 95 % interval of `raw`.
        evidence: What it was computed from, as plain JSON data. Never a prompt.
        baseline: What the probes after it are calibrated against.
    """

    verdict: Verdict
    message: str
    score: float | None = None
    raw: float | None = None
    z_score: float | None = None
    ci_95: tuple[float, float] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    baseline: NullBaseline | None = None


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """What a probe is run with.

    Attributes:
        backend: What to ask.
        seed: For whatever a probe draws at random.
        top_k: For a probe that does not set its own.
        baseline: What an earlier `null_adapter` measured, or None.
        later: The probes after this one in the suite.
    """

    backend: Backend
    seed: int = 0
    top_k: int = 256
    baseline: NullBaseline | None = None
    later: tuple[Probe, ...] = ()


class Probe(BaseModel):
    """A named measurement over views: its settings, and how it is run.

    Immutable, so that a probe can be compared and be a key. Subclasses set
    `kind` to the name that a suite file has for them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1)]
    kind: str

    @abstractmethod
    def run(self, context: ProbeContext) -> Outcome:
        """Measure.

        Raises:
            ForwardscopeError: It cannot be measured.
        """

    def calibration(self, sentinels: tuple[str, ...]) -> Probe | None:  # noqa: ARG002 - for others
        """Return the probe to run on random adapters for this one's baseline.

        Probes with equal calibrations share one baseline, so the name is left
        out of it. None opts out.
        """
        return None


class PromptProbe(Probe):
    """A probe that asks next-token distributions of a list of prompts."""

    prompts: Prompts
    top_k: Annotated[int, Field(ge=1)] | None = None
    divergence: Divergence = "js"

    def k(self, context: ProbeContext) -> int:
        """Return the probe's own `top_k`, or the suite's."""
        return context.top_k if self.top_k is None else self.top_k


def score_against(value: float, threshold: float) -> float:
    """Return 1 - 2 ** -(value / threshold): 0 at nothing, 0.5 at the threshold, 1 in the limit."""
    return 1.0 - float(2.0 ** -(max(0.0, value) / threshold))
