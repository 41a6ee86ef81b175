"""The dry-run backend has the counts of a backend with a model."""

from __future__ import annotations

import sys
from typing import Final

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from forwardscope.backends import Backend, NullBackend, ScalableBackend, ScoringView
from forwardscope.backends.dry_run import DryRunBackend, dry_run_backend
from forwardscope.errors import UnsupportedViewError
from forwardscope.probes.divergence import divergence
from forwardscope.testing import ScriptedBackend


@pytest.fixture
def backend() -> DryRunBackend:
    return dry_run_backend(None)


def test_it_has_the_abilities_of_the_other_backend(backend: DryRunBackend) -> None:
    """By default it has all abilities; like a plain backend, none of the optional ones."""
    assert isinstance(backend, Backend)
    assert isinstance(backend, ScalableBackend)
    assert isinstance(backend, NullBackend)
    for plain in (dry_run_backend(DryRunBackend()), dry_run_backend(None, has_adapter=False)):
        assert isinstance(plain, Backend)
        assert not isinstance(plain, ScalableBackend)
        assert not isinstance(plain, NullBackend)
        assert plain.scaled_aliases == {}


def test_it_copies_aliases_and_vocabulary_size() -> None:
    """View ids and `vocab_size` are those of the other backend."""
    like = dry_run_backend(ScriptedBackend(vocab_size=7))
    assert isinstance(like, ScalableBackend)
    assert [like.as_scaled_adapter(lam).__enter__().id for lam in (0, 0.5, 1)] == [
        "base",
        "scaled_0.5",
        "ft",
    ]
    assert (like.vocab_size, dry_run_backend(None).vocab_size) == (7, sys.maxsize)


class Refusing(ScriptedBackend):
    """A backend that refuses null views."""

    refused_views: Final = {"null": "the adapter has no shape"}


def test_it_refuses_the_views_that_the_other_backend_refuses() -> None:
    """The error has the view and the other backend's reason."""
    like = dry_run_backend(Refusing())
    assert isinstance(like, NullBackend)
    assert isinstance(like, ScalableBackend)
    with pytest.raises(UnsupportedViewError, match="'null_3' is not available: the adapter has no"):
        like.as_null_adapter(3)
    with like.as_scaled_adapter(0.5) as view:
        assert view.id == "scaled_0.5"


def test_its_longest_filler_is_that_of_the_other_backend() -> None:
    """There is no limit where the other backend has none or rejects the prompt."""
    like = dry_run_backend(ScriptedBackend(context=9))
    assert (like.longest_filler("four"), like.longest_filler("much longer")) == (3, None)
    assert dry_run_backend(ScriptedBackend()).longest_filler("four") is None
    assert dry_run_backend(None).longest_filler("four") is None


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_filler_is_short_and_differs(one: int, other: int) -> None:
    """Its length does not grow with the number of tokens, and each number has its own text."""
    backend = dry_run_backend(None)
    assert (backend.filler(one) == backend.filler(other)) == (one == other)
    assert 0 < len(backend.filler(one)) < 32


def test_filler_of_no_tokens_is_empty(backend: DryRunBackend) -> None:
    """Zero tokens give an empty string."""
    assert backend.filler(0) == ""


@pytest.mark.parametrize("top_k", [1, 2, 8, 9, 50_000])
@pytest.mark.parametrize("kind", ["js", "kl"])
def test_its_distributions_are_valid(backend: DryRunBackend, top_k: int, kind: str) -> None:
    """They are normalised and not uniform, and differ between views by a finite divergence."""
    assert isinstance(backend, NullBackend)
    assert isinstance(backend, ScalableBackend)
    opened = (backend.as_base(), backend.as_finetuned(), backend.as_scaled_adapter(0.5))
    dists = []
    for opening in (*opened, backend.as_null_adapter(7)):
        with opening as view:
            assert isinstance(view, ScoringView)
            dists.append(view.next_token_dist("prompt", top_k=top_k))
    for dist in dists:
        tail = 0.0 if dist.tail_logprob is None else np.exp(dist.tail_logprob)
        assert np.exp(dist.logprobs).sum() + tail == pytest.approx(1.0)
        assert dist.token_ids.size == min(top_k, dist.vocab_size)
        assert (np.diff(dist.logprobs) < 0).all()
    for dist in dists[1:]:
        assert np.isfinite(divergence(dists[0], dist, kind))
        assert dist.logprobs[0] != dists[0].logprobs[0]


def test_every_op_is_counted(backend: DryRunBackend) -> None:
    """Single and batched forms of all three ops share entries, as with a model."""
    with backend.as_base() as view:
        view.next_token_dist("a")
        assert len(view.next_token_dist_batch(["a", "b"])) == 2
        rolled = view.rolling_logprob("a b c")
        assert np.isfinite([rolled.perplexity, rolled.total_logprob]).all()
        assert len(view.rolling_logprob_batch(["a b c", "d"])) == 2
        assert np.isfinite(view.logprob_of("a", "b"))
        assert len(view.logprob_of_batch([("a", "b"), ("a", "c")])) == 2
    stats = backend.instrumentation.stats
    assert (stats.forward_passes, stats.cache_hits) == (6, 3)


def test_its_cache_is_unbounded_or_disabled() -> None:
    """With the cache nothing is evicted; without it every lookup is a forward pass."""
    for cache_enabled, passes in ((True, 1000), (False, 2000)):
        backend = DryRunBackend(cache_enabled=cache_enabled)
        with backend.as_base() as view:
            for _ in range(2):
                view.next_token_dist_batch([f"{i}" for i in range(1000)])
        assert backend.instrumentation.stats.forward_passes == passes
        assert backend.instrumentation.cache.evictions == 0


def test_the_keys_of_a_call_are_those_of_a_view(backend: DryRunBackend) -> None:
    """Each prompt, and each pair of prompt and completion, has the key that the cache has."""
    with backend.as_base() as view:
        view.next_token_dist_batch(["a", "b"], top_k=3)
        view.rolling_logprob("c")
        view.logprob_of_batch([("a", "b"), ("ab", "")])
    keys = [key for call in backend.computed for key in call.lookup_keys()]
    assert len(keys) == len(backend.instrumentation.cache) == 5
    assert set(backend.instrumentation.cache.find_all(keys)) == set(keys)
