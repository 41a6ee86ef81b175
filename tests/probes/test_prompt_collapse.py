"""`prompt_collapse`: decay of the adapter's influence with the length of the filler."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from pydantic import ValidationError

from forwardscope.errors import PromptError
from forwardscope.probes import Outcome, ProbeContext, PromptCollapse, Verdict
from forwardscope.probes.base import score_against
from forwardscope.probes.divergence import divergences
from forwardscope.probes.prompt_collapse import half_life
from forwardscope.testing import ScriptedBackend, ScriptedView
from forwardscope.text import plural

PROMPTS = ("one", "two")
LENGTHS = (0, 256, 512, 1024)


def fading(effect: Callable[[int], float]) -> ScriptedBackend:
    """Return a backend whose adapter changes one logit by a function of the filler's length."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        moved = view.strength * effect(prompt.count("."))
        return np.array([1.0 + moved, 0.5, 0.0, -0.5])

    return ScriptedBackend(script, vocab_size=4)


def run(effect: Callable[[int], float], **settings: object) -> Outcome:
    """Run the probe on a backend with this effect of the length."""
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
    """An exponential decay gives its own half-life."""
    x = np.array(sorted(lengths), dtype=float)
    log2 = np.log2(start) - x / life
    assume(log2.min() > -1000)
    # the slope between two nearly equal divergences has few digits
    digits = 1e-12 * life / np.ptp(x) + 1e-9
    assert half_life(x, np.exp2(log2)) == pytest.approx(life, rel=digits)


def test_half_life_is_of_a_least_squares_line() -> None:
    """Other decays give the half-life of numpy's least-squares fit."""
    x, y = np.array([0.0, 256.0, 512.0, 1024.0]), np.array([0.3, 0.25, 0.1, 0.08])
    slope = np.polyfit(x, np.log(y), 1)[0]
    assert half_life(x, y) == pytest.approx(-np.log(2) / slope, rel=1e-9)


@given(st.floats(1e-300, 1.0))
def test_a_constant_divergence_has_no_half_life(value: float) -> None:
    """Rounding does not give equal divergences a half-life."""
    assert half_life(np.array([0.0, 3.0, 7.0, 11.0]), np.full(4, value)) is None


def test_a_rising_divergence_has_no_half_life() -> None:
    """A divergence that grows with context has no half-life."""
    assert half_life(np.array([0.0, 10.0, 20.0]), np.array([0.1, 0.15, 0.2])) is None


def test_filler_precedes_each_prompt() -> None:
    """Each view is one batch of all prompts after filler of all lengths."""
    backend = fading(lambda length: 1.0)
    probe = PromptCollapse(name="long-context", prompts=PROMPTS, context_lengths=(0, 3, 5))
    probe.run(ProbeContext(backend))
    extended = ["one", "two", "...\n\none", "...\n\ntwo", ".....\n\none", ".....\n\ntwo"]
    assert backend.forward_batches == [("base", extended), ("ft", extended)]


@pytest.mark.parametrize(
    ("context", "lengths"),
    [
        (9999, (0, 256, 512, 1024)),
        (1029, (0, 256, 512, 1024)),
        (1028, (0, 256, 512, 1023)),
        (300, (0, 256, 295)),
        (6, (0, 1)),
    ],
)
def test_lengths_fit_the_context(context: int, lengths: tuple[int, ...]) -> None:
    """Filler that is too long becomes the longest that fits before every prompt, as reported."""
    backend = ScriptedBackend(context=context)
    outcome = PromptCollapse(name="long-context", prompts=("a", "two")).run(ProbeContext(backend))
    assert outcome.evidence["context_lengths"] == list(lengths)
    longest = max(len(prompt) for _, prompts in backend.forward_batches for prompt in prompts)
    assert longest == lengths[-1] + len("\n\ntwo")
    note = f"(filler of {plural(lengths[-1], 'token')}, the most that fit the model's context)"
    assert (note in outcome.message) == (lengths[-1] < 1024)


@pytest.mark.parametrize(("context", "settings"), [(5, {}), (260, {"context_lengths": (256, 512)})])
def test_it_is_skipped_where_two_lengths_do_not_fit(
    context: int, settings: dict[str, object]
) -> None:
    """The message has the longest filler that fits; nothing is computed."""
    backend = ScriptedBackend(context=context)
    probe = PromptCollapse(name="long-context", prompts=("a", "two"), **settings)
    outcome = probe.run(ProbeContext(backend))
    assert outcome.verdict is Verdict.SKIP
    assert f"at most {context - 5} tokens of filler fit" in outcome.message
    assert backend.forward_batches == []


def test_a_prompt_that_does_not_fit_is_an_error() -> None:
    """A prompt that is longer than the context is not skipped."""
    probe = PromptCollapse(name="long-context", prompts=("one", "much longer"))
    with pytest.raises(PromptError, match="has 11 tokens, more than 9"):
        probe.run(ProbeContext(ScriptedBackend(context=9)))


def test_evidence_has_the_decay() -> None:
    """Means are over the prompts at each length; `per_prompt` has one row per prompt."""

    def script(view: ScriptedView, prompt: str) -> npt.NDArray[np.float64]:
        return np.array([1.0 + view.strength / len(prompt), ord(prompt[-1]) / 200, 0.0])

    backend = ScriptedBackend(script, vocab_size=3)
    probe = PromptCollapse(name="long-context", prompts=PROMPTS, context_lengths=(0, 4))
    evidence = probe.run(ProbeContext(backend)).evidence
    extended = [filler + prompt for prompt in PROMPTS for filler in ("", "....\n\n")]
    with backend.as_base() as view:
        before = view.next_token_dist_batch(extended)
    with backend.as_finetuned() as view:
        after = view.next_token_dist_batch(extended)
    per_prompt = np.reshape(divergences(before, after, "js"), (len(PROMPTS), 2))
    assert evidence["divergence"] == "js"
    assert evidence["context_lengths"] == [0, 4]
    assert evidence["per_prompt"] == per_prompt.tolist()
    assert evidence["mean_divergence_per_length"] == pytest.approx(per_prompt.mean(axis=0))


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_half_life_and_threshold(share: float) -> None:
    """A half-life above the threshold passes; one below fails."""
    life = run(lambda length: 2 ** (-length / 600)).raw
    assert life is not None
    outcome = run(lambda length: 2 ** (-length / 600), min_half_life=life * share)
    assert outcome.raw == life
    assert outcome.verdict is (Verdict.PASS if share < 1 else Verdict.FAIL)
    assert outcome.score == pytest.approx(score_against(1.0, share))
    assert half_life(
        np.array(LENGTHS, dtype=float), np.array(outcome.evidence["mean_divergence_per_length"])
    ) == pytest.approx(life)


@pytest.mark.parametrize(("scale", "extrapolated"), [(0.25, False), (4.0, True)])
def test_half_life_beyond_the_longest_filler(scale: float, extrapolated: bool) -> None:
    """The message says where the half-life was not measured but extrapolated."""
    outcome = run(lambda length: 2 ** (-length / (scale * LENGTHS[-1])))
    assert ((outcome.raw or 0) > LENGTHS[-1]) is extrapolated
    note = f"extrapolated, the longest filler has {LENGTHS[-1]} tokens"
    assert (note in outcome.message) is extrapolated


@pytest.mark.parametrize("effect", [lambda length: 1.0, lambda length: 1.0 + length / 1000])
def test_no_decay_passes(effect: Callable[[int], float]) -> None:
    """If divergence does not fall there is no half-life, and the score is 1."""
    outcome = run(effect)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.PASS, None, 1.0)
    assert "does not fall" in outcome.message


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (lambda length: 0.0, "the adapter has no effect at any length of the context"),
        (
            lambda length: float(length < 512),
            "base and fine-tuned model agree after 512 tokens of filler",
        ),
    ],
)
def test_no_effect_at_some_length_fails(effect: Callable[[int], float], message: str) -> None:
    """A divergence of 0 fails with a score of 0; the message has the length, if it is one."""
    outcome = run(effect)
    assert (outcome.verdict, outcome.raw, outcome.score) == (Verdict.FAIL, None, 0.0)
    assert outcome.message == message
    assert len(outcome.evidence["mean_divergence_per_length"]) == len(LENGTHS)


def test_it_has_no_calibration() -> None:
    """A random adapter has no trained influence that could decay."""
    assert PromptCollapse(name="long-context", prompts=PROMPTS).calibration(("calm",)) is None


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((0,), "at least 2"),
        ((0, 0), "strictly increasing"),
        ((5, 0), "strictly increasing"),
        ((-1, 5), "equal to 0"),
    ],
)
def test_invalid_lengths(lengths: tuple[int, ...], message: str) -> None:
    """At least two increasing, non-negative lengths are required."""
    with pytest.raises(ValidationError, match=message):
        PromptCollapse(name="long-context", prompts=PROMPTS, context_lengths=lengths)
