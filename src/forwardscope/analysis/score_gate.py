"""What probes measured in a run, compared with a reference run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from forwardscope.analysis.checks import Check
from forwardscope.suite.formats import format_interval, format_raw, format_z
from forwardscope.suite.result import ProbeResult, SuiteResult

__all__ = ["ScoreLimits", "compare_scores", "differences", "suite_score"]

#: Without an interval, a score may fall by so much.
_SCORE_DROP: Final = 0.1
#: A z-score may fall by this share: the deviation of eight random adapters is uncertain.
_Z_DROP: Final = 0.5
#: What must be equal for the numbers of two runs to be of one model and adapter.
_FACTS: Final = ("model", "adapter", "tuned_identity", "base_identity", "dtype", "exactness")
#: Of an identity so many digits are said, as `forwardscope store info` has them.
_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class ScoreLimits:
    """How much worse a measured value may be.

    Attributes:
        drop: Allowed share of the reference value, for the probes that `of_probe` lacks;
            0.1 is 10 %. None allows what lies within the reference run's 95 % interval and,
            without an interval, a score that is lower by 0.1.
        of_probe: Allowed share by the name of a probe.
        min_score: Smallest score of the whole suite; None for no limit.
    """

    drop: float | None = None
    of_probe: Mapping[str, float] = field(default_factory=dict)
    min_score: float | None = None


def compare_scores(
    reference: SuiteResult, current: SuiteResult, limits: ScoreLimits
) -> Iterator[Check]:
    """Compare what each probe measured: its value, its z-score and its score.

    Only a change for the worse fails. Which direction that is, is in the results.
    """
    before = {probe.name: probe for probe in reference.probes}
    for probe in current.probes:
        if (was := before.get(probe.name)) is not None and was.kind == probe.kind:
            drop = limits.of_probe.get(probe.name, limits.drop)
            yield from _value(was, probe, drop)
            yield from _z(was, probe, _Z_DROP if drop is None else drop)
            yield from _score(was, probe, _SCORE_DROP if drop is None else drop)


def differences(reference: SuiteResult, current: SuiteResult) -> list[str]:
    """Return how the models and adapters of two runs differ, a sentence each."""
    found = []
    for fact in _FACTS:
        was, is_now = getattr(reference, fact), getattr(current, fact)
        if was != is_now and None not in (was, is_now):
            ends = _DIGITS if fact.endswith("identity") else None
            found.append(f"{fact.replace('_', ' ')}: {is_now[:ends]}, {was[:ends]} before")
    return found


def _value(was: ProbeResult, now: ProbeResult, drop: float | None) -> Iterator[Check]:
    if was.raw is None or now.raw is None:
        return
    sign = -1.0 if now.lower_is_better else 1.0
    if drop is not None:
        limit, allowed = was.raw - sign * drop * abs(was.raw), f"{drop:.3g} of it allowed"
    elif was.ci_95 is not None:
        limit = was.ci_95[1] if now.lower_is_better else was.ci_95[0]
        allowed = f"95 % interval {format_interval(was.ci_95)}"
    else:
        return
    finding = f"{now.name}: value {format_raw(now.raw)}, {format_raw(was.raw)} before ({allowed})"
    yield Check(f"value of {now.name}", sign * now.raw >= sign * limit, finding)


def _z(was: ProbeResult, now: ProbeResult, drop: float) -> Iterator[Check]:
    """Compare the distances from random adapters; for a probe whose verdict uses them."""
    if was.z_score is None or now.z_score is None or now.lower_is_better:
        return
    finding = f"{now.name}: z {format_z(now.z_score)}, {format_z(was.z_score)} before"
    limit = was.z_score - drop * abs(was.z_score)
    yield Check(f"z of {now.name}", now.z_score >= limit, f"{finding} ({drop:.3g} of it allowed)")


def _score(was: ProbeResult, now: ProbeResult, drop: float) -> Iterator[Check]:
    if was.score is None or now.score is None:
        return
    finding = f"{now.name}: score {now.score:.3f}, {was.score:.3f} before ({drop:.3g} allowed)"
    yield Check(f"score of {now.name}", now.score >= was.score - drop, finding)


def suite_score(current: SuiteResult, least: float) -> Check:
    """Compare the score of a run's suite with the smallest that is allowed."""
    name = "score of the suite"
    if current.score is None:
        return Check(name, ok=False, finding="the suite has no score: no probe has one")
    finding = f"the suite's score is {current.score:.3f}, at least {least:g} is required"
    return Check(name, current.score >= least, finding)
