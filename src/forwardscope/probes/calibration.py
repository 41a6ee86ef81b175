"""The null baseline: what a probe measures when the adapter is noise."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

__all__ = ["NullBaseline", "NullStats"]

#: Runs that differ by less than this are one number with rounding.
_NO_DEVIATION = 1e-9


@dataclass(frozen=True, slots=True)
class NullStats:
    """What one probe measured over the random adapters.

    Attributes:
        mean: Mean of the raw values.
        std: Their sample standard deviation (n-1); 0.0 for a single one.
        n: How many there were.
    """

    mean: float
    std: float
    n: int

    def z_score(self, raw: float) -> float | None:
        """Return (raw - mean) / std, or None where the deviation is 0."""
        return None if self.std < _NO_DEVIATION else (raw - self.mean) / self.std


@dataclass(frozen=True, slots=True)
class NullBaseline:
    """What a `null_adapter` probe hands to the probes after it.

    Attributes:
        sentinels: The prompts that it was measured on.
        stats: By calibration; see `Probe.calibration`.
    """

    sentinels: tuple[str, ...]
    stats: Mapping[Hashable, NullStats]
