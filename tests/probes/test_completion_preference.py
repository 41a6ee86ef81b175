"""`completion_preference`: shift of the margin of wanted over unwanted completions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from forwardscope.errors import ProbeError
from forwardscope.probes import CompletionPreference, NullAdapter, Outcome, ProbeContext, Verdict
from forwardscope.probes.calibration import NullBaseline, NullStats
from forwardscope.testing import ScriptedBackend, ScriptedView

PAIRS = (
    {"prompt": "x", "wanted": "a", "unwanted": "b"},
    {"prompt": "y", "wanted": "aa", "unwanted": "ab"},
)


def favouring_a(base: float, tuned: float) -> ScriptedBackend:
    """Return a backend whose next token is `a` with these probabilities, else `b`."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        likely = tuned if view.id == "ft" else base
        return np.log([1.0 - likely, likely])  # the ids of "b" and "a" modulo 2

    return ScriptedBackend(script, vocab_size=2)


def margin(likely: float) -> float:
    """Return log p(a) - log p(b), which is the margin of both pairs."""
    return math.log(likely / (1.0 - likely))


def probe(**settings: object) -> CompletionPreference:
    """Return the probe over the pairs."""
    return CompletionPreference(**{"name": "preference", "pairs": PAIRS, **settings})


def run(base: float, tuned: float, **settings: object) -> Outcome:
    """Run the probe with these probabilities of `a`."""
    return probe(**settings).run(ProbeContext(favouring_a(base, tuned)))


def test_shift_of_the_margins() -> None:
    """The raw value is the mean over pairs of the tuned model's margin less the base's."""
    outcome = run(0.4, 0.7)
    assert outcome.raw == pytest.approx(margin(0.7) - margin(0.4))
    assert outcome.evidence["margins_base"] == pytest.approx([margin(0.4)] * 2)
    assert outcome.evidence["margins_tuned"] == pytest.approx([margin(0.7)] * 2)
    assert "preferred in 2 of 2 pairs, by the base in 0" in outcome.message


@pytest.mark.parametrize("broken", ["base", "ft"])
def test_infinite_values(broken: str) -> None:
    """They are an error, as they would pass or fail without a reason."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        return np.array([1.0, -1.0]) * (1e308 if view.id == broken else 1.0)

    backend = ScriptedBackend(script, vocab_size=2)
    with np.errstate(over="ignore"), pytest.raises(ProbeError, match="non-finite log-probability"):
        probe().run(ProbeContext(backend))


def test_one_batch_a_view() -> None:
    """Both completions of all pairs are scored in one forward call of each view."""
    backend = favouring_a(0.4, 0.7)
    probe().run(ProbeContext(backend))
    batch = ["xa", "yaa", "xb", "yab"]
    assert backend.forward_batches == [("base", batch), ("ft", batch)]


@pytest.mark.parametrize(("shift", "verdict"), [(0.501, "pass"), (0.499, "fail"), (-2.0, "fail")])
def test_threshold(shift: float, verdict: str) -> None:
    """A shift from the minimum on passes; one away from the wanted completions has score 0."""
    tuned = 1.0 / (1.0 + math.exp(-shift))
    outcome = run(0.5, tuned)
    assert outcome.verdict == verdict
    assert outcome.score == pytest.approx(1.0 - 2.0 ** -(max(0.0, shift) / 0.5))


@pytest.mark.parametrize(("std", "verdict"), [(0.1, "pass"), (0.5, "fail"), (0.0, "pass")])
def test_random_adapters(std: float, verdict: str) -> None:
    """A shift must also exceed those of random adapters, unless these all agree."""
    baseline = NullBaseline((), {probe().calibration(()): NullStats(0.0, std, 8, 0.3)})
    context = ProbeContext(favouring_a(0.5, 0.7), baseline=baseline)
    outcome = probe().run(context)
    assert outcome.verdict == verdict
    assert outcome.z_score == (pytest.approx(margin(0.7) / std) if std else None)


def test_calibration_is_by_the_same_pairs() -> None:
    """Random adapters are asked for the pairs; thresholds do not make another baseline."""
    backend = ScriptedBackend()
    later = (probe(), probe(name="other", min_shift=2.0))
    outcome = NullAdapter(name="null", runs=2).run(ProbeContext(backend, later=later))
    assert [view for view, _ in backend.forward_batches] == ["base", "null_1000", "null_1001"]
    assert list(outcome.baseline.stats) == [probe().calibration(())]


def test_interval() -> None:
    """It lies within the shifts of the pairs; a single pair has none."""
    outcome = probe().run(ProbeContext(ScriptedBackend()))
    low, high = outcome.ci_95
    shifts = outcome.evidence["per_pair"]
    assert min(shifts) <= low <= outcome.raw <= high <= max(shifts)
    assert run(0.4, 0.7, pairs=PAIRS[:1]).ci_95 is None


def test_equal_models() -> None:
    """Without any change the shift is 0 and the verdict FAIL."""
    outcome = run(0.4, 0.4)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.FAIL, 0.0, 0.0)


@pytest.mark.parametrize(
    "pair",
    [
        {"prompt": "x", "wanted": "a", "unwanted": "a"},
        {"prompt": "", "wanted": "a", "unwanted": "b"},
        {"prompt": "x", "wanted": "", "unwanted": "b"},
        {"prompt": "x", "wanted": "a"},
        {"prompt": "x", "wanted": "a", "unwanted": "b", "note": "c"},
    ],
)
def test_invalid_pair(pair: dict[str, str]) -> None:
    """A pair has a prompt and two different completions, none of them empty."""
    with pytest.raises(ValidationError):
        probe(pairs=[pair])
