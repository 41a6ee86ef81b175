"""Which prompts share a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["ACCELERATOR_TOKENS", "CPU_TOKENS", "pack"]

#: Positions of one batch, padding included. A CPU computes long prompts no faster together.
CPU_TOKENS: Final = 1024
ACCELERATOR_TOKENS: Final = 16384
#: A batch this small is bound by overhead, not by its tokens: padding is free.
FREE_TOKENS: Final = 256
#: Beyond that, positions a real token.
MAX_PADDING: Final = 1.25
#: Logits of one batch: 2**26 float32 are 256 MiB.
MAX_LOGITS: Final = 1 << 26


def pack(
    lengths: Sequence[int], kept: Sequence[int], vocab_size: int, max_tokens: int = CPU_TOKENS
) -> list[list[int]]:
    """Group prompts of like length, so that little is padded and memory stays bounded.

    Args:
        lengths: Tokens of each prompt.
        kept: Positions of each prompt whose logits are needed.
        vocab_size: Logits a position.
        max_tokens: Positions of one batch, padding included.

    Returns:
        Batches of indices, the shortest prompts first. Each index is in
        exactly one batch; a prompt beyond every bound is alone in its batch.
    """
    batches: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and not _fits([*batch, index], lengths, kept, vocab_size, max_tokens):
            batches.append(batch)
            batch = []
        batch.append(index)
    return [*batches, batch] if batch else batches


def _fits(
    batch: list[int],
    lengths: Sequence[int],
    kept: Sequence[int],
    vocab_size: int,
    max_tokens: int,
) -> bool:
    padded = len(batch) * max(lengths[i] for i in batch)
    real = sum(lengths[i] for i in batch)
    logits = len(batch) * max(kept[i] for i in batch) * vocab_size
    return (
        padded <= max_tokens
        and padded <= max(FREE_TOKENS, MAX_PADDING * real)
        and logits <= MAX_LOGITS
    )
