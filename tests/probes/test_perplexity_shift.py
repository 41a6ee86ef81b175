"""`perplexity_shift`: ratio of the perplexities of both models over texts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from forwardscope.errors import ProbeError
from forwardscope.probes import NullAdapter, Outcome, PerplexityShift, ProbeContext, Verdict
from forwardscope.probes.calibration import NullBaseline, NullStats
from forwardscope.testing import ScriptedBackend, ScriptedView

TEXTS = ("abba", "ab", "babba")


def favouring_a(base: float, tuned: float) -> ScriptedBackend:
    """Return a backend whose next token is `a` with these probabilities, else `b`."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        likely = tuned if view.id == "ft" else base
        return np.log([1.0 - likely, likely])  # the ids of "b" and "a" modulo 2

    return ScriptedBackend(script, vocab_size=2)


def run(base: float, tuned: float, **settings: object) -> Outcome:
    """Run the probe with these probabilities of `a`."""
    settings = {"texts": TEXTS, **settings}
    probe = PerplexityShift(name="shift", **settings)
    return probe.run(ProbeContext(favouring_a(base, tuned)))


def perplexity(likely: float) -> float:
    """Return the perplexity of the texts without their first characters."""
    scored = "".join(text[1:] for text in TEXTS)
    logs = [math.log(likely if char == "a" else 1.0 - likely) for char in scored]
    return math.exp(-sum(logs) / len(scored))


def test_ratio_of_perplexities() -> None:
    """The raw value is the tuned model's perplexity over the base model's, over all tokens."""
    outcome = run(0.5, 0.2)
    assert outcome.raw == pytest.approx(perplexity(0.2) / perplexity(0.5))
    assert outcome.evidence["perplexity_base"] == pytest.approx(2.0)
    assert outcome.evidence["perplexity_tuned"] == pytest.approx(perplexity(0.2))
    assert outcome.evidence["per_text_tokens"] == [3, 1, 4]


def test_one_batch_a_view() -> None:
    """All texts are scored in one forward call of each view."""
    backend = favouring_a(0.5, 0.2)
    PerplexityShift(name="shift", texts=TEXTS).run(ProbeContext(backend))
    assert backend.forward_batches == [("base", list(TEXTS)), ("ft", list(TEXTS))]


@pytest.mark.parametrize(("rise", "verdict"), [(0.0999, "pass"), (0.1001, "fail")])
def test_kept(rise: float, verdict: str) -> None:
    """A rise up to the maximum passes; a fall always does."""
    texts = ["aaaaaa"]
    outcome = run(0.5, 0.5 / (1.0 + rise), texts=texts)
    assert (outcome.verdict, outcome.raw) == (verdict, pytest.approx(1.0 + rise))
    assert outcome.score == pytest.approx(2.0 ** -(rise / 0.1))
    fallen = run(0.5, 0.9, texts=texts)
    assert (fallen.verdict, fallen.score) == ("pass", 1.0)


@pytest.mark.parametrize(("fall", "verdict"), [(0.1001, "pass"), (0.0999, "fail")])
def test_learned(fall: float, verdict: str) -> None:
    """A fall from the minimum on passes; a rise never does."""
    settings: dict[str, object] = {"texts": ["aaaaaa"], "expect": "learned"}
    outcome = run(0.5, 0.5 / (1.0 - fall), **settings)
    assert (outcome.verdict, outcome.raw) == (verdict, pytest.approx(1.0 - fall))
    assert outcome.score == pytest.approx(1.0 - 2.0 ** -(fall / 0.1))
    risen = run(0.5, 0.4, **settings)
    assert (risen.verdict, risen.score) == ("fail", 0.0)


def test_interval() -> None:
    """It contains the ratio, and lies between the smallest and the largest of a text."""
    outcome = run(0.5, 0.2)
    low, high = outcome.ci_95
    ratios = np.exp(outcome.evidence["per_text_log_ratio"])
    assert min(ratios) - 1e-9 <= low < outcome.raw < high <= max(ratios) + 1e-9
    assert run(0.5, 0.2, texts=["abba"]).ci_95 is None


def test_calibration_is_by_the_same_texts() -> None:
    """Random adapters are asked for the texts; thresholds do not make another baseline."""
    one = PerplexityShift(name="one", texts=TEXTS)
    two = PerplexityShift(name="two", texts=TEXTS, expect="learned", min_fall=0.5)
    backend = ScriptedBackend()
    outcome = NullAdapter(name="null", runs=2).run(ProbeContext(backend, later=(one, two)))
    assert [view for view, _ in backend.forward_batches] == ["base", "null_1000", "null_1001"]
    assert {text for _, batch in backend.forward_batches for text in batch} == set(TEXTS)
    assert list(outcome.baseline.stats) == [one.calibration(())]


def test_z_decides_nothing() -> None:
    """A change beyond those of random adapters passes where the ratio is in bounds."""
    probe = PerplexityShift(name="shift", texts=TEXTS)
    stats = NullStats(1.0, 0.001, 8, 1.001)
    baseline = NullBaseline((), {probe.calibration(()): stats})
    outcome = probe.run(ProbeContext(favouring_a(0.5, 0.55), baseline=baseline))
    assert outcome.z_score == pytest.approx((outcome.raw - 1.0) / 0.001)
    assert (outcome.verdict, outcome.z_score > 3) == (Verdict.PASS, True)
    assert "of 8 random adapters" in outcome.message


def test_texts_without_a_scored_token() -> None:
    """Texts of one token have no perplexity, but are left out among others."""
    with pytest.raises(ProbeError, match="use longer texts"):
        run(0.5, 0.2, texts=["a", "b"])
    assert run(0.5, 0.2, texts=["a", *TEXTS]).raw == pytest.approx(run(0.5, 0.2).raw)


def test_a_broken_model_has_a_finite_ratio() -> None:
    """A perplexity beyond the floats is cut."""
    outcome = run(0.5, 1e-320, texts=["aa"])
    assert outcome.verdict is Verdict.FAIL
    assert np.isfinite(outcome.raw)
    assert "ratio 1.01e+304," in outcome.message


@pytest.mark.parametrize("broken", ["base", "ft"])
def test_infinite_values(broken: str) -> None:
    """They are an error, as they would pass or fail without a reason."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        return np.array([1.0, -1.0]) * (1e308 if view.id == broken else 1.0)

    probe = PerplexityShift(name="shift", texts=TEXTS)
    backend = ScriptedBackend(script, vocab_size=2)
    with np.errstate(over="ignore"), pytest.raises(ProbeError, match="non-finite log-probability"):
        probe.run(ProbeContext(backend))


@pytest.mark.parametrize(
    "settings", [{"texts": []}, {"texts": [""]}, {"min_fall": 1.0}, {"max_rise": 0.0}]
)
def test_invalid_settings(settings: dict[str, object]) -> None:
    """There must be texts, and thresholds that a ratio can pass."""
    with pytest.raises(ValidationError):
        PerplexityShift(name="shift", **{"texts": TEXTS, **settings})
