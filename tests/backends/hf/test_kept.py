"""Keys and values that are kept: which prefixes they give, and their bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from forwardscope.backends.hf.kept import KeptPrefixes, bytes_of, can_share
from forwardscope.backends.hf.prefixes import Ids

_LAYERS, _HEADS, _SIZE = 2, 3, 4
_TOKEN_BYTES = _LAYERS * 2 * _HEADS * _SIZE * 4


def _ids(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int64)


def _computed(ids: Ids) -> DynamicCache:
    """What a model might return: each token's keys and values are the token itself."""
    states = torch.tensor(ids, dtype=torch.float32)[None, None, :, None]
    states = states.expand(1, _HEADS, len(ids), _SIZE)
    return DynamicCache([(states, -states)] * _LAYERS)


def _keep(kept: KeptPrefixes, *tokens: int) -> None:
    kept.keep(_ids(*tokens), _computed(_ids(*tokens)))


def test_a_prefix_of_what_was_kept() -> None:
    """Any beginning of a sequence gives its tokens' keys and values, in each layer."""
    kept = KeptPrefixes()
    _keep(kept, 5, 6, 7, 8)
    states = kept.states(_ids(5, 6))
    assert states is not None
    assert len(states) == _LAYERS
    for keys, values in states:
        assert keys.shape == values.shape == (1, _HEADS, 2, _SIZE)
        assert keys[0, 0, :, 0].tolist() == [5.0, 6.0]
        assert values[0, 0, :, 0].tolist() == [-5.0, -6.0]
    assert (
        kept.states(
            _ids(
                6,
            )
        )
        is None
    )
    assert kept.states(_ids(5, 6, 7, 8, 9)) is None
    assert [ids.tolist() for ids in kept.known()] == [[5, 6, 7, 8]]


def test_bytes_are_bounded() -> None:
    """The least recently used goes first, and one too large for all is not kept."""
    kept = KeptPrefixes(10 * _TOKEN_BYTES)
    _keep(kept, 1, 1, 1, 1)
    _keep(kept, 2, 2, 2, 2)
    assert kept.nbytes == 8 * _TOKEN_BYTES
    assert kept.states(_ids(1)) is not None
    _keep(kept, 3, 3, 3, 3)
    assert kept.nbytes == 8 * _TOKEN_BYTES
    assert kept.states(_ids(2)) is None
    assert kept.states(_ids(1)) is not None
    _keep(kept, *range(11))
    assert (kept.nbytes, kept.known()) == (0, [])


def test_the_same_again_is_kept_once() -> None:
    """It takes no more room than before."""
    kept = KeptPrefixes()
    _keep(kept, 1, 2)
    _keep(kept, 1, 2)
    states = kept.states(_ids(1, 2))
    assert states is not None
    assert kept.nbytes == bytes_of(states) == 2 * _TOKEN_BYTES


def test_cleared() -> None:
    """Nothing is left, and it can be used again."""
    kept = KeptPrefixes()
    _keep(kept, 1, 2)
    kept.clear()
    assert (kept.nbytes, kept.known(), kept.states(_ids(1))) == (0, [], None)
    _keep(kept, 1, 2)
    assert kept.works


@pytest.mark.parametrize("what", ["none", "window", "short"])
def test_what_cannot_be_cut_is_not_kept(what: str) -> None:
    """Anything but whole sequences in plain layers ends it for good."""
    ids = _ids(1, 2, 3)
    computed: Any = _computed(_ids(1, 2)) if what == "short" else None
    if what == "window":
        computed = DynamicCache()
        computed.layers = [DynamicSlidingWindowLayer(sliding_window=2)]
    kept = KeptPrefixes()
    kept.keep(ids, computed)
    assert (kept.works, kept.nbytes, kept.known()) == (False, 0, [])


@pytest.mark.parametrize(
    ("rope", "shares"),
    [
        (None, True),
        ({"rope_type": "default", "rope_theta": 1e4}, True),
        ({"rope_type": "llama3", "factor": 8.0}, True),
        ({"rope_type": "dynamic", "factor": 2.0}, False),
        ({"full_attention": {"rope_type": "longrope"}, "other": {"rope_type": "default"}}, False),
    ],
)
def test_rotary_embedding_that_knows_the_whole_length(rope: object, shares: bool) -> None:
    """Its keys would be others in a longer prompt, so they are not shared."""
    assert can_share(SimpleNamespace(rope_parameters=rope)) is shares
