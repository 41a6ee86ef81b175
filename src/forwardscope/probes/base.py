"""Base classes of probes: settings, context and outcome."""

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
    "skip_without",
]

#: One or more prompts, none of them empty.
Prompts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)
]
#: A positive number that a measured value must reach.
Threshold = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Verdict(StrEnum):
    """Verdict of a probe."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one probe.

    Attributes:
        verdict: Whether the probe passed, failed, had an error or was skipped.
        message: One sentence with the numbers that decide the verdict.
        score: A number in [0, 1] by the probe's own formula, or None.
        raw: The measured quantity itself, or None.
        z_score: Distance of `raw` from the null baseline, in standard deviations.
        ci_95: A 95 % confidence interval of `raw`.
        evidence: The data behind the verdict, as plain JSON. Never a prompt.
        baseline: Null baseline for the later probes.
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
    """Inputs of a probe's run.

    Attributes:
        backend: The backend to measure.
        seed: Seed of random draws.
        top_k: `top_k` of probes that do not set their own.
        baseline: Null baseline of an earlier `null_adapter`, or None.
        later: The probes after this one in the suite.
    """

    backend: Backend
    seed: int = 0
    top_k: int = 256
    baseline: NullBaseline | None = None
    later: tuple[Probe, ...] = ()


class Probe(BaseModel):
    """A named measurement over views: its settings and its `run` method.

    Immutable, so that a probe can be compared and used as a dictionary key.
    Subclasses set `kind` to their name in a suite file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(min_length=1)]
    kind: str

    @abstractmethod
    def run(self, context: ProbeContext) -> Outcome:
        """Measure and return the outcome.

        Raises:
            ForwardscopeError: The measurement is not possible.
        """

    def calibration(self, sentinels: tuple[str, ...]) -> Probe | None:  # noqa: ARG002 - for subclasses
        """Return the probe that measures this probe's null baseline, or None for no baseline.

        Probes with equal calibrations share one baseline, so a calibration does
        not contain the name of the probe.
        """
        return None


class PromptProbe(Probe):
    """A probe that compares next-token distributions over a list of prompts."""

    prompts: Prompts
    top_k: Annotated[int, Field(ge=1)] | None = None
    divergence: Divergence = "js"

    def k(self, context: ProbeContext) -> int:
        """Return the probe's own `top_k`, or that of the suite."""
        return context.top_k if self.top_k is None else self.top_k


def score_against(value: float, threshold: float) -> float:
    """Return 1 - 2 ** -(value / threshold): 0 up to value 0, 0.5 at the threshold, at most 1."""
    return 1.0 - float(2.0 ** -(max(0.0, value) / threshold))


def skip_without(backend: Backend, view_family: str, default: str) -> Outcome:
    """Return a SKIP with the backend's reason for having no views of a family, or the default."""
    refused: Mapping[str, str] = getattr(backend, "refused_views", {})
    return Outcome(Verdict.SKIP, refused.get(view_family, default))
