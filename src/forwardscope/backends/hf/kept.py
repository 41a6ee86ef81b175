"""Keys and values of prompts that were computed, kept while their view is open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from forwardscope.backends.hf.prefixes import Ids

__all__ = ["MAX_KEPT_BYTES", "KeptPrefixes", "States", "bytes_of", "can_share"]

#: Keys and values that one view keeps, and that the copies for one batch may take.
MAX_KEPT_BYTES: Final = 512 << 20

#: Of each layer, keys and values, shape (1, heads, tokens, head size).
States = Sequence[tuple[torch.Tensor, torch.Tensor]]


def can_share(config: Any) -> bool:
    """Whether a token's keys and values are the same however long the prompt that follows is.

    They are not where the rotary embedding depends on the length of the whole.
    """
    return not _says(getattr(config, "rope_parameters", None), ("dynamic", "longrope"))


def _says(rope: object, kinds: Sequence[str]) -> bool:
    if isinstance(rope, Mapping):
        return any(_says(part, kinds) for part in rope.values())
    return isinstance(rope, str) and rope in kinds


class KeptPrefixes:
    """The sequences that one view has computed, the least recently used dropped for room.

    Not safe under threads: the lock of the model's passes is held around each call.

    Args:
        max_bytes: The most that keys and values may take.

    Attributes:
        works: Whether the model's keys and values can be kept; known after the first try.
    """

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self.works = True
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, States] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values that are kept."""
        return self._nbytes

    def known(self) -> list[Ids]:
        """Return the token ids of all that is kept."""
        return [np.frombuffer(ids, dtype=np.int64) for ids in self._kept]

    def keep(self, ids: Ids, computed: Any) -> None:
        """Keep what the model returned as its cache for one sequence alone.

        Anything but a plain cache of whole sequences (a sliding window, a
        state-space model) cannot be cut to a prefix: then nothing is kept, now
        and later.
        """
        if type(computed) is not DynamicCache or not all(
            type(layer) is DynamicLayer and layer.get_seq_length() == len(ids)
            for layer in computed.layers
        ):
            self.works = False
            return
        states = [(layer.keys, layer.values) for layer in computed.layers]
        self._drop(ids.tobytes())
        self._kept[ids.tobytes()] = states
        self._nbytes += bytes_of(states)
        while self._nbytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def states(self, prefix: Ids) -> States | None:
        """Return keys and values of a prefix from any sequence that begins with it, or None."""
        start = prefix.tobytes()
        for ids, states in self._kept.items():
            if ids.startswith(start):
                self._kept.move_to_end(ids)
                n = len(prefix)
                return [(keys[:, :, :n], values[:, :, :n]) for keys, values in states]
        return None

    def clear(self) -> None:
        """Forget all of it."""
        self._kept.clear()
        self._nbytes = 0

    def _drop(self, ids: bytes) -> None:
        states = self._kept.pop(ids, None)
        if states is not None:
            self._nbytes -= bytes_of(states)


def bytes_of(states: States) -> int:
    """Return how much keys and values take, in bytes."""
    return sum(tensor.nbytes for pair in states for tensor in pair)
