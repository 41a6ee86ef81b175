"""The null baseline: statistics of a probe over random adapters."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["NullBaseline", "NullStats"]

#: A smaller standard deviation is rounding error of equal values.
_NO_DEVIATION = 1e-9


@dataclass(frozen=True, slots=True)
class NullStats:
    """Statistics of one probe's raw values over the random adapters.

    Attributes:
        mean: Mean of the raw values.
        std: Sample standard deviation (n-1) of the raw values; 0.0 for a single one.
        n: Number of raw values.
        largest: Largest raw value.
        samples: The raw values, in the order of the seeds.
    """

    mean: float
    std: float
    n: int
    largest: float
    samples: tuple[float, ...] = ()

    def z_score(self, raw: float) -> float | None:
        """Return (raw - mean) / std, or None where the deviation is 0."""
        return None if self.std < _NO_DEVIATION else (raw - self.mean) / self.std

    def to_evidence(self) -> dict[str, Any]:
        """Return the statistics as plain JSON."""
        return {**asdict(self), "samples": list(self.samples)}


@dataclass(frozen=True, slots=True)
class NullBaseline:
    """Null statistics from a `null_adapter` probe, for the later probes.

    Attributes:
        sentinels: Prompts of the measurement.
        stats: Statistics by calibration; see `Probe.calibration`.
    """

    sentinels: tuple[Any, ...]
    stats: Mapping[Hashable, NullStats]
