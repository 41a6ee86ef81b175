"""Values of another tool's types in a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from forwardscope.backends.values import TokenDist, register_alike
from forwardscope.store.agreement import agree
from forwardscope.store.codec import UnknownValueError, decode, encode

_DIGEST = bytes(32)


@dataclass
class _Dist:
    token_ids: Any
    logprobs: Any
    vocab_size: int
    tail_logprob: float | None = None


register_alike("tests.Dist", _Dist, TokenDist)


def _dist(*logprobs: float) -> _Dist:
    return _Dist(np.arange(len(logprobs)), np.array(logprobs, dtype=np.float32), 9, -3.0)


def test_a_value_comes_back_as_its_own_type() -> None:
    """With equal fields."""
    value = _dist(-0.5, -1.5)
    stored = decode(encode(value, _DIGEST), _DIGEST)
    assert type(stored) is _Dist
    assert (stored.vocab_size, stored.tail_logprob) == (9, -3.0)
    assert stored.logprobs.tolist() == [-0.5, -1.5]


def test_a_value_that_ours_would_refuse_is_not_stored() -> None:
    """Arrays of unequal length, or a number that is not finite."""
    for value in (_Dist([1, 2], [-1.0], 9), _dist(float("nan"))):
        with pytest.raises(UnknownValueError):
            encode(value, _DIGEST)


def test_values_agree_within_the_tolerance() -> None:
    """As those of our own type do."""
    assert agree(_dist(-0.5), _dist(-0.50005), 1e-4)
    assert not agree(_dist(-0.5), _dist(-0.6), 1e-4)
