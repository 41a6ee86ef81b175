"""Files of random adapters, for a server that loads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from forwardscope.backends.hf.noise import Noise

__all__ = ["write_random_factors"]


def write_random_factors(
    path: Path, shapes: Sequence[tuple[str, Sequence[int]]], seed: int, std: float
) -> None:
    """Write Gaussian factors in float32 to a file in safetensors.

    In the order of a model's parameters they are those of its null view with the same seed.

    Args:
        path: The file.
        shapes: Name and shape of each factor, in the order in which they are drawn.
        seed: Seed of the draws.
        std: Standard deviation.
    """
    drawn = Noise().draw(seed, [torch.Size(shape) for _, shape in shapes])
    factors = {name: one * std for (name, _), one in zip(shapes, drawn, strict=True)}
    save_file(factors, path, metadata={"format": "pt"})
