"""Packed entries: what is damaged or of another entry is never served."""

from __future__ import annotations

import pytest

from forwardscope.store.codec import CorruptValueError
from forwardscope.store.redis_entries import pack, unpack, unpack_facts

from .entries import new


def test_an_entry_comes_back() -> None:
    """With its value and the ids of its forward call."""
    entry = new("one")
    back = unpack(pack(entry), entry.digest)
    assert (back.value, back.run_id) == (1.5, "run-1")
    assert (back.trace_id, back.span_id) == ("a" * 32, "b" * 16)


def test_each_flipped_bit_is_detected() -> None:
    """One flipped bit anywhere, in facts, value or checksums, makes the entry corrupt."""
    entry = new("one")
    good = pack(entry)
    for position in range(len(good) * 8):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(CorruptValueError):
            unpack(bytes(bad), entry.digest)


def test_each_cut_is_detected() -> None:
    """An entry without its end, or with more after it, is corrupt."""
    entry = new("one")
    good = pack(entry)
    for size in range(len(good)):
        with pytest.raises(CorruptValueError):
            unpack(good[:size], entry.digest)
    with pytest.raises(CorruptValueError):
        unpack(good + b"\0", entry.digest)


def test_parts_of_another_entry_are_detected() -> None:
    """Neither another entry, nor its facts before the value, nor its value after the facts."""
    one, other = new("one"), new("other", 2.5)
    halves = []
    for entry in (one, other):
        packed = pack(entry)
        _, end = unpack_facts(packed, entry.digest)
        halves.append((packed[:end], packed[end:]))
    (facts, value), (other_facts, other_value) = halves
    for mixed in (other_facts + other_value, other_facts + value, facts + other_value):
        with pytest.raises(CorruptValueError):
            unpack(mixed, one.digest)
