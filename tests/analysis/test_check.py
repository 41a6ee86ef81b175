"""What a check found, in one sentence and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from forwardscope.analysis.check import answer, answer_table
from forwardscope.probes import DeltaKL, NullAdapter, PerplexityShift, Probe, Verdict
from forwardscope.suite import SuiteResult, SuiteSpec, run_suite
from forwardscope.testing import ScriptedBackend

PROBES = (
    NullAdapter(name="baseline", runs=3, sentinel_prompts=["s", "t"]),
    DeltaKL(name="change", prompts=["a", "b"]),
    PerplexityShift(name="damage", texts=["a b c", "d e f"]),
)

Checked = Callable[..., SuiteResult]


@pytest.fixture
def checked() -> Checked:
    """Return a function that gives the result of a check, with changes of its two probes."""

    def result(
        *probes: Probe, change: Mapping[str, object] = {}, damage: Mapping[str, object] = {}
    ) -> SuiteResult:
        model = {"path": "base", "adapter": "mine"}
        spec = SuiteSpec(version=1, model=model, probes=probes or PROBES)
        ran = run_suite(spec, ScriptedBackend())
        updates = {"delta_kl": change, "perplexity_shift": damage}
        changed = [one.model_copy(update=dict(updates.get(one.kind, {}))) for one in ran.probes]
        return ran.model_copy(update={"probes": changed, "adapter": "mine"})

    return result


GOOD = {"verdict": Verdict.PASS}
BAD = {"verdict": Verdict.FAIL}


def largest(result: SuiteResult) -> float:
    """Return the largest change by a random adapter."""
    calibrations = result.probes[0].evidence["calibrations"]
    (samples,) = (one["samples"] for one in calibrations if one["kind"] == "delta_kl")
    return max(samples)


def test_a_good_adapter(checked: Checked) -> None:
    """Its change is given as a multiple of the largest by a random adapter."""
    result = checked(change=GOOD, damage=GOOD)
    strong = checked(change=GOOD | {"raw": 3 * largest(result)}, damage=GOOD)
    assert answer(strong) == (
        "mine does something: it changes answers 3 times as much as the strongest of 3 random "
        "adapters, and general text is not broken."
    )


def test_an_overfitted_adapter(checked: Checked) -> None:
    """The damage is said before all that the adapter does."""
    said = answer(checked(change=GOOD, damage=BAD | {"raw": 2.345}))
    assert said.startswith("mine does something, but it breaks general text, whose perplexity is")
    assert " 2.345 times the base's" in said
    result = checked(change=GOOD, damage=BAD | {"raw": 1e300})
    assert " 1.000e+300 times the base's" in answer(result)
    assert answer_table(result).rows[1][1] == "1.000e+300"


def test_an_adapter_like_noise(checked: Checked) -> None:
    """It does nothing beyond noise, whatever becomes of general text."""
    result = checked(change=BAD, damage=BAD)
    noise = checked(change=BAD | {"raw": largest(result) / 2}, damage=BAD)
    assert answer(noise) == (
        "mine does nothing beyond noise: it changes answers 0.5 times as much as the strongest "
        "of 3 random adapters."
    )


def test_an_adapter_without_effect(checked: Checked) -> None:
    """A change of 0, or of rounding alone, is no small change, but none."""
    for rounding in (0.0, 2e-14):
        said = answer(checked(change=BAD | {"raw": rounding}))
        assert said.startswith("The adapter has no effect")


def test_an_error(checked: Checked) -> None:
    """The message of the error is the answer."""
    broken = {"verdict": Verdict.ERROR, "message": "NaN everywhere", "raw": None, "evidence": {}}
    result = checked(change=broken)
    assert answer(result) == "The adapter could not be measured: NaN everywhere"
    assert answer_table(result).rows[0][1:3] == (None, None)


def test_without_random_adapters(checked: Checked) -> None:
    """A model of which no random adapters can be made has no multiple of theirs."""
    result = checked(*PROBES[1:], change=GOOD | {"raw": 0.25}, damage=GOOD)
    assert "changes answers by 0.25 nats (without random adapters to compare with)" in answer(
        result
    )
    assert [row[2] for row in answer_table(result).rows] == [None, None]


def test_random_adapters_without_effect(checked: Checked) -> None:
    """An adapter that does something has no multiple of nothing."""
    nothing = {"random_adapters": {"mean": 0.0, "std": 0.0, "n": 2, "samples": [0.0, 0.0]}}
    said = answer(checked(change=GOOD | {"raw": 0.25, "evidence": nothing}, damage=GOOD))
    assert "changes answers by 0.25 nats, and random adapters change none" in said


def test_the_table(checked: Checked) -> None:
    """A row for each of the two, with the range of the random adapters."""
    result = checked()
    change, damage = answer_table(result).rows
    samples = [one["samples"] for one in result.probes[0].evidence["calibrations"]]
    assert change[:3] == (
        "change, nats",
        f"{result.probes[1].raw:.2g}",
        f"{min(samples[0]):.2g} … {max(samples[0]):.2g}",
    )
    assert damage[2] == f"{min(samples[1]):#.4g} … {max(samples[1]):#.4g}"
    assert (change[4], damage[4]) == tuple(one.verdict.value for one in result.probes[1:])
