"""The prefix cache: which prefixes it returns, and its bound in bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.prefix_cache import PrefixCache, bytes_of
from forwardscope.backends.hf.prefixes import Ids

_LAYERS, _HEADS, _SIZE = 2, 3, 4
_TOKEN_BYTES = _LAYERS * 2 * _HEADS * _SIZE * 4


def _ids(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int64)


def _computed(ids: Ids) -> DynamicCache:
    """Return a model's cache in which each token's keys and values are the token itself."""
    states = torch.tensor(ids, dtype=torch.float32)[None, None, :, None]
    states = states.expand(1, _HEADS, len(ids), _SIZE)
    return DynamicCache([(states, -states)] * _LAYERS)


def _store(cache: PrefixCache, *tokens: int) -> bool:
    return cache.store(_ids(*tokens), compat.plain_states(_computed(_ids(*tokens))))


def test_prefix_of_a_stored_sequence() -> None:
    """Each prefix of a stored sequence has its tokens' keys and values, in each layer."""
    cache = PrefixCache()
    _store(cache, 5, 6, 7, 8)
    states = cache.get(_ids(5, 6))
    assert states is not None
    assert len(states) == _LAYERS
    for keys, values in states:
        assert keys.shape == values.shape == (1, _HEADS, 2, _SIZE)
        assert keys[0, 0, :, 0].tolist() == [5.0, 6.0]
        assert values[0, 0, :, 0].tolist() == [-5.0, -6.0]
    assert cache.get(_ids(6)) is None
    assert cache.get(_ids(5, 6, 7, 8, 9)) is None
    assert [ids.tolist() for ids in cache.sequences()] == [[5, 6, 7, 8]]


def test_bytes_are_bounded() -> None:
    """The least recently used is evicted first; a sequence larger than the bound evicts none."""
    cache = PrefixCache(10 * _TOKEN_BYTES)
    _store(cache, 1, 1, 1, 1)
    _store(cache, 2, 2, 2, 2)
    assert cache.nbytes == 8 * _TOKEN_BYTES
    assert cache.get(_ids(1)) is not None
    _store(cache, 3, 3, 3, 3)
    assert cache.nbytes == 8 * _TOKEN_BYTES
    assert cache.get(_ids(2)) is None
    assert cache.get(_ids(1)) is not None
    assert not _store(cache, *range(11))
    assert cache.nbytes == 8 * _TOKEN_BYTES
    assert {int(ids[0]) for ids in cache.sequences()} == {1, 3}


def test_equal_sequences_are_stored_once() -> None:
    """Storing a sequence again does not change the number of bytes."""
    cache = PrefixCache()
    _store(cache, 1, 2)
    _store(cache, 1, 2)
    states = cache.get(_ids(1, 2))
    assert states is not None
    assert cache.nbytes == bytes_of(states) == 2 * _TOKEN_BYTES


def test_clear() -> None:
    """A cleared cache is empty and can be used again."""
    cache = PrefixCache()
    _store(cache, 1, 2)
    cache.clear()
    assert (cache.nbytes, cache.sequences(), cache.get(_ids(1))) == (0, [], None)
    assert _store(cache, 1, 2)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("none", "no cache"), ("window", "a sliding window"), ("short", "each token in each layer")],
)
def test_a_model_cache_without_whole_sequences_is_not_supported(kind: str, reason: str) -> None:
    """Such a cache cannot be cut to a prefix; the reason says what the model keeps."""
    computed: Any = _computed(_ids(1, 2)) if kind == "short" else None
    if kind == "window":
        computed = DynamicCache()
        computed.layers = [DynamicSlidingWindowLayer(sliding_window=2)]
    assert reason in (compat.unsupported_cache(computed, 3) or "")
    assert compat.unsupported_cache(_computed(_ids(1, 2, 3)), 3) is None


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        (None, None),
        ({"rope_type": "default", "rope_theta": 1e4}, None),
        ({"rope_type": "llama3", "factor": 8.0}, None),
        ({"rope_type": "dynamic", "factor": 2.0}, 64),
        ({"full": {"rope_type": "longrope", "original_max_position_embeddings": 32}}, 32),
    ],
)
def test_rotary_embeddings_that_depend_on_the_length(rope: object, limit: int | None) -> None:
    """Their keys differ between lengths beyond a limit, so a prefix cannot be reused there."""
    config = SimpleNamespace(rope_parameters=rope, max_position_embeddings=64)
    model: Any = torch.nn.Module()
    model.config = SimpleNamespace(get_text_config=lambda: config)
    assert compat.rotary_limit(model) == limit
