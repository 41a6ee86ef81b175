"""Cache of the attention keys and values of computed prompts, for one open view."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np

from forwardscope.backends.hf.compat import States
from forwardscope.backends.hf.prefixes import Ids

__all__ = ["MAX_PREFIX_BYTES", "PrefixCache", "bytes_of", "cut"]

#: Maximum bytes of keys and values of one view, and of their copies for one batch.
MAX_PREFIX_BYTES: Final = 512 << 20


class PrefixCache:
    """Keys and values of computed sequences, with least-recently-used eviction.

    Not thread-safe: callers hold `Forward.lock`.

    Args:
        max_bytes: Maximum bytes of all keys and values; also an attribute.
    """

    def __init__(self, max_bytes: int = MAX_PREFIX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._sequences: OrderedDict[bytes, States] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all stored keys and values."""
        return self._nbytes

    def sequences(self) -> list[Ids]:
        """Return the token ids of all stored sequences."""
        return [np.frombuffer(ids, dtype=np.int64) for ids in self._sequences]

    def store(self, ids: Ids, states: States) -> bool:
        """Store the keys and values of a sequence; return False if it is larger than the cache."""
        if bytes_of(states) > self.max_bytes:  # it would evict all others and then itself
            return False
        self._remove(ids.tobytes())
        self._sequences[ids.tobytes()] = states
        self._nbytes += bytes_of(states)
        while self._nbytes > self.max_bytes:
            self._remove(next(iter(self._sequences)))
        return True

    def get(self, prefix: Ids) -> States | None:
        """Return the keys and values of a prefix from a stored sequence, or None."""
        start = prefix.tobytes()
        for ids, states in self._sequences.items():
            if ids.startswith(start):
                self._sequences.move_to_end(ids)
                return cut(states, len(prefix))
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


def cut(states: States, n: int) -> States:
    """Return the keys and values of the first `n` tokens, as views."""
    return [(keys[:, :, :n], values[:, :, :n]) for keys, values in states]
