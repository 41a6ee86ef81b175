"""Read the header of a GGUF file, with every length checked against the file's own.

The libraries trust these lengths: a file of a few bytes could have them loop for years or
allocate all memory. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Final

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

__all__ = ["read_shapes"]

_VERSIONS: Final = (2, 3)
_MAX_DIMENSIONS: Final = 4
_STRING, _ARRAY = 8, 9
#: Bytes of each other type of value.
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def read_shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the shape of each tensor of a file.

    Raises:
        ValueError: The header is malformed, or a tensor is larger than the file.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Header(data).shapes()


class _Header:
    """A position in a file's header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._stored = 0  # bytes of all tensors

    def shapes(self) -> list[tuple[int, ...]]:
        if self._take(4) != b"GGUF" or self._number("<I") not in _VERSIONS:
            raise ValueError(f"it is no little-endian GGUF file of version {_VERSIONS}")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        for _ in range(self._fitting(pairs, 13)):
            self._string()
            self._skip_value(self._number("<I"), nested=False)
        shapes = [self._shape() for _ in range(self._fitting(tensors, 25))]
        if self._stored > len(self._data):
            raise ValueError("its tensors overlap")
        return shapes

    def _shape(self) -> tuple[int, ...]:
        self._string()
        dimensions = self._number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(self._number("<I"))]
        stored = math.prod(shape) // block * size
        if self._number("<Q") + stored > len(self._data):
            raise ValueError(f"a tensor of shape {shape} is larger than the file")
        self._stored += stored
        return shape

    def _skip_value(self, kind: int, *, nested: bool) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY and not nested:
            kind, length = self._number("<I"), self._number("<Q")
            if kind in _SIZES:
                self._take(length * _SIZES[kind])
            else:
                for _ in range(self._fitting(length, 8)):
                    self._skip_value(kind, nested=True)
        elif kind in _SIZES:
            self._take(_SIZES[kind])
        else:
            raise ValueError(f"a value has the unknown type {kind}")

    def _string(self) -> None:
        self._take(self._number("<Q"))

    def _fitting(self, count: int, size: int) -> int:
        """Return a count of what takes at least `size` bytes each, if the file has so many."""
        if count * size > len(self._data) - self._at:
            raise ValueError(f"{count} entries do not fit the file")
        return count

    def _number(self, form: str) -> int:
        value: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return value

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("it ends early")
        self._at += size
        # a long array is passed over, and not copied
        return self._data[self._at - size : self._at] if size <= 8 else b""
