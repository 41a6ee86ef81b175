"""`prompt_collapse`: how the adapter's influence decays behind neutral filler."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from pydantic import ValidationError

from forwardscope.probes import Outcome, ProbeContext, PromptCollapse, Verdict
from forwardscope.probes.base import score_against
from forwardscope.probes.divergence import divergences
from forwardscope.probes.prompt_collapse import half_life
from forwardscope.testing import ScriptedBackend, ScriptedView

PROMPTS = ("one", "two")
LENGTHS = (0, 256, 512, 1024)


def fading(effect: Callable[[int], float]) -> ScriptedBackend:
    """Make a backend whose adapter moves one logit by a function of the filler's length."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        moved = view.strength * effect(prompt.count("."))
        return np.array([1.0 + moved, 0.5, 0.0, -0.5])

    return ScriptedBackend(script, vocab_size=4)


def run(effect: Callable[[int], float], **settings: object) -> Outcome:
    """Run the probe on such a backend."""
    probe = PromptCollapse(name="long-context", prompts=PROMPTS, **settings)
    return probe.run(ProbeContext(fading(effect)))


@given(
    st.floats(1.0, 1e5),
    st.floats(1e-6, 0.5),
    st.lists(st.integers(0, 4096), min_size=2, max_size=6, unique=True),
)
def test_half_life_of_an_exponential_is_exact(
    life: float, start: float, lengths: list[int]
) -> None:
    """Where divergence halves every so many tokens, that is the half-life."""
    x = np.array(sorted(lengths), dtype=float)
    log2 = np.log2(start) - x / life
    assume(log2.min() > -1000)
    # two nearly equal divergences have few digits left to tell their slope from
    digits = 1e-12 * life / np.ptp(x) + 1e-9
    assert half_life(x, np.exp2(log2)) == pytest.approx(life, rel=digits)


def test_half_life_is_of_a_least_squares_line() -> None:
    """Off a clean exponential it is what numpy's own fit gives."""
    x, y = np.array([0.0, 256.0, 512.0, 1024.0]), np.array([0.3, 0.25, 0.1, 0.08])
    slope = np.polyfit(x, np.log(y), 1)[0]
    assert half_life(x, y) == pytest.approx(-np.log(2) / slope, rel=1e-9)


@given(st.floats(1e-300, 1.0))
def test_a_constant_divergence_has_no_half_life(value: float) -> None:
    """Rounding does not turn no decay into a very slow one."""
    assert half_life(np.array([0.0, 3.0, 7.0, 11.0]), np.full(4, value)) is None


def test_a_rising_divergence_has_no_half_life() -> None:
    """What grows with context does not halve."""
    assert half_life(np.array([0.0, 10.0, 20.0]), np.array([0.1, 0.15, 0.2])) is None


def test_filler_stands_before_each_prompt() -> None:
    """Each view is asked once, for every prompt behind every length of the backend's filler."""
    backend = fading(lambda length: 1.0)
    probe = PromptCollapse(name="long-context", prompts=PROMPTS, context_lengths=(0, 3, 5))
    probe.run(ProbeContext(backend))
    asked = ["one", "two", "...\n\none", "...\n\ntwo", ".....\n\none", ".....\n\ntwo"]
    assert backend.forward_batches == [("base", asked), ("ft", asked)]


def test_evidence_has_the_decay() -> None:
    """Means are over the prompts at each length, and `per_prompt` has one row a prompt."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        return np.array([1.0 + view.strength / len(prompt), ord(prompt[-1]) / 200, 0.0])

    backend = ScriptedBackend(script, vocab_size=3)
    probe = PromptCollapse(name="long-context", prompts=PROMPTS, context_lengths=(0, 4))
    evidence = probe.run(ProbeContext(backend)).evidence
    stuffed = [filler + prompt for prompt in PROMPTS for filler in ("", "....\n\n")]
    with backend.as_base() as view:
        before = view.next_token_dist_batch(stuffed)
    with backend.as_finetuned() as view:
        after = view.next_token_dist_batch(stuffed)
    each = np.reshape(divergences(before, after, "js"), (len(PROMPTS), 2))
    assert evidence["divergence"] == "js"
    assert evidence["context_lengths"] == [0, 4]
    assert evidence["per_prompt"] == each.tolist()
    assert evidence["mean_divergence_per_length"] == pytest.approx(each.mean(axis=0))


@pytest.mark.parametrize("wanted", [0.5, 2.0])
def test_half_life_is_held_against_the_threshold(wanted: float) -> None:
    """A longer half-life than wanted passes, and the score is 0.5 where they agree."""
    life = run(lambda length: 2 ** (-length / 600)).raw
    assert life is not None
    outcome = run(lambda length: 2 ** (-length / 600), min_half_life=life * wanted)
    assert outcome.raw == life
    assert outcome.verdict is (Verdict.PASS if wanted < 1 else Verdict.FAIL)
    assert outcome.score == pytest.approx(score_against(1.0, wanted))
    assert half_life(
        np.array(LENGTHS, dtype=float), np.array(outcome.evidence["mean_divergence_per_length"])
    ) == pytest.approx(life)


@pytest.mark.parametrize("effect", [lambda length: 1.0, lambda length: 1.0 + length / 1000])
def test_no_decay_passes(effect: Callable[[int], float]) -> None:
    """Where divergence does not fall there is no half-life, and the score is full."""
    outcome = run(effect)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.PASS, None, 1.0)
    assert "does not fall" in outcome.message


@pytest.mark.parametrize(
    ("effect", "length"),
    [(lambda length: 0.0, 0), (lambda length: float(length < 512), 512)],
)
def test_no_effect_at_some_length_fails(effect: Callable[[int], float], length: int) -> None:
    """Nothing has no logarithm: the score is 0, and the message names the length."""
    outcome = run(effect)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.FAIL, None, 0.0)
    assert outcome.message == f"the adapter changes nothing after {length} tokens of filler"
    assert len(outcome.evidence["mean_divergence_per_length"]) == len(LENGTHS)


def test_it_opts_out_of_calibration() -> None:
    """A random adapter has no trained influence that could decay."""
    assert PromptCollapse(name="long-context", prompts=PROMPTS).calibration(("calm",)) is None


@pytest.mark.parametrize(
    ("lengths", "why"),
    [((0,), "at least 2"), ((0, 0), "must rise"), ((5, 0), "must rise"), ((-1, 5), "equal to 0")],
)
def test_lengths_must_be_usable(lengths: tuple[int, ...], why: str) -> None:
    """Lengths rise, are at least two, and are not negative."""
    with pytest.raises(ValidationError, match=why):
        PromptCollapse(name="long-context", prompts=PROMPTS, context_lengths=lengths)
