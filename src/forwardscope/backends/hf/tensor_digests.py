"""Digests of tensors by their content."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import torch

from forwardscope.backends.digests import digest_of, digest_of_bytes

__all__ = ["Named", "digest_of_tensors"]

Named = tuple[str, torch.Tensor]
#: One processor core digests about 1.5 GB a second, less than a disk reads.
_THREADS: Final = 4


def digest_of_tensors(tensors: Iterable[Named]) -> str:
    """Return the digest of tensors with their names, dtypes and shapes, in any order."""
    named = list(tensors)
    distinct = {_memory(tensor): tensor for _, tensor in named}  # tied weights once
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = dict(zip(distinct, pool.map(_digest, distinct.values()), strict=True))
    return digest_of(
        sorted(
            [name, str(tensor.dtype), list(tensor.shape), digests[_memory(tensor)]]
            for name, tensor in named
        )
    )


def _memory(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return digest_of_bytes([content.numpy().data])
