"""Whether the `null_adapter` probes of a suite are where they are of use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forwardscope.probes import NullAdapter, Probe

__all__ = ["Misplaced", "misplaced_baselines"]


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A `null_adapter` that does not calibrate all probes that it could.

    Attributes:
        index: Its number among the probes.
        message: What it misses, and the fix.
        useless: Whether it calibrates none.
    """

    index: int
    message: str
    useless: bool


def misplaced_baselines(probes: Sequence[Probe]) -> Iterator[Misplaced]:
    """Yield the baselines that no later probe uses, and the first that comes after a user."""
    for index, probe in enumerate(probes):
        if not isinstance(probe, NullAdapter):
            continue
        earlier = [] if _has_baseline(probes[:index]) else _calibrated(probes[:index], probe)
        useless = not _calibrated(probes[index + 1 :], probe)
        if earlier:
            names = ", ".join(earlier)
            yield Misplaced(
                index,
                f"null_adapter gives only later probes a z-score, and not {names}; move it up, "
                f"before {earlier[0]}",
                useless,
            )
        elif useless:
            yield Misplaced(
                index,
                "no later probe uses this baseline; remove it, or add delta_kl, perplexity_shift "
                "or completion_preference after it",
                useless,
            )


def _has_baseline(probes: Sequence[Probe]) -> bool:
    return any(isinstance(probe, NullAdapter) for probe in probes)


def _calibrated(probes: Sequence[Probe], baseline: NullAdapter) -> list[str]:
    """Return the names of the probes that a baseline could calibrate."""
    return [probe.name for probe in probes if _uses(probe, baseline)]


def _uses(probe: Probe, baseline: NullAdapter) -> bool:
    try:
        return probe.calibration(baseline.sentinel_prompts) is not None
    except Exception:  # noqa: BLE001 - the method of another package; its run will tell
        return True
