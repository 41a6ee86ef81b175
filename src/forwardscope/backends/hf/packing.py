"""Group prompts into padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["ACCELERATOR_TOKENS", "CPU_TOKENS", "pack"]

#: Maximum positions of a batch, padding included. A larger batch is no faster on a CPU.
CPU_TOKENS: Final = 1024
ACCELERATOR_TOKENS: Final = 16384
#: Up to this many positions, overhead dominates the time of a batch and padding costs nothing.
FREE_TOKENS: Final = 256
#: Maximum positions per real token in a larger batch.
MAX_PADDING: Final = 1.25
#: Maximum logits of a batch: 2**26 float32 values are 256 MiB.
MAX_LOGITS: Final = 1 << 26


def pack(
    lengths: Sequence[int], positions: Sequence[int], vocab_size: int, max_tokens: int = CPU_TOKENS
) -> list[list[int]]:
    """Group prompts of similar length into batches, which limits padding and memory.

    Args:
        lengths: Number of tokens of each prompt.
        positions: Number of last positions of each prompt whose logits are computed.
        vocab_size: Logits per position.
        max_tokens: Maximum positions of a batch, padding included.

    Returns:
        Batches of indices, shortest prompts first. Each index is in exactly
        one batch; a prompt that exceeds a bound is alone in its batch.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and not _fits([*batch, index], lengths, positions, vocab_size, max_tokens):
            batches.append(batch)
            batch = []
        batch.append(index)
    return [*batches, batch] if batch else batches


def _fits(
    batch: list[int],
    lengths: Sequence[int],
    positions: Sequence[int],
    vocab_size: int,
    max_tokens: int,
) -> bool:
    padded = len(batch) * max(lengths[i] for i in batch)
    real = sum(lengths[i] for i in batch)
    # a model computes the same positions of each row: all that a row needs
    longest, start = max(lengths[i] for i in batch), min(lengths[i] - positions[i] for i in batch)
    computed = min(longest - start, sum(positions[i] for i in batch))
    logits = len(batch) * computed * vocab_size
    return (
        padded <= max_tokens
        and padded <= max(FREE_TOKENS, MAX_PADDING * real)
        and logits <= MAX_LOGITS
    )
