"""Gaussian noise for the factors of random adapters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

__all__ = ["Noise"]


class Noise:
    """Standard Gaussian noise in the shapes of a model's LoRA factors, drawn once per seed.

    `null_adapter` opens each null view once per calibration, so the most recently
    used draws stay in CPU memory. A seed always gives the same numbers. Not
    thread-safe.

    Args:
        max_bytes: Maximum bytes of stored noise.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self._max_bytes = max_bytes
        self._drawn: OrderedDict[int, list[torch.Tensor]] = OrderedDict()
        self._nbytes = 0

    def draw(self, seed: int, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
        """Return one float32 tensor per shape, drawn in order. Callers must not change them."""
        drawn = self._drawn.get(seed)
        if drawn is None:
            generator = torch.Generator(device="cpu").manual_seed(seed)
            drawn = [torch.randn(shape, generator=generator) for shape in shapes]
            self._drawn[seed] = drawn
            self._nbytes += _bytes_of(drawn)
        self._drawn.move_to_end(seed)
        while self._nbytes > self._max_bytes:
            self._nbytes -= _bytes_of(self._drawn.popitem(last=False)[1])
        return drawn


def _bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
