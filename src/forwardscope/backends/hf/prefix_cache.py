"""Cache of the attention keys and values of computed prompts, for one open view."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from forwardscope.backends.hf.prefixes import Ids

__all__ = ["MAX_PREFIX_BYTES", "PrefixCache", "States", "bytes_of", "supports_prefixes"]

#: Maximum bytes of keys and values of one view, and of their copies for one batch.
MAX_PREFIX_BYTES: Final = 512 << 20

#: Keys and values of each layer, shape (1, heads, tokens, head size).
States = Sequence[tuple[torch.Tensor, torch.Tensor]]


def supports_prefixes(config: Any) -> bool:
    """Whether a token's keys and values are the same in prompts of every length.

    They are not where the rotary embedding depends on the length of the prompt.
    """
    return not _contains_any(getattr(config, "rope_parameters", None), ("dynamic", "longrope"))


def _contains_any(rope: object, rope_types: Sequence[str]) -> bool:
    if isinstance(rope, Mapping):
        return any(_contains_any(part, rope_types) for part in rope.values())
    return isinstance(rope, str) and rope in rope_types


class PrefixCache:
    """Keys and values of computed sequences, with least-recently-used eviction.

    Not thread-safe: callers hold `Forward.lock`.

    Args:
        max_bytes: Maximum bytes of all keys and values.

    Attributes:
        enabled: Whether sequences are stored; False after the first that `store` rejects.
    """

    def __init__(self, max_bytes: int = MAX_PREFIX_BYTES) -> None:
        self.enabled = True
        self._max_bytes = max_bytes
        self._sequences: OrderedDict[bytes, States] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all stored keys and values."""
        return self._nbytes

    def sequences(self) -> list[Ids]:
        """Return the token ids of all stored sequences."""
        return [np.frombuffer(ids, dtype=np.int64) for ids in self._sequences]

    def store(self, ids: Ids, computed: Any) -> None:
        """Store the cache that the model returned for a single sequence.

        Only a plain cache of whole sequences can be cut to a prefix. Any other
        (a sliding window, a state-space model) is rejected and disables this
        cache.
        """
        if type(computed) is not DynamicCache or not all(
            type(layer) is DynamicLayer and layer.get_seq_length() == len(ids)
            for layer in computed.layers
        ):
            self.enabled = False
            return
        states = [(layer.keys, layer.values) for layer in computed.layers]
        self._remove(ids.tobytes())
        self._sequences[ids.tobytes()] = states
        self._nbytes += bytes_of(states)
        while self._nbytes > self._max_bytes:
            self._remove(next(iter(self._sequences)))

    def get(self, prefix: Ids) -> States | None:
        """Return the keys and values of a prefix from a stored sequence, or None."""
        start = prefix.tobytes()
        for ids, states in self._sequences.items():
            if ids.startswith(start):
                self._sequences.move_to_end(ids)
                n = len(prefix)
                return [(keys[:, :, :n], values[:, :, :n]) for keys, values in states]
        return None

    def clear(self) -> None:
        """Remove all sequences."""
        self._sequences.clear()
        self._nbytes = 0

    def _remove(self, ids: bytes) -> None:
        states = self._sequences.pop(ids, None)
        if states is not None:
            self._nbytes -= bytes_of(states)


def bytes_of(states: States) -> int:
    """Return the size of keys and values, in bytes."""
    return sum(tensor.nbytes for pair in states for tensor in pair)
