"""Results own read-only arrays and reject arrays of the wrong shape."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from forwardscope.backends import RollingLogprob, TokenDist

Value = TokenDist | RollingLogprob
Make = Callable[[np.ndarray, np.ndarray], Value]


def _dist(token_ids: np.ndarray, logprobs: np.ndarray) -> TokenDist:
    return TokenDist(token_ids, logprobs, vocab_size=10, tail_logprob=-2.0)


def _rolling(token_ids: np.ndarray, logprobs: np.ndarray) -> RollingLogprob:
    """Add a first token, which has no log-probability."""
    return RollingLogprob(np.append(token_ids, 7), logprobs, len(token_ids) + 1, -3.0)


both = pytest.mark.parametrize("make", [_dist, _rolling])


@both
def test_arrays_are_owned_and_read_only(make: Make) -> None:
    """The arrays own their memory, have the documented dtypes and cannot be written."""
    value = make(np.array([2, 1]), np.array([-1.0, -2.0], dtype=np.float32))
    assert (value.token_ids.dtype, value.logprobs.dtype) == (np.int64, np.float32)
    for array in (value.token_ids, value.logprobs):
        assert array.base is None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def _through_pickle(value: Value) -> Value:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


@both
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, dataclasses.replace, _through_pickle])
def test_arrays_of_a_copy_are_read_only(make: Make, copied: Callable[[Value], Value]) -> None:
    """A copy, and a value from another process, has equal fields and cannot be written."""
    value = make(np.array([2, 1]), np.array([-1.0, -2.0], dtype=np.float32))
    other = copied(value)
    assert dataclasses.fields(other) == dataclasses.fields(value)
    for field in dataclasses.fields(value):
        assert np.array_equal(getattr(other, field.name), getattr(value, field.name))
    for array in (other.token_ids, other.logprobs):
        assert (array.base, array.flags.writeable) == (None, False)


@both
def test_source_arrays_are_copied(make: Make) -> None:
    """Later writes to the source arrays do not change the value."""
    token_ids, logprobs = np.array([2, 1]), np.array([-1.0, -2.0], dtype=np.float32)
    value = make(token_ids, logprobs)
    token_ids[:] = 99
    logprobs[:] = 99.0
    assert value.token_ids[:2].tolist() == [2, 1]
    assert value.logprobs.tolist() == [-1.0, -2.0]


@both
def test_read_only_view_is_copied(make: Make) -> None:
    """A read-only view does not own its memory, which can still change."""
    token_ids, logprobs = np.array([2, 1, 5]), np.array([-1.0, -2.0, -3.0], dtype=np.float32)
    views = token_ids[:2], logprobs[:2]
    for view in views:
        view.flags.writeable = False
    value = make(*views)
    token_ids[:] = 99
    logprobs[:] = 99.0
    assert value.token_ids[:2].tolist() == [2, 1]
    assert value.logprobs.tolist() == [-1.0, -2.0]


@both
def test_other_dtypes_and_strides_are_converted(make: Make) -> None:
    """Narrow integers, doubles and strided arrays get the documented dtype and layout."""
    value = make(np.array([2, 0, 1], dtype=np.int32)[::2], np.array([-1.0, 9.0, -2.0])[::2])
    assert value.token_ids[:2].tolist() == [2, 1]
    assert value.logprobs.tolist() == [-1.0, -2.0]
    assert (value.token_ids.dtype, value.logprobs.dtype) == (np.int64, np.float32)
    assert value.token_ids.flags.c_contiguous
    assert value.logprobs.flags.c_contiguous


def test_owned_read_only_array_is_not_copied() -> None:
    """An array that already meets the conditions is used as it is."""
    token_ids = np.array([2, 1])
    token_ids.flags.writeable = False
    assert _dist(token_ids, np.array([-1.0, -2.0])).token_ids is token_ids


@pytest.mark.parametrize(
    ("token_ids", "logprobs"),
    [
        (np.zeros(2), np.zeros(3)),
        (np.zeros(0), np.zeros(1)),
        (np.zeros((2, 2)), np.zeros((2, 2))),
        (np.zeros((1, 2)), np.zeros(2)),
    ],
)
def test_distribution_with_shapes_that_do_not_fit(
    token_ids: np.ndarray, logprobs: np.ndarray
) -> None:
    """Arrays of different shapes or more than one dimension raise an error with both shapes."""
    with pytest.raises(ValueError, match="one-dimensional and of equal length") as raised:
        TokenDist(token_ids, logprobs, vocab_size=10)
    assert str(token_ids.shape) in str(raised.value)
    assert str(logprobs.shape) in str(raised.value)


@pytest.mark.parametrize(
    ("token_ids", "logprobs", "num_tokens"),
    [
        (np.zeros(3), np.zeros(3), 3),
        (np.zeros(3), np.zeros(2), 4),
        (np.zeros(3), np.zeros(1), 3),
        (np.zeros((3, 1)), np.zeros(2), 3),
        (np.zeros(1), np.zeros(1), 1),
    ],
)
def test_rolling_with_shapes_that_do_not_fit(
    token_ids: np.ndarray, logprobs: np.ndarray, num_tokens: int
) -> None:
    """Other shapes than N ids and N-1 log-probabilities raise an error with both shapes."""
    with pytest.raises(ValueError, match=f"^num_tokens {num_tokens} requires shapes") as raised:
        RollingLogprob(token_ids, logprobs, num_tokens, 0.0)
    assert f"got {token_ids.shape} and {logprobs.shape}" in str(raised.value)


def test_perplexity_is_of_the_mean() -> None:
    """Perplexity is exp of the negated mean over the tokens that have a log-probability."""
    value = RollingLogprob(np.array([1, 2, 3]), np.log([0.5, 0.125]), 3, math.log(0.5 * 0.125))
    assert value.mean_logprob == pytest.approx(math.log(0.25))
    assert value.perplexity == pytest.approx(4.0)


def test_perplexity_of_one_token() -> None:
    """A text of one token has no log-probability, so its perplexity is 1."""
    value = RollingLogprob(np.array([5]), np.array([]), 1, 0.0)
    assert (value.mean_logprob, value.perplexity) == (0.0, 1.0)


def test_perplexity_beyond_a_float() -> None:
    """A perplexity that overflows is infinity, not an error."""
    value = RollingLogprob(np.array([5, 6]), np.array([-1e4]), 2, -1e4)
    assert value.perplexity == math.inf
