"""The smallest divergence consistent with two top-k sets, with hand-computed values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given

from forwardscope.backends import TokenDist
from forwardscope.errors import DivergenceError
from forwardscope.probes.divergence import Divergence, divergence, divergences

LN2 = math.log(2)
LN3 = math.log(3)
VOCAB = 12


def dist(probs: Mapping[int, float], tail: float | None = None) -> TokenDist:
    """Return a distribution with these probabilities by token."""
    log_tail = None if tail is None else math.log(tail) if tail else -math.inf
    return TokenDist(
        np.array(list(probs)), np.log(list(probs.values())), 100, tail_logprob=log_tail
    )


def cut(logits: list[float], k: int) -> TokenDist:
    """Return the top k tokens of a distribution."""
    whole = np.array(logits) - np.logaddexp.reduce(logits)
    order = np.argsort(-whole, kind="stable")
    tail = None if k >= whole.size else float(np.logaddexp.reduce(whole[order[k:]]))
    return TokenDist(order[:k], whole[order[:k]], whole.size, tail)


def shuffled(one: TokenDist, order: np.random.Generator) -> TokenDist:
    """Return the same distribution with its tokens in another order."""
    places = order.permutation(one.token_ids.size)
    return TokenDist(one.token_ids[places], one.logprobs[places], one.vocab_size, one.tail_logprob)


cuts = st.builds(
    cut,
    st.lists(st.floats(-20, 20, width=32), min_size=VOCAB, max_size=VOCAB),
    st.integers(2, VOCAB),
).filter(lambda one: float(np.ptp(one.logprobs)) > 1e-6)

P = dist({1: 1 / 2, 2: 1 / 4, 3: 1 / 4})
Q = dist({1: 1 / 8, 2: 1 / 8, 3: 3 / 4})


def test_kl_is_from_the_second_to_the_first() -> None:
    """`kl` is KL(other || reference), not KL(reference || other)."""
    assert divergence(P, Q, "kl") == pytest.approx(3 / 4 * LN3 - 3 / 8 * LN2, rel=1e-6)
    assert divergence(Q, P, "kl") == pytest.approx(5 / 4 * LN2 - 1 / 4 * LN3, rel=1e-6)


def test_js_is_the_mean_divergence_from_the_middle() -> None:
    """`js`, the default, is the mean of both KL divergences from the middle."""
    from_p = 1 / 2 * math.log(8 / 5) + 1 / 4 * math.log(4 / 3) + 1 / 4 * math.log(1 / 2)
    from_q = 1 / 8 * math.log(2 / 5) + 1 / 8 * math.log(2 / 3) + 3 / 4 * math.log(3 / 2)
    assert divergence(P, Q) == pytest.approx((from_p + from_q) / 2, rel=1e-6)


def test_unknown_probabilities_follow_the_other_side() -> None:
    """A side's tail goes to the tokens that it lacks in the proportions of the other side."""
    short = dist({1: 1 / 2}, tail=1 / 2)
    long = dist({2: 1 / 2, 3: 1 / 4}, tail=1 / 4)
    # over tokens 1, 2 and 3 that is (1/2, 1/3, 1/6) against (1/4, 1/2, 1/4)
    expected = 3 / 4 * (LN3 - LN2) - 1 / 4 * LN2
    assert divergence(short, long, "kl") == pytest.approx(expected, rel=1e-6)


def test_unknown_probabilities_stay_below_the_known_ones() -> None:
    """A token outside the top k is at most as probable as the last one inside."""
    one = dist({1: 0.7, 2: 0.1}, tail=0.2)
    other = dist({1: 0.4, 3: 0.2}, tail=0.4)
    # r = 2: (0.7, 0.1, 0.1, 0.1) against (0.4, 0.2, 0.2, 0.2), tokens 1, 2, 3 and all others
    pairs = [(0.4, 0.7), (0.2, 0.1), (0.2, 0.1), (0.2, 0.1)]
    expected = sum(q * math.log(q / p) for q, p in pairs)
    assert divergence(one, other, "kl") == pytest.approx(expected, rel=1e-6)


def test_equal_probabilities_in_tokens_and_tail() -> None:
    """Sides that differ only in which token is in the tail have a divergence of 0."""
    one = dist({1: 1 / 2, 2: 1 / 4}, tail=1 / 4)
    other = dist({1: 1 / 2, 3: 1 / 4}, tail=1 / 4)
    assert divergence(one, other, "kl") == pytest.approx(0, abs=1e-7)


def test_all_other_tokens_are_one_outcome() -> None:
    """Without missing tokens, the two tails are compared as one more token."""
    one = dist({1: 1 / 2, 2: 1 / 8}, tail=3 / 8)
    other = dist({1: 1 / 4, 2: 1 / 8}, tail=5 / 8)
    expected = 1 / 4 * math.log(1 / 2) + 5 / 8 * math.log(5 / 3)
    assert divergence(one, other, "kl") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("tail", [None, 0.0])
def test_without_a_tail_a_missing_token_has_no_probability(tail: float | None) -> None:
    """Without a tail, or with one that underflows, js stays finite."""
    narrow = dist({1: 3 / 4, 2: 1 / 4}, tail=tail)
    wide = dist({1: 3 / 4, 2: 1 / 8, 3: 1 / 8}, tail=tail)
    expected = (1 / 4 * math.log(4 / 3) + 1 / 8 * math.log(2 / 3) + 1 / 8 * LN2) / 2
    assert divergence(narrow, wide) == pytest.approx(expected, rel=1e-6)
    assert divergence(wide, narrow, "kl") == pytest.approx(LN2 / 4, rel=1e-6)


@pytest.mark.parametrize("tail", [None, 0.0])
def test_infinite_kl_is_an_error(tail: float | None) -> None:
    """A token with probability 0 in the reference alone makes `kl` an error."""
    narrow = dist({1: 3 / 4, 2: 1 / 4}, tail=tail)
    wide = dist({1: 3 / 4, 2: 1 / 8, 3: 1 / 8}, tail=tail)
    with pytest.raises(DivergenceError, match=r"infinite.*use js"):
        divergence(narrow, wide, "kl")


def test_js_of_disjoint_sides_is_ln_2() -> None:
    """The js divergence has its maximum if the sides have no token in common."""
    one, other = dist({1: 3 / 4, 2: 1 / 4}), dist({3: 3 / 4, 4: 1 / 4})
    assert divergence(one, other) == pytest.approx(LN2, rel=1e-12)


@pytest.mark.parametrize("kind", ["js", "kl"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_errors(bad: float, kind: Divergence) -> None:
    """A NaN or infinite log-probability is an error with its side."""
    broken = TokenDist(np.array([1, 2]), np.array([-0.5, bad]), 100)
    with pytest.raises(DivergenceError, match="the reference distribution has non-finite"):
        divergence(broken, P, kind)
    with pytest.raises(DivergenceError, match="the other distribution has non-finite"):
        divergence(P, broken, kind)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_tail_is_an_error(bad: float) -> None:
    """A NaN or infinite tail is an error."""
    broken = TokenDist(np.array([1, 2]), np.log([0.6, 0.3]), 100, tail_logprob=bad)
    with pytest.raises(DivergenceError, match="non-finite"):
        divergence(P, broken)


def test_uniform_sides_are_errors() -> None:
    """A uniform distribution is an error with its side and its number of tokens."""
    uniform = dist({1: 1 / 100, 2: 1 / 100, 3: 1 / 100}, tail=97 / 100)
    with pytest.raises(DivergenceError, match=r"the reference distribution is uniform.*its 100"):
        divergence(uniform, P)
    with pytest.raises(DivergenceError, match="the other distribution is uniform"):
        divergence(P, uniform)


def test_equal_probabilities_alone_are_not_uniform() -> None:
    """Ties among the known tokens, common in half precision, are no broken head."""
    tied = dist({1: 1 / 4, 2: 1 / 4, 3: 1 / 4}, tail=1 / 4)
    assert divergence(tied, tied) == 0


def test_tokens_of_one_vocabulary_alone() -> None:
    """A token that one side does not have at all gets none of its tail."""
    smaller = TokenDist(np.array([1, 2]), np.log([0.5, 0.25]), 4, tail_logprob=math.log(0.25))
    larger = TokenDist(np.array([1, 9]), np.log([0.5, 0.25]), 10, tail_logprob=math.log(0.25))
    # tokens 1, 2, 9 and all others: (1/2, 1/4, 0, 1/4) against (1/2, 1/8, 1/4, 1/8)
    expected = 1 / 4 * math.log(4 / 3) + 1 / 8 * LN2 + 1 / 8 * math.log(2 / 3)
    assert divergence(smaller, larger) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(DivergenceError, match="not in its vocabulary"):
        divergence(smaller, larger, "kl")


def test_probabilities_at_the_limit_of_a_float() -> None:
    """A probability whose half is 0 has no effect on js."""
    tiny = dist({1: 1.0 - 1e-7, 2: 1e-320}, tail=1e-7)
    assert divergence(tiny, dist({1: 1.0 - 1e-7, 3: 1e-8}, tail=9e-8)) < 1e-6


def test_one_token_is_not_uniform() -> None:
    """With top_k 1 a side has one token and its tail."""
    one, other = dist({1: 3 / 4}, tail=1 / 4), dist({1: 1 / 2}, tail=1 / 2)
    expected = 1 / 2 * math.log(2 / 3) + 1 / 2 * LN2
    assert divergence(one, other, "kl") == pytest.approx(expected, rel=1e-6)


def test_nearly_equal_distributions_are_nearly_zero_apart() -> None:
    """Tokens that enter and leave the top k do not add the whole tail to the divergence."""
    generator = np.random.default_rng(0)
    zipf = -1.35 * np.log(np.arange(1, 20_001))
    noisy = zipf + 0.02 * generator.standard_normal(zipf.size)
    found = divergence(cut(list(zipf), 256), cut(list(noisy), 256))
    whole = textbook(zipf, noisy, "js")
    assert whole < 1e-4
    assert 0.7 * whole < found <= whole * (1 + 1e-6)


@given(cuts, cuts)
def test_js_is_symmetric_and_bounded(one: TokenDist, other: TokenDist) -> None:
    """The js divergence is symmetric and in [0, ln 2]."""
    there, back = divergence(one, other), divergence(other, one)
    assert there == pytest.approx(back, abs=1e-12)
    assert 0.0 <= there <= LN2 + 1e-12


@given(cuts, cuts)
def test_kl_is_never_negative(one: TokenDist, other: TokenDist) -> None:
    """Rounding does not make kl negative."""
    assert divergence(one, other, "kl") >= 0.0


@given(cuts, st.sampled_from(["js", "kl"]))
def test_divergence_of_equal_sides_is_0(one: TokenDist, kind: Divergence) -> None:
    """The divergence of a distribution from itself is exactly 0."""
    assert divergence(one, one, kind) == 0.0


@given(cuts, cuts, st.sampled_from(["js", "kl"]), st.integers(0, 1000))
def test_order_of_tokens_does_not_matter(
    one: TokenDist, other: TokenDist, kind: Divergence, seed: int
) -> None:
    """Permuting the tokens of both sides does not change the divergence."""
    order = np.random.default_rng(seed)
    mixed = divergence(shuffled(one, order), shuffled(other, order), kind)
    assert mixed == pytest.approx(divergence(one, other, kind), abs=1e-12)


logits = st.lists(st.floats(-8, 8, width=32), min_size=VOCAB, max_size=VOCAB)


def textbook(one: npt.ArrayLike, other: npt.ArrayLike, kind: Divergence) -> float:
    """Return the divergence of two whole distributions, given by their logits."""
    p, q = (np.exp(x - np.logaddexp.reduce(x)) for x in (np.asarray(one), np.asarray(other)))
    if kind == "kl":
        return float(np.sum(q * np.log(q / p)))
    middle = (p + q) / 2
    return float(np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))) / 2


@given(logits, logits, st.sampled_from(["js", "kl"]))
def test_kl_over_the_whole_vocabulary(
    one: list[float], other: list[float], kind: Divergence
) -> None:
    """Without truncation, the value is that of the whole distributions."""
    assume(np.ptp(one) > 1e-3 and np.ptp(other) > 1e-3)
    found = divergence(cut(one, VOCAB), cut(other, VOCAB), kind)
    assert found == pytest.approx(textbook(one, other, kind), abs=1e-5)


@given(logits, logits, st.integers(2, VOCAB), st.integers(2, VOCAB), st.sampled_from(["js", "kl"]))
def test_never_above_the_value_over_the_whole_vocabulary(
    one: list[float], other: list[float], k: int, other_k: int, kind: Divergence
) -> None:
    """Truncation can make the value smaller, but not larger."""
    cut_one, cut_other = cut(one, k), cut(other, other_k)
    assume(np.ptp(cut_one.logprobs) > 1e-6 and np.ptp(cut_other.logprobs) > 1e-6)
    whole = textbook(one, other, kind)
    assert divergence(cut_one, cut_other, kind) <= whole * (1 + 1e-5) + 1e-6


@given(logits, st.integers(0, 1000), st.sampled_from(["js", "kl"]))
def test_some_whole_distributions_reach_the_value(
    one: list[float], seed: int, kind: Divergence
) -> None:
    """A change of the known tokens alone, with the rest in proportion, is measured exactly."""
    assume(np.ptp(one) > 1e-3)
    order = np.argsort(one)[::-1]
    other = np.array(one)
    other[order[:4]] += np.random.default_rng(seed).uniform(0, 1, 4)  # they stay the top 4
    cut_one, cut_other = cut(one, 4), cut(list(other), 4)
    assume(np.ptp(cut_one.logprobs) > 1e-6 and np.ptp(cut_other.logprobs) > 1e-6)
    assume(set(cut_one.token_ids) == set(cut_other.token_ids))
    found = divergence(cut_one, cut_other, kind)
    assert found == pytest.approx(textbook(one, other, kind), rel=1e-4, abs=1e-6)


def test_pairs_are_compared_in_order() -> None:
    """Each reference is compared with the other at the same index."""
    expected = [divergence(P, Q, "kl"), divergence(Q, P, "kl"), divergence(P, Q, "kl")]
    assert divergences([P, Q, P], [Q, P, Q], "kl") == expected


def test_different_lengths_are_an_error() -> None:
    """Both sequences must have the same length."""
    with pytest.raises(ValueError, match="shorter"):
        divergences([P, Q], [P], "js")
