"""Values as bytes and back."""

from __future__ import annotations

import math
import struct
import tracemalloc
from contextlib import suppress
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.store.codec import (
    CorruptValueError,
    RawArray,
    UnknownValueError,
    decode,
    encode,
    register,
)

_KEY, _OTHER_KEY = b"k" * 32, b"o" * 32
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_LOGPROBS = st.floats(-1e4, 0.0, width=32)


@st.composite
def _distributions(draw: st.DrawFn) -> TokenDist:
    size = draw(st.integers(0, 300))
    ids = draw(arrays.arrays(np.int64, size, elements=st.integers(0, 2**40)))
    logprobs = draw(arrays.arrays(np.float32, size, elements=_LOGPROBS))
    tail = draw(st.none() | st.just(-math.inf) | _FLOATS)
    return TokenDist(ids, logprobs, draw(st.integers(1, 2**40)), tail)


@st.composite
def _rolling(draw: st.DrawFn) -> RollingLogprob:
    size = draw(st.integers(0, 300))
    ids = draw(arrays.arrays(np.int64, size))
    logprobs = draw(arrays.arrays(np.float32, max(0, size - 1), elements=_LOGPROBS))
    return RollingLogprob(ids, logprobs, size, draw(_FLOATS))


_VALUES = st.one_of(
    *(_FLOATS, st.text(st.characters()), st.tuples(_FLOATS, st.booleans())),
    *(_distributions(), _rolling()),
)


def _bits(value: Any) -> Any:
    """Return a value as something that is equal only for the same bits and types."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, TokenDist):
        return tuple(map(_bits, (value.token_ids, value.logprobs, value.vocab_size)))
    if isinstance(value, RollingLogprob):
        return tuple(map(_bits, (value.token_ids, value.logprobs, value.total_logprob)))
    if isinstance(value, tuple):
        return tuple(map(_bits, value))
    return (float, struct.pack("<d", value)) if type(value) is float else (type(value), value)


@given(_VALUES)
def test_a_value_comes_back_bit_for_bit(value: Any) -> None:
    """Decoding gives a value of the same type with the same bits."""
    back = decode(encode(value, _KEY), _KEY)
    assert type(back) is type(value)
    assert _bits(back) == _bits(value)
    assert getattr(back, "tail_logprob", None) == getattr(value, "tail_logprob", None)


@given(_VALUES)
def test_arrays_cannot_be_changed(value: Any) -> None:
    """Decoded arrays are read-only for good and can be returned to many callers."""
    back = decode(encode(value, _KEY), _KEY)
    for name in ("token_ids", "logprobs"):
        array = getattr(back, name, None)
        if array is not None:
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)


def _dist(size: int = 16) -> TokenDist:
    return TokenDist(np.arange(size), np.linspace(-1, -9, size), 50_000, -3.5)


@pytest.mark.parametrize("value", [_dist(), 1.5, "text", (0.5, True)], ids=repr)
def test_each_flipped_bit_is_detected(value: Any) -> None:
    """One flipped bit anywhere, the checksum included, makes the value corrupt."""
    good = encode(value, _KEY)
    for position in range(len(good) * 8):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(CorruptValueError):
            decode(bytes(bad), _KEY)


def test_each_cut_is_detected() -> None:
    """A value without its end, or with more after it, is corrupt."""
    good = encode(_dist(), _KEY)
    for size in range(len(good)):
        with pytest.raises(CorruptValueError):
            decode(good[:size], _KEY)
    with pytest.raises(CorruptValueError):
        decode(good + b"\0", _KEY)


def test_the_value_of_another_entry_is_detected() -> None:
    """A sound value under the key of another entry is corrupt."""
    with pytest.raises(CorruptValueError, match="checksum"):
        decode(encode(1.5, _KEY), _OTHER_KEY)


def _sealed(body: bytes) -> bytes:
    """Return bytes with a checksum that holds, as a hostile program would."""
    return body + sha256(_KEY + body).digest()[:16]


def _made(header: bytes, content: bytes = b"", format_: int = 1, magic: bytes = b"fwsv") -> bytes:
    return _sealed(struct.pack("<4sBH", magic, format_, len(header)) + header + content)


@pytest.mark.parametrize(
    "data",
    [
        *(_sealed(b""), _sealed(b"fwsv"), _made(b"", magic=b"none"), _made(b"float;")),
        *(_made(b"float;d", b"1234567"), _made(b"float;d", b"123456789"), _made(b"float;x")),
        *(_made(b"float;d;d", b"1" * 16), _made(b"str;s:99999999999999999999", b"a")),
        *(_made(b"str;s:-1"), _made(b"str;s: 1", b"a"), _made(b"str;s:" + b"9" * 5000)),
        *(_made(b"str;s:1", b"\xff"), _made(b"float;\xff"), _made(b"float,bool;d", b"1" * 8)),
        _made(b"TokenDist;<i8:4611686018427387904;<f4:1;i;n", b"1" * 12),
        _made(b"TokenDist;<i8:0,99999999999999999999;<f4:0;i;n", b"1" * 8),
        _made(b"TokenDist;<i8:2;<f4:1;i;n", b"1" * 28),
        _made(b"TokenDist;<f4:2;<f4:2;i;n", b"1" * 24),
        _made(b"TokenDist;|O:1;<f4:2;i;n", b"1" * 24),
        _made(b"TokenDist;d;d;i;n", b"1" * 24),
        _made(b"RollingLogprob;<i8:2;<f4:2;i;d", b"1" * 40),
        *("text", None, 5, bytearray(_made(b"float;d", b"1" * 8))),
    ],
    ids=repr,
)
def test_hostile_bytes_are_corrupt(data: Any) -> None:
    """Wrong headers, lengths and fields are corrupt, though the checksum holds."""
    with pytest.raises(CorruptValueError):
        decode(data, _KEY)


def test_hostile_lengths_allocate_nothing() -> None:
    """A length beyond what is there takes no memory."""
    data = _made(b"TokenDist;<i8:8589934592;<f4:1;i;n", b"1" * 12)
    tracemalloc.start()
    with pytest.raises(CorruptValueError):
        decode(data, _KEY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_are_a_value_or_refused(header: bytes, content: bytes) -> None:
    """Whatever is in a header, decoding returns or raises one of two errors."""
    for data in (header, _made(header, content), _made(b"TokenDist;" + header, content)):
        with suppress(CorruptValueError, UnknownValueError):
            decode(data, _KEY)


@pytest.mark.parametrize("data", [_made(b"other;d", b"1" * 8), _made(b"float;d", b"", format_=2)])
def test_values_of_other_programs_are_not_corrupt(data: bytes) -> None:
    """An unknown tag or format is told apart from damage: another program can read it."""
    with pytest.raises(UnknownValueError):
        decode(data, _KEY)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1, True, b"bytes", [1.5], {"a": 1}, object(), np.float64(1.5), np.arange(3)),
        *((1.5,), (1.5, 1), (1, True), (1.5, True, 1.5), math.nan, math.inf, (math.nan, True)),
        TokenDist(np.arange(2), np.array([-1, math.nan]), 9),
        TokenDist(np.arange(2), np.array([-1, -math.inf]), 9),
        TokenDist(np.arange(2), np.array([-1, -2]), 9, math.nan),
        TokenDist(np.arange(2), np.array([-1, -2]), 9, math.inf),
        TokenDist(np.arange(2), np.array([-1, -2]), 2**64),
        RollingLogprob(np.arange(2), np.array([-1]), 2, math.nan),
        RollingLogprob(np.arange(2), np.array([math.inf]), 2, -1.0),
    ],
    ids=lambda value: type(value).__name__,  # of each run the same, unlike an address
)
def test_other_values_are_not_stored(value: Any) -> None:
    """Unknown types, and numbers that only an error gives, are refused."""
    with pytest.raises(UnknownValueError):
        encode(value, _KEY)


class _Mine:
    def __init__(self, array: Any) -> None:
        self.array = array


def test_other_types_can_be_registered() -> None:
    """A registered type is stored with its fields; an array keeps its shape and bytes."""
    register(
        "tests.mine",
        _Mine,
        lambda one: (RawArray("<f4", (2, 3), one.array), None, True, -1, "λ"),
        lambda raw, *rest: _Mine((raw.shape, bytes(raw.data), rest)),
    )
    back = decode(encode(_Mine(bytes(24)), _KEY), _KEY)
    assert back.array == ((2, 3), bytes(24), (None, True, -1, "λ"))


@pytest.mark.parametrize(
    "part",
    [RawArray("<f4", (2,), b"123"), RawArray("|O", (1,), b"12345678"), 2**63, b"bytes", [1]],
    ids=repr,
)
def test_wrong_parts_are_not_stored(part: Any) -> None:
    """What a registered type returns is checked."""
    register("tests.mine", _Mine, lambda _: (part,), _Mine)
    with pytest.raises(UnknownValueError):
        encode(_Mine(None), _KEY)
