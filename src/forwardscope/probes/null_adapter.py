"""`null_adapter`: the baseline of later probes, measured with random adapters.

For each seed, a random adapter of the same shape replaces the fine-tuned one.
Both LoRA factors are Gaussian with standard deviation init_scale *
sqrt(rank_scale); this probe uses a rank_scale of 1. Every later probe that can
be calibrated is run on each random adapter, over a list of sentinel prompts, by
default the general ones. The mean and the sample standard deviation of the raw
values over the seeds give those probes their z-scores.

Probes with the same kind, divergence and top_k share a baseline. With one run,
or where all runs agree, the deviation is 0. There is then no z-score, and a
probe uses its own threshold.

A deviation from few runs is uncertain. For normal raw values,
z / sqrt(1 + 1/n) has a t distribution with n - 1 degrees of freedom, so one
more random adapter reaches z >= 3 with probability 6 % for n = 3 runs, 1.3 % for
the default n = 8, and 0.4 % for n = 20. A run costs one forward pass per sentinel
prompt and calibration.

**Verdict.** `pass` if later probes were calibrated; `skip` if the backend cannot
make random adapters or no later probe can be calibrated. There is no score.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from forwardscope.backends.base import NullBackend, ScoringView
from forwardscope.backends.views import check_supported, null_view_id
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.probes.base import (
    Outcome,
    Probe,
    ProbeContext,
    Prompts,
    Threshold,
    Verdict,
    skip_without,
)
from forwardscope.probes.calibration import NullBaseline, NullStats
from forwardscope.probes.general import GENERAL_PROMPTS
from forwardscope.text import plural

__all__ = ["NullAdapter"]


class NullAdapter(Probe):
    """Null baselines of the later probes, from random adapters.

    Attributes:
        runs: Number of random adapters.
        seed_base: Seed of the first one; the others follow it.
        init_scale: Standard deviation of their weights.
        sentinel_prompts: Prompts that they are measured on.
    """

    kind: Literal["null_adapter"] = "null_adapter"
    runs: Annotated[int, Field(ge=1)] = 8
    seed_base: Annotated[int, Field(ge=0, lt=2**32)] = 1000
    init_scale: Threshold = 0.02
    sentinel_prompts: Prompts = GENERAL_PROMPTS

    def run(self, context: ProbeContext) -> Outcome:
        """Run each distinct calibration of the later probes on each random adapter.

        Raises:
            UnsupportedViewError: The backend has no such adapters; no forward pass is paid.
        """
        if not isinstance(context.backend, NullBackend):
            return skip_without(context.backend, "null", "this backend cannot make random adapters")
        probes = self._calibrations(context.later)
        if not probes:
            return Outcome(Verdict.SKIP, "no later probe can be calibrated")
        refused: Mapping[str, str] = getattr(context.backend, "refused_views", {})
        check_supported(null_view_id(self.seed_base, self.init_scale, 1.0), refused)
        samples = {probe: self._measure(probe, context.backend, context) for probe in probes}
        baseline = NullBaseline(
            self.sentinel_prompts,
            {probe: _stats(raws) for probe, raws in samples.items() if raws},
        )
        return Outcome(
            Verdict.PASS,
            f"{plural(len(probes), 'baseline')} over {plural(self.runs, 'random adapter')}",
            evidence={"calibrations": [_describe(p, raws) for p, raws in samples.items()]},
            baseline=baseline,
        )

    def _calibrations(self, later: tuple[Probe, ...]) -> list[Probe]:
        calibrations = (probe.calibration(self.sentinel_prompts) for probe in later)
        return list(dict.fromkeys(probe for probe in calibrations if probe is not None))

    def _measure(self, probe: Probe, backend: NullBackend, context: ProbeContext) -> list[float]:
        raws = []
        for seed in range(self.seed_base, self.seed_base + self.runs):
            null_backend = _NullAsFinetuned(backend, seed, self.init_scale)
            outcome = probe.run(replace(context, backend=null_backend, baseline=None, later=()))
            if outcome.raw is not None:
                raws.append(outcome.raw)
        return raws


@dataclass(frozen=True, slots=True)
class _NullAsFinetuned:
    """A backend whose fine-tuned view has a random adapter."""

    inner: NullBackend
    seed: int
    init_scale: float

    @property
    def instrumentation(self) -> BackendInstrumentation:
        return self.inner.instrumentation

    @property
    def render_chat(self) -> Any:
        return self.inner.render_chat  # type: ignore[attr-defined]  # optional

    def as_base(self) -> AbstractContextManager[ScoringView]:
        return self.inner.as_base()

    def as_finetuned(self) -> AbstractContextManager[ScoringView]:
        return self.inner.as_null_adapter(self.seed, init_scale=self.init_scale)

    def filler(self, tokens: int) -> str:
        return self.inner.filler(tokens)

    def identity(self) -> str:
        return self.inner.identity()

    def close(self) -> None:
        """Leave the backend open, because its owner closes it."""


def _stats(raws: list[float]) -> NullStats:
    deviation = float(np.std(raws, ddof=1)) if len(raws) > 1 else 0.0
    return NullStats(float(np.mean(raws)), deviation, len(raws), max(raws), tuple(raws))


def _describe(probe: Probe, raws: list[float]) -> dict[str, Any]:
    stats = _stats(raws).to_evidence() if raws else {"samples": raws}
    settings = probe.model_dump(mode="json", include={"kind", "divergence", "top_k"})
    return {**settings, **stats}
