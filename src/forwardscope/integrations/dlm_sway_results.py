"""Results of dlm-sway's probes as ours, without texts that may be prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from dlm_sway.probes.base import registry

from forwardscope.integrations.tool_numbers import finite_number
from forwardscope.integrations.tool_run import Measured
from forwardscope.probes import Outcome, Verdict
from forwardscope.text import printable

__all__ = ["Notes", "measured_of"]

#: Package of dlm-sway's own probes, whose messages and keys of evidence have no prompts.
_OWN_PROBES: Final = "dlm_sway.probes."
_ENDS: Final = 2  # of an interval
#: Kinds of probes whose smaller values are better.
_LOWER_IS_BETTER: Final = ("adapter_revert", "calibration_drift", "leakage")
#: A probe that warns could not tell; it counts for no verdict of dlm-sway's gate.
_VERDICTS: Final = {
    "pass": Verdict.PASS,
    "fail": Verdict.FAIL,
    "warn": Verdict.SKIP,
    "skip": Verdict.SKIP,
    "error": Verdict.ERROR,
}


@dataclass(slots=True)
class Notes:
    """What is known of the probes of a suite besides their results.

    Attributes:
        errors: Classes of the errors that probes ended with, by name.
        foreign: Whether a probe is not of dlm-sway itself, by name.
        show: Whether texts that may have a prompt are wanted.
    """

    errors: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, bool] = field(default_factory=dict)
    show: bool = False

    def add(self, spec: Any) -> None:
        """Note whose probe a spec is of. Of two with one name, one may be foreign."""
        is_foreign = not registry()[spec.kind].__module__.startswith(_OWN_PROBES)
        self.foreign[spec.name] = is_foreign or self.foreign.get(spec.name, False)

    def hides(self, name: str) -> bool:
        """Return whether all texts of a probe are left out, as they are not known."""
        return not self.show and self.foreign.get(name, True)


def measured_of(result: Any, notes: Notes) -> Measured:
    """Return what a probe measured, from its result in dlm-sway."""
    verdict, error = str(result.verdict), notes.errors.get(result.name)
    numbers = None if notes.hides(result.name) else _numbers(result.evidence)
    outcome = Outcome(
        verdict=_VERDICTS.get(verdict, Verdict.ERROR),
        message=_message(result, notes),
        score=finite_number(result.score),
        raw=finite_number(result.raw),
        z_score=finite_number(result.z_score),
        ci_95=_interval(result.ci_95),
        lower_is_better=result.kind in _LOWER_IS_BETTER,
        evidence=numbers if isinstance(numbers, dict) else {},
    )
    return Measured(printable(result.kind), outcome, error)


def _message(result: Any, notes: Notes) -> str:
    """Return the message of a probe; one that may have a prompt needs a permission.

    That is the message of an error, and each one of a probe that is not of dlm-sway.
    """
    if result.verdict == "error" and not notes.show:
        error = notes.errors.get(result.name, "an error")
        return f"{error}; add --show-errors for its message"
    if notes.hides(result.name):
        return "a probe of another package; add --show-errors for its message"
    return f"warning: {result.message}" if result.verdict == "warn" else str(result.message)


def _interval(found: Any) -> tuple[float, float] | None:
    """Return an interval; None for one that is not a pair of finite numbers."""
    if not isinstance(found, list | tuple) or len(found) != _ENDS:
        return None
    low, high = map(finite_number, found)
    return None if low is None or high is None else (low, high)


def _numbers(evidence: Any) -> Any:
    """Return the numbers of an evidence; its texts may be prompts, and are left out."""
    if isinstance(evidence, dict):
        kept = {printable(str(key)): _numbers(value) for key, value in evidence.items()}
        return {key: value for key, value in kept.items() if value is not None}
    if isinstance(evidence, list | tuple):
        found = [_numbers(value) for value in evidence]
        return found if any(value is not None for value in found) else None
    return evidence if isinstance(evidence, bool) else finite_number(evidence)
