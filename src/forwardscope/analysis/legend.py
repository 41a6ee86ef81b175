"""What the columns of tables mean, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from forwardscope.suite.result import ProbeResult

__all__ = ["PASSES", "SHARES", "Z", "numbers"]

#: Columns of forward passes where a store may have spared some.
PASSES: Final = (
    "needed: forward passes as with an empty store; paid: those that the store did not spare"
)
#: Durations in a table of forward passes that has batches.
SHARES: Final = "each prompt of a batch has an even share of its time"
#: The column of z-scores.
Z: Final = "z: distance from random adapters, in standard deviations"
_UNITS: Final = {
    "delta_kl": "in nats",
    "adapter_ablation": "as R²",
    "prompt_collapse": "as a half-life in tokens",
    "perplexity_shift": "as a ratio",
    "completion_preference": "in nats",
}


def numbers(probes: Iterable[ProbeResult]) -> str:
    """Return what score, raw and z are, with the units of the raw values that there are."""
    units = {probe.name: _UNITS.get(probe.kind) for probe in probes if probe.raw is not None}
    measured = ", ".join(f"{name} {unit}" for name, unit in units.items() if unit)
    return (
        f"score: 0.5 at the threshold, 1 at best; raw: {measured or 'what the probe measures'}; {Z}"
    )
