"""What the suite of `forwardscope check` found, in one sentence and one small table."""

from __future__ import annotations

from typing import Final

from forwardscope.analysis.tables import Column, Table
from forwardscope.probes import Verdict
from forwardscope.suite.formats import format_z
from forwardscope.suite.result import ProbeResult, SuiteResult
from forwardscope.text import factor, plural, shown

__all__ = ["answer", "answer_table"]

_CHANGE: Final = "delta_kl"
_DAMAGE: Final = "perplexity_shift"
#: Divergence in nats that rounding alone gives: two copies of one model can differ in the last
#: bits of float32, and a divergence is about the square of that.
_ROUNDING: Final = 1e-12


def answer(result: SuiteResult) -> str:
    """Return one sentence: whether the adapter does something, and whether it breaks something."""
    failed = [probe for probe in result.probes if probe.verdict is Verdict.ERROR]
    if failed:
        return f"The adapter could not be measured: {failed[0].message}"
    change, damage = _probe(result, _CHANGE), _probe(result, _DAMAGE)
    if change.raw is not None and change.raw < _ROUNDING:
        return (
            "The adapter has no effect: no answer changed at all. Its weights are as before "
            "training; was the trained adapter saved?"
        )
    name = shown(result.adapter)
    if change.verdict is Verdict.FAIL:
        return f"{name} does nothing beyond noise: it changes answers {_strength(change)}."
    if damage.verdict is Verdict.FAIL:
        return (
            f"{name} does something, but it breaks general text, whose perplexity is "
            f"{damage.raw:#.4g} times the base's: trained for too long, or on too little?"
        )
    return (
        f"{name} does something: it changes answers {_strength(change)}, and general "
        f"text is not broken."
    )


def answer_table(result: SuiteResult) -> Table:
    """Return a row for each of the two: what was measured, and what random adapters have."""
    columns = (
        Column("question", "what"),
        Column("value", "measured"),
        Column("random", "random adapters"),
        Column("z_score", "z", format_z),
        Column("verdict", "verdict"),
    )
    whats = {_CHANGE: "change, nats", _DAMAGE: "perplexity ratio"}
    forms = {_CHANGE: "{:.2g}", _DAMAGE: "{:#.4g}"}
    rows = [
        (
            whats[probe.kind],
            None if probe.raw is None else forms[probe.kind].format(probe.raw),
            _spread(_random(probe), forms[probe.kind]),
            probe.z_score,
            probe.verdict.value,
        )
        for probe in result.probes
        if probe.kind in whats
    ]
    return Table("", columns, rows)


def _probe(result: SuiteResult, kind: str) -> ProbeResult:
    return next(probe for probe in result.probes if probe.kind == kind)


def _strength(change: ProbeResult) -> str:
    """Compare a change with that of random adapters, in words."""
    raw, random = change.raw or 0.0, _random(change)
    if not random:
        return f"by {raw:.3g} nats (without random adapters to compare with)"
    if not (largest := max(random)):
        return f"by {raw:.3g} nats, and random adapters change none"
    adapters = plural(len(random), "random adapter")
    return f"{factor(raw / largest)} times as much as the strongest of {adapters}"


def _random(probe: ProbeResult) -> list[float]:
    """Return what a probe measured on each random adapter; empty without a baseline."""
    found = probe.evidence.get("random_adapters")  # none after an error either
    return [] if found is None else list(found["samples"])


def _spread(values: list[float], form: str) -> str | None:
    return f"{form.format(min(values))} … {form.format(max(values))}" if values else None
