"""Result types of the scoring ops.

The arrays are read-only, and nothing else can change their memory, so that a cached
value can be returned to many callers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from forwardscope.store.agreement import difference
from forwardscope.store.codec import Part, RawArray, UnknownValueError, finite, register

__all__ = ["RollingLogprob", "TokenDist", "register_alike"]

_IDS, _LOGPROBS = np.dtype(np.int64), np.dtype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TokenDist:
    """A next-token distribution, truncated to its `k` most probable tokens.

    Attributes:
        token_ids: int64, shape (k,), in order of decreasing probability.
        logprobs: float32, shape (k,), in nats.
        vocab_size: Number of tokens in the whole distribution.
        tail_logprob: Log of the probability outside the k tokens, in nats; None
            where k is the whole vocabulary, -inf where it underflows.

    Raises:
        ValueError: The two arrays are not one-dimensional and of equal length.
    """

    token_ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    vocab_size: int
    tail_logprob: float | None = None

    def __post_init__(self) -> None:
        _own(self, "token_ids", _IDS)
        _own(self, "logprobs", _LOGPROBS)
        if self.token_ids.ndim != 1 or self.token_ids.shape != self.logprobs.shape:
            raise ValueError(
                "token_ids and logprobs must be one-dimensional and of equal length; "
                f"got shapes {self.token_ids.shape} and {self.logprobs.shape}"
            )

    def __reduce__(self) -> tuple[type[TokenDist], tuple[Any, ...]]:
        """Copy and unpickle through the constructor, which makes the arrays read-only."""
        return type(self), _values(self)


@dataclass(frozen=True, slots=True, eq=False)
class RollingLogprob:
    """The log-probability of each token of a text but the first, given those before it.

    Attributes:
        token_ids: int64, shape (N,).
        logprobs: float32, shape (N-1,), for tokens 1 to N-1, in nats.
        num_tokens: Number of tokens, N.
        total_logprob: Sum of `logprobs`, in nats.

    Raises:
        ValueError: The arrays' shapes do not match `num_tokens`.
    """

    token_ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    num_tokens: int
    total_logprob: float

    def __post_init__(self) -> None:
        _own(self, "token_ids", _IDS)
        _own(self, "logprobs", _LOGPROBS)
        expected = (self.num_tokens,), (max(0, self.num_tokens - 1),)
        if (self.token_ids.shape, self.logprobs.shape) != expected:
            raise ValueError(
                f"num_tokens {self.num_tokens} requires shapes {expected[0]} and {expected[1]}; "
                f"got {self.token_ids.shape} and {self.logprobs.shape}"
            )

    def __reduce__(self) -> tuple[type[RollingLogprob], tuple[Any, ...]]:
        """Copy and unpickle through the constructor, which makes the arrays read-only."""
        return type(self), _values(self)

    @property
    def mean_logprob(self) -> float:
        """Mean of `logprobs` in nats; 0.0 where it is empty."""
        return self.total_logprob / self.logprobs.size if self.logprobs.size else 0.0

    @property
    def perplexity(self) -> float:
        """exp(-mean_logprob); 1.0 where `logprobs` is empty, inf where it overflows."""
        try:
            return math.exp(-self.mean_logprob)
        except OverflowError:
            return math.inf


@difference.register
def _of_distributions(stored: TokenDist, computed: TokenDist) -> float:
    """Compare by token id: tokens of nearly equal probability may have changed places.

    A token that only one of them has was at most as probable as the other's last one.
    """
    if stored.vocab_size != computed.vocab_size or stored.logprobs.size != computed.logprobs.size:
        return math.inf
    tails = [
        0.0 if one.tail_logprob is None else math.exp(one.tail_logprob)
        for one in (stored, computed)
    ]
    _, at, there = np.intersect1d(
        stored.token_ids, computed.token_ids, assume_unique=True, return_indices=True
    )
    apart = [abs(tails[0] - tails[1]), _apart(stored.logprobs[at], computed.logprobs[there])]
    for one, other, common in ((stored, computed, at), (computed, stored, there)):
        lacking = np.delete(one.logprobs, common)
        if lacking.size:
            apart.append(float(lacking.max() - other.logprobs[-1]))
    return max(apart)


@difference.register
def _of_rolled(stored: RollingLogprob, computed: RollingLogprob) -> float:
    if not np.array_equal(stored.token_ids, computed.token_ids):
        return math.inf
    apart = difference(stored.total_logprob, computed.total_logprob)
    return max(apart, _apart(stored.logprobs, computed.logprobs))


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the largest difference; equal infinities are equal, and NaN is never."""
    unequal = one != other
    apart = np.abs(one[unequal] - other[unequal])
    return float(np.nan_to_num(apart, nan=math.inf).max(initial=0.0))


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, field.name) for field in fields(value))


def _own(value: object, name: str, dtype: np.dtype[Any]) -> None:
    """Replace an array field with one that nothing can change; copy only if needed."""
    given = getattr(value, name)
    array: npt.NDArray[Any] = np.ascontiguousarray(given, dtype=dtype)
    base: object = array.base
    if array.flags.writeable or not (base is None or isinstance(base, bytes)):
        array = array.copy()
        array.setflags(write=False)
    if array is not given:
        object.__setattr__(value, name, array)


def _parts(value: TokenDist | RollingLogprob) -> list[Part]:
    """Return the fields of a value for the store."""
    if not np.isfinite(value.logprobs).all():
        raise UnknownValueError("log-probabilities are not finite")
    return [_raw(one) if isinstance(one, np.ndarray) else one for one in _values(value)]


def _dist_parts(value: TokenDist) -> list[Part]:
    if value.tail_logprob not in (None, -math.inf):
        finite(value.tail_logprob)
    return _parts(value)


def _rolling_parts(value: RollingLogprob) -> list[Part]:
    finite(value.total_logprob)
    return _parts(value)


def _raw(array: npt.NDArray[Any]) -> RawArray:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return RawArray(little.dtype.str, little.shape, little.tobytes())


def _array(raw: RawArray, dtype: str) -> npt.NDArray[Any]:
    if raw.dtype != dtype:
        raise ValueError(f"an array has dtype {raw.dtype}, not {dtype}")
    return np.ndarray(raw.shape, dtype, raw.data)


def _dist(ids: RawArray, logprobs: RawArray, *plain: Any) -> TokenDist:
    return TokenDist(_array(ids, "<i8"), _array(logprobs, "<f4"), *plain)


def _rolling(ids: RawArray, logprobs: RawArray, *plain: Any) -> RollingLogprob:
    return RollingLogprob(_array(ids, "<i8"), _array(logprobs, "<f4"), *plain)


def register_alike(
    tag: str, type_: type[Any], ours: type[TokenDist] | type[RollingLogprob]
) -> None:
    """Let a store keep and verify the values of another tool's type.

    Args:
        tag: As in `forwardscope.store.codec.register`.
        type_: A dataclass with the fields of `ours`. A value that `ours` would refuse is
            not stored.
        ours: The type of ours that it is like.
    """
    to_parts, from_parts = _CODECS[ours]

    def own(value: Any) -> Any:
        try:
            return ours(*_values(value))
        except (TypeError, ValueError) as error:
            raise UnknownValueError(str(error)) from error

    def compare(stored: Any, computed: Any) -> float:
        return difference(own(stored), own(computed))

    register(
        tag,
        type_,
        lambda value: to_parts(own(value)),
        lambda *parts: type_(*_values(from_parts(*parts))),
    )
    difference.register(type_, compare)


_CODECS: Mapping[type, tuple[Callable[[Any], list[Part]], Callable[..., Any]]] = {
    TokenDist: (_dist_parts, _dist),
    RollingLogprob: (_rolling_parts, _rolling),
}
for _type, _codec in _CODECS.items():
    register(_type.__name__, _type, *_codec)
