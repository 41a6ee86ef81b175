"""Divergence between two next-token distributions of which only the top k tokens are known.

The value is the smallest divergence that is consistent with both top-k sets. It is 0 for
equal distributions and never exceeds the divergence over the whole vocabulary.

Its outcomes are the tokens of either set, and all other tokens as one. A token x that Q lacks
has 0 <= Q(x) <= q_k, where q_k is Q's smallest known probability; likewise P(y) <= p_k.
The divergence is convex in the unknown probabilities. At its minimum they have a common
ratio Q/P = r, unless they are at their limit:

    Q(x) = min(q_k, r P(x)),  P(y) = min(p_k, Q(y) / r),  Q(others) = r P(others)

The ratio r follows from the sum of all probabilities of a side, which is 1. Where no
probability is left for the others on either side, each side has a ratio of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from forwardscope.backends.values import TokenDist
from forwardscope.errors import DivergenceError

__all__ = ["Divergence", "divergence", "divergences"]

#: `js` is Jensen-Shannon, in [0, ln 2]; `kl` is KL(other || reference), unbounded.
Divergence = Literal["js", "kl"]

FloatArray = npt.NDArray[np.float64]

#: A largest log-probability nearer to that of a uniform distribution means a broken model head.
_UNIFORM_SPREAD: Final = 1e-6
#: Ratios between which the common ratio is searched, and steps that reach its last bit.
_LEAST: Final = 1e-300
_MOST: Final = 1e300
_STEPS: Final = 64
#: A probability of all others below this is a rounding error of a difference.
_ROUNDING: Final = 1e-12


def divergence(reference: TokenDist, other: TokenDist, kind: Divergence = "js") -> float:
    """Return the divergence of two distributions, in nats.

    Args:
        reference: P, such as the base model's.
        other: Q, such as the fine-tuned model's.
        kind: `js`, or `kl` for KL(Q || P).

    Raises:
        DivergenceError: A side has non-finite or uniform log-probabilities, or
            the divergence is infinite.
    """
    _check(reference, "reference")
    _check(other, "other")
    p, q = _closest(reference, other)
    if kind == "kl":
        return _kl(q, p)
    middle = 0.5 * (p + q)
    return 0.5 * _kl(p, middle) + 0.5 * _kl(q, middle)


def divergences(
    reference: Sequence[TokenDist], other: Sequence[TokenDist], kind: Divergence
) -> list[float]:
    """Return the divergence of each pair, in nats; that of the same two objects is computed once.

    Many prompts have one distribution where it is made up, as in each plan.
    """
    pairs = list(zip(reference, other, strict=True))
    distinct = {(id(p), id(q)): (p, q) for p, q in pairs}
    known = {ids: divergence(*pair, kind) for ids, pair in distinct.items()}
    return [known[id(p), id(q)] for p, q in pairs]


def _check(dist: TokenDist, side: str) -> None:
    tail = -np.inf if dist.tail_logprob is None else dist.tail_logprob
    if not (np.isfinite(dist.logprobs).all() and tail < np.inf):
        raise DivergenceError(f"the {side} distribution has non-finite log-probabilities")
    if dist.vocab_size > 1 and dist.logprobs.max() < _UNIFORM_SPREAD - math.log(dist.vocab_size):
        raise DivergenceError(
            f"the {side} distribution is uniform over its {dist.vocab_size} tokens; "
            "check the model's output head"
        )


def _closest(reference: TokenDist, other: TokenDist) -> tuple[FloatArray, FloatArray]:
    """Return the closest distributions that are consistent with both top-k sets.

    Returns:
        Two arrays that sum to 1: the probabilities of the union's tokens, and of all
        others where there are any.
    """
    union = np.union1d(reference.token_ids, other.token_ids)
    p_has_others, q_has_others = (
        int((union < dist.vocab_size).sum()) < dist.vocab_size for dist in (reference, other)
    )
    p, p_lacks, p_limit, p_tail = _known(reference, union)
    q, q_lacks, q_limit, q_tail = _known(other, union)
    p_at_lacking, q_at_lacking = p[q_lacks], q[p_lacks]  # the probabilities on the other side

    if not (p_lacks.any() or q_lacks.any()):  # nothing to search for, as in each dry run
        p_rest, q_rest = p_tail * p_has_others, q_tail * q_has_others
        if p_has_others and p_rest == 0 and q_rest < _ROUNDING:
            q_rest = 0.0
        return _whole(p, p_rest), _whole(q, q_rest)

    def p_others(ratio: float) -> float:
        return p_tail - float(np.minimum(p_limit, q_at_lacking / ratio).sum())

    def q_others(ratio: float) -> float:
        return q_tail - float(np.minimum(q_limit, p_at_lacking * ratio).sum())

    p_ratio = _root(p_others, _LEAST, _MOST)
    q_ratio = _root(lambda ratio: -q_others(ratio), _LEAST, _MOST)
    p_rest = max(0.0, p_others(p_ratio)) if p_has_others and not q_has_others else 0.0
    q_rest = max(0.0, q_others(q_ratio)) if q_has_others and not p_has_others else 0.0
    if p_has_others and q_has_others and p_ratio < q_ratio:
        ratio = _root(lambda ratio: ratio * p_others(ratio) - q_others(ratio), p_ratio, q_ratio)
        p_ratio = q_ratio = ratio
        p_rest, q_rest = max(0.0, p_others(ratio)), max(0.0, q_others(ratio))
        if p_rest == 0 and q_rest < _ROUNDING:  # neither side has other tokens
            q_rest = 0.0
    p[p_lacks] = np.minimum(p_limit, q_at_lacking / p_ratio)
    q[q_lacks] = np.minimum(q_limit, p_at_lacking * q_ratio)
    return _whole(p, p_rest), _whole(q, q_rest)


def _whole(known: FloatArray, rest: float) -> FloatArray:
    """Append the rest, set probabilities to 0 whose half would be 0, and divide by the sum."""
    probs: FloatArray = np.append(known, rest)
    probs[probs < _LEAST] = 0.0
    probs /= probs.sum()
    return probs


def _known(
    dist: TokenDist, union: npt.NDArray[np.int64]
) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray, float]:
    """Return the known values of a distribution over a sorted union of tokens.

    Returns:
        The probabilities, 0 for tokens that the distribution lacks; which tokens it
        lacks; the limit for each of these, 0 outside its vocabulary; and the tail, the
        probability of all of them and all tokens outside the union.
    """
    places = np.searchsorted(union, dist.token_ids)
    probs: FloatArray = np.zeros(union.size)
    probs[places] = np.exp(dist.logprobs.astype(np.float64))
    lacks = np.ones(union.size, dtype=bool)
    lacks[places] = False
    tail = 0.0 if dist.tail_logprob is None else float(np.exp(dist.tail_logprob))
    smallest = float(probs[places].min()) if tail > 0 else 0.0
    limits: FloatArray = np.where(union[lacks] < dist.vocab_size, smallest, 0.0)
    return probs, lacks, limits, tail


def _root(increasing: Callable[[float], float], least: float, most: float) -> float:
    """Return the ratio at which an increasing function is 0, or the nearer of both ends."""
    low, high = np.log(least), np.log(most)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        if increasing(float(np.exp(middle))) < 0:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


def _kl(p: FloatArray, q: FloatArray) -> float:
    """Return KL(p || q) in nats, at least 0; a token with p = 0 contributes nothing."""
    positive = p > 0
    if (q[positive] == 0).any():
        raise DivergenceError(
            "the divergence is infinite: a token of one side has no probability on the "
            "other, as where it is not in its vocabulary; use js"
        )
    return max(0.0, float(np.sum(p[positive] * np.log(p[positive] / q[positive]))))
