"""The size of an entry: arrays, containers, dataclasses and strings."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from forwardscope import ForwardCache
from forwardscope.core.cache import size_of, size_of_strings


@dataclass
class _Pair:
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class _Slotted:
    left: Any
    right: Any


class _Plain:
    def __init__(self, held: object) -> None:
        self.held = held


class _Hostile:
    @property
    def nbytes(self) -> int:
        raise RuntimeError("not today")


class _Odd:
    nbytes = "many"


class _Unsized:
    def __sizeof__(self) -> int:
        raise TypeError("not today")


@pytest.mark.parametrize("value", [1, 1.5, True, None, 2j, "text", "λ" * 50, b"bytes"])
def test_scalar_counts_its_own_size(value: object) -> None:
    """Numbers, strings and bytes count their own size."""
    assert size_of(value) == sys.getsizeof(value)


def test_array_counts_its_data() -> None:
    """An array counts the bytes of its data, not the small object that refers to them."""
    assert size_of(np.zeros(1000, np.float64)) == 8000
    assert size_of(np.zeros((10, 10), np.float32)) == 400
    assert size_of(np.float32(1)) == 4
    assert size_of(memoryview(bytes(77))) == 77


@pytest.mark.parametrize("container", [list, tuple, set, frozenset, deque])
def test_container_is_walked(container: type) -> None:
    """A container counts itself and what it holds."""
    value = container([b"x" * 1000, b"y" * 500])
    held = sys.getsizeof(b"x" * 1000) + sys.getsizeof(b"y" * 500)
    assert size_of(value) == sys.getsizeof(value) + held


def test_dict_counts_keys_and_values() -> None:
    """Both sides of a dict are walked."""
    value = {"k" * 100: "v" * 200}
    assert size_of(value) == sum(map(sys.getsizeof, (value, "k" * 100, "v" * 200)))


@pytest.mark.parametrize("kind", [_Pair, _Slotted])
def test_dataclass_is_walked(kind: type) -> None:
    """The fields of a dataclass count, with slots and without."""
    value = kind(np.zeros(100, np.int64), "t" * 100)
    assert size_of(value) == sys.getsizeof(value) + 800 + sys.getsizeof("t" * 100)


def test_dataclass_itself_is_an_object() -> None:
    """The class has no values of its fields; it counts as any object does."""
    assert size_of(_Pair) == sys.getsizeof(_Pair)


def test_nesting_is_followed_to_the_end() -> None:
    """An array deep inside counts as much as one at the top."""
    deep: Any = np.zeros(125, np.float64)
    for _ in range(5_000):
        deep = [deep]
    assert size_of(deep) == 5_000 * sys.getsizeof([None]) + 1000


def test_shared_parts_count_once() -> None:
    """The same object twice inside one value counts once."""
    part = b"z" * 1000
    assert size_of([part, part]) == sys.getsizeof([1, 2]) + sys.getsizeof(part)


def test_cycle_ends() -> None:
    """A value that contains itself has a size."""
    value: list[Any] = []
    value.append(value)
    assert size_of(value) == sys.getsizeof(value)


@pytest.mark.parametrize("value", [_Plain(b"x" * 1000), _Hostile(), _Odd(), len])
def test_any_other_object_counts_its_shallow_size(value: object) -> None:
    """Other objects are not walked, and an `nbytes` that is no integer is ignored."""
    assert size_of(value) == sys.getsizeof(value)


def test_object_without_a_size_counts_nothing() -> None:
    """An object whose `__sizeof__` is a TypeError adds nothing to the rest."""
    assert size_of([_Unsized()]) == sys.getsizeof([None])


def test_key_counts_the_characters_of_its_strings() -> None:
    """An ASCII character counts one byte; numbers and other parts of a key count nothing."""
    assert size_of_strings(("op", "base", "p" * 1000, 256)) == 1006
    assert size_of_strings("p" * 1000) == 1000
    assert size_of_strings(("", 1, None, ("nested",))) == 0
    assert size_of_strings(3) == 0


def test_wide_characters_count_more() -> None:
    """A prompt beyond Latin-1 counts the two or four bytes that Python keeps a character in."""
    assert size_of_strings("λ" * 2000) - size_of_strings("λ" * 1000) == 2000
    assert size_of_strings("😀" * 2000) - size_of_strings("😀" * 1000) == 4000


def test_cache_measures_arrays_by_default() -> None:
    """Without `sizeof` a cache bounds the data of arrays."""
    cache = ForwardCache(max_bytes=20_000)
    for number in range(3):
        cache.put(number, np.zeros(1000, np.float64))
    assert (len(cache), cache.nbytes, cache.evictions) == (2, 16_000, 1)
