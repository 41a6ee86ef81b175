"""Sizes of values and keys: arrays, containers, dataclasses and strings."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

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


class _RaisingSize:
    @property
    def nbytes(self) -> int:
        raise RuntimeError("not available")


class _TextSize:
    nbytes = "many"


class _Unsized:
    def __sizeof__(self) -> int:
        raise TypeError("not available")


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1.5, True, None, 2j, "text", "λ" * 50, b"bytes"),
        *(_Plain(b"x" * 1000), _RaisingSize(), _TextSize(), len, _Pair),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scalar_or_unknown_object_counts_its_shallow_size(value: object) -> None:
    """Only containers and dataclasses are walked; an `nbytes` must be an integer."""
    assert size_of(value) == sys.getsizeof(value)


def test_array_counts_its_data() -> None:
    """An array counts the bytes of its data, not the small object that refers to them."""
    assert size_of(np.zeros((10, 10), np.float32)) == 400
    assert size_of(np.float32(1)) == 4
    assert size_of(memoryview(bytes(77))) == 77


@pytest.mark.parametrize(
    "container",
    [list, tuple, set, frozenset, deque, lambda parts: dict([parts]), lambda parts: _Pair(*parts)],
    ids=["list", "tuple", "set", "frozenset", "deque", "dict", "dataclass"],
)
def test_container_counts_itself_and_its_parts(container: Any) -> None:
    """Containers and dataclasses are walked."""
    parts = (b"x" * 1000, b"y" * 500)
    value = container(parts)
    assert size_of(value) == sys.getsizeof(value) + sum(map(sys.getsizeof, parts))


def test_dataclass_with_slots_is_walked() -> None:
    """Its fields count as those of other dataclasses."""
    value = _Slotted(np.zeros(100, np.int64), "t" * 100)
    assert size_of(value) == sys.getsizeof(value) + 800 + sys.getsizeof("t" * 100)


def test_deep_nesting_is_followed() -> None:
    """An array deep inside counts as much as one at the top."""
    deep: Any = np.zeros(125, np.float64)
    for _ in range(5_000):
        deep = [deep]
    assert size_of(deep) == 5_000 * sys.getsizeof([None]) + 1000


def test_shared_parts_count_once() -> None:
    """An object that occurs twice counts once, so a cycle ends."""
    part: list[Any] = [b"z" * 1000]
    part.append(part)
    expected = sum(map(sys.getsizeof, ([1, 2], part, part[0])))
    assert size_of([part, part]) == expected


def test_object_without_a_size_counts_nothing() -> None:
    """An object with a `__sizeof__` that raises adds nothing."""
    assert size_of([_Unsized()]) == sys.getsizeof([None])


@pytest.mark.parametrize(
    ("key", "size"),
    [
        (("op", "base", "p" * 1000, 256), 1006),
        ("p" * 1000, 1000),
        (("", 1, None, ("nested",)), 0),
        (3, 0),
    ],
    ids=str,
)
def test_key_counts_the_characters_of_its_strings(key: Any, size: int) -> None:
    """An ASCII character counts one byte; other parts of a key count nothing."""
    assert size_of_strings(key) == size


@pytest.mark.parametrize(("character", "width"), [("λ", 2), ("😀", 4)])
def test_wide_characters_count_more(character: str, width: int) -> None:
    """A character beyond Latin-1 counts the bytes that Python stores it in."""
    longer, shorter = size_of_strings(character * 2000), size_of_strings(character * 1000)
    assert longer - shorter == width * 1000
