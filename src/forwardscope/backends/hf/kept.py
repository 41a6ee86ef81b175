"""Keys and values of computed prompts, kept while their view is open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from forwardscope.backends.hf.prefixes import Ids

__all__ = ["MAX_KEPT_BYTES", "KeptPrefixes", "States", "bytes_of", "can_share"]

#: Maximum bytes of keys and values that one view keeps, and of the copies for one batch.
MAX_KEPT_BYTES: Final = 512 << 20

#: Keys and values of each layer, shape (1, heads, tokens, head size).
States = Sequence[tuple[torch.Tensor, torch.Tensor]]


def can_share(config: Any) -> bool:
    """Whether a token's keys and values do not depend on the length of the prompt.

    They do where the rotary embedding depends on that length.
    """
    return not _says(getattr(config, "rope_parameters", None), ("dynamic", "longrope"))


def _says(rope: object, kinds: Sequence[str]) -> bool:
    if isinstance(rope, Mapping):
        return any(_says(part, kinds) for part in rope.values())
    return isinstance(rope, str) and rope in kinds


class KeptPrefixes:
    """Computed sequences of one view; the least recently used are evicted to keep the bound.

    Not thread-safe: callers hold `Forward.lock`.

    Args:
        max_bytes: Maximum bytes of all keys and values.

    Attributes:
        works: Whether the model's keys and values can be kept; True until `keep` fails.
    """

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self.works = True
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, States] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all kept keys and values."""
        return self._nbytes

    def known(self) -> list[Ids]:
        """Return the token ids of all kept sequences."""
        return [np.frombuffer(ids, dtype=np.int64) for ids in self._kept]

    def keep(self, ids: Ids, computed: Any) -> None:
        """Keep the cache that the model returned for one single sequence.

        Only a plain cache of whole sequences can be cut to a prefix. For any
        other (a sliding window, a state-space model) nothing is kept, neither
        now nor later.
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
        """Return the keys and values of a prefix from a sequence that starts with it, or None."""
        start = prefix.tobytes()
        for ids, states in self._kept.items():
            if ids.startswith(start):
                self._kept.move_to_end(ids)
                n = len(prefix)
                return [(keys[:, :, :n], values[:, :, :n]) for keys, values in states]
        return None

    def clear(self) -> None:
        """Remove all sequences."""
        self._kept.clear()
        self._nbytes = 0

    def _drop(self, ids: bytes) -> None:
        states = self._kept.pop(ids, None)
        if states is not None:
            self._nbytes -= bytes_of(states)


def bytes_of(states: States) -> int:
    """Return the size of keys and values, in bytes."""
    return sum(tensor.nbytes for pair in states for tensor in pair)
