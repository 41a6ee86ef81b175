"""Divergence between two next-token distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from forwardscope.backends.values import TokenDist
from forwardscope.errors import DivergenceError

__all__ = ["Divergence", "divergence", "divergences"]

#: `js` is Jensen-Shannon, in [0, ln 2]; `kl` is KL(other || reference), unbounded.
Divergence = Literal["js", "kl"]

FloatArray = npt.NDArray[np.float64]

#: Real logits differ at least in their last bits; a smaller spread means a broken model head.
_UNIFORM_SPREAD = 1e-9


def divergence(reference: TokenDist, other: TokenDist, kind: Divergence = "js") -> float:
    """Return the divergence of two distributions, in nats.

    It is computed over the union of both top-k sets. The tail mass of each side
    is divided equally among the tokens of the union that this side lacks. Then
    both sides are renormalised.

    Raises:
        DivergenceError: A side has non-finite or uniform log-probabilities, or
            the divergence is infinite.
    """
    _check(reference, "reference")
    _check(other, "other")
    union = np.union1d(reference.token_ids, other.token_ids)
    p = _on_support(reference, union)
    q = _on_support(other, union)
    if kind == "kl":
        return _kl(q, p)
    middle = 0.5 * (p + q)
    return 0.5 * _kl(p, middle) + 0.5 * _kl(q, middle)


def divergences(
    reference: Sequence[TokenDist], other: Sequence[TokenDist], kind: Divergence
) -> list[float]:
    """Return the divergence of each pair, in nats."""
    return [divergence(p, q, kind) for p, q in zip(reference, other, strict=True)]


def _check(dist: TokenDist, side: str) -> None:
    tail = -np.inf if dist.tail_logprob is None else dist.tail_logprob
    if not (np.isfinite(dist.logprobs).all() and tail < np.inf):
        raise DivergenceError(f"the {side} distribution has non-finite log-probabilities")
    if dist.logprobs.size > 1 and np.ptp(dist.logprobs) < _UNIFORM_SPREAD:
        raise DivergenceError(
            f"the {side} distribution is uniform over its top {dist.logprobs.size} tokens; "
            "check the model's output head"
        )


def _on_support(dist: TokenDist, support: npt.NDArray[np.int64]) -> FloatArray:
    """Return probabilities that sum to 1 over a sorted support with all tokens of `dist`."""
    places = np.searchsorted(support, dist.token_ids)
    probs: FloatArray = np.zeros(support.size)
    probs[places] = np.exp(dist.logprobs.astype(np.float64))
    missing = np.ones(support.size, dtype=bool)
    missing[places] = False
    if dist.tail_logprob is not None and missing.any():
        probs[missing] = np.exp(dist.tail_logprob) / missing.sum()
    probs /= probs.sum()
    return probs


def _kl(p: FloatArray, q: FloatArray) -> float:
    """Return KL(p || q) in nats, at least 0; a token with p = 0 contributes nothing."""
    held = p > 0
    if (q[held] == 0).any():
        raise DivergenceError(
            "the divergence is infinite: one side gives no probability to a token of the "
            "other; raise top_k or use js"
        )
    return max(0.0, float(np.sum(p[held] * np.log(p[held] / q[held]))))
