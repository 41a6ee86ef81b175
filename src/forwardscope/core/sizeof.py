"""How much memory a cache entry holds."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from typing import Any

__all__ = ["size_of", "size_of_strings"]

_SCALARS = frozenset({float, int, bool, complex, str, bytes, type(None)})
_EMPTY_STRING = sys.getsizeof("")


def size_of(value: Any) -> int:
    """Return the memory that a value holds, in bytes.

    Arrays and tensors (anything with an integer `nbytes`) count their data.
    Dicts, sequences, sets and dataclasses are walked; what is shared inside
    one value counts once, so cycles end. Any other object counts its own
    shallow size.
    """
    if type(value) in _SCALARS:
        return sys.getsizeof(value)
    total = 0
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        nbytes = _array_bytes(item)
        if nbytes is None:
            total += sys.getsizeof(item, 0)
            waiting.extend(_children(item))
        else:
            total += nbytes
    return total


def size_of_strings(key: Any) -> int:
    """Return the memory of a key's characters, in bytes; the prompt dominates it."""
    total = 0
    for part in key if isinstance(key, tuple) else (key,):
        if type(part) is str and part.isascii():  # the same as below, several times as fast
            total += len(part)
        elif isinstance(part, str):
            total += sys.getsizeof(part) - _EMPTY_STRING
    return total


def _array_bytes(item: Any) -> int | None:
    try:
        nbytes = item.nbytes
    except Exception:  # noqa: BLE001 - a foreign attribute may raise anything; it is no array then
        return None
    return nbytes if isinstance(nbytes, int) else None


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, list | tuple | set | frozenset | deque):
        return list(item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return [getattr(item, field.name, None) for field in dataclasses.fields(item)]
    return []
