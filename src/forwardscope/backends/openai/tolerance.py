"""How far a server's values differ with what it computes at the same time, and between views."""

from __future__ import annotations

from typing import Final

from forwardscope.backends.openai.scorer import ServedScorer
from forwardscope.store.agreement import difference
from forwardscope.store.tier import DEFAULT_TOLERANCE

__all__ = ["largest_difference", "measured_tolerance"]

#: Longer than a block of vLLM's cache of prefixes, so that the second time some is reused.
_TEXT: Final = (
    "The same text is computed alone and together with others, whose lengths differ. In half "
    "precision the results are not equal, because a server divides its work by what it has to do."
)
_SAMPLES: Final = tuple(_TEXT[: len(_TEXT) * part // 4] for part in range(1, 5))
_TOP_K: Final = 20
#: Few samples do not show the largest difference.
_MARGIN: Final = 4.0


def measured_tolerance(scorer: ServedScorer) -> float:
    """Return the largest difference of a log-probability to expect, in nats.

    It is measured with five requests, and at least that of `fast` in float32.
    """
    top_k = min(_TOP_K, scorer.vocab_size)
    alone = [scorer.next_token_dists([text], top_k)[0] for text in _SAMPLES]
    together = scorer.next_token_dists(_SAMPLES, top_k)
    apart = max(map(difference, alone, together))
    return max(DEFAULT_TOLERANCE, _MARGIN * apart)


def largest_difference(one: ServedScorer, other: ServedScorer) -> float:
    """Return the largest difference of a log-probability of two views, in nats.

    It is measured with one request to each.
    """
    top_k = min(_TOP_K, one.vocab_size)
    views = [scorer.next_token_dists(_SAMPLES, top_k) for scorer in (one, other)]
    return max(map(difference, *views))
