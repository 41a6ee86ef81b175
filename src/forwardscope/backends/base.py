"""The protocols between probes and backends.

A backend holds one set of weights and an adapter on it, and opens *views* of
them, one at a time. Any class with these methods will do; the quick way to one
is `forwardscope.backends.views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["Backend", "NullBackend", "ScalableBackend", "ScoringView"]


@runtime_checkable
class ScoringView(Protocol):
    """One state of the weights, open for questions.

    All methods raise `PromptError` for an empty prompt or one longer than the
    model's context (prompts are never cut), `NonFiniteError` where the model
    gives NaN or infinite logits, and `ViewError` where a closed view would
    have to compute (what is in the cache it still answers). The `_batch` forms
    answer in the order asked; a backend may compute them together.
    """

    @property
    def id(self) -> str:
        """The view's exact id; part of every cache key."""
        ...

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the distribution of the token after a prompt.

        A `top_k` beyond the vocabulary means the vocabulary; below 1 it is a
        ValueError.
        """
        ...

    def next_token_dist_batch(self, prompts: Sequence[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return `next_token_dist` of each prompt."""
        ...

    def rolling_logprob(self, text: str) -> RollingLogprob:
        """Return the log-probability of each token of a text, given those before it."""
        ...

    def rolling_logprob_batch(self, texts: Sequence[str]) -> list[RollingLogprob]:
        """Return `rolling_logprob` of each text."""
        ...

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-probability of a completion, in nats.

        What is given is the longest token prefix that `prompt` and
        `prompt + completion` share. A completion that adds no token to it is
        a `PromptError`.
        """
        ...

    def logprob_of_batch(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return `logprob_of` of each (prompt, completion)."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One set of weights with an adapter on it.

    One view is open at a time; opening a second raises a `ViewError` that
    names both. Whatever a view changes is undone when it closes, also on
    exceptions.

    What a run should cost is planned from two more attributes, which a backend
    may have: `scaled_aliases`, a mapping from a scale of the adapter to the id
    of the view that stands for it, as its entries are the same (none assumed
    without it); and `vocab_size`, where its views clip `top_k` (nowhere).
    """

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Where this backend's lookups are cached, counted and traced."""
        ...

    def as_base(self) -> AbstractContextManager[ScoringView]:
        """Open the weights without the adapter."""
        ...

    def as_finetuned(self) -> AbstractContextManager[ScoringView]:
        """Open the weights with the adapter."""
        ...

    def filler(self, tokens: int) -> str:
        """Return neutral text of so many tokens, to put before a prompt; empty for 0."""
        ...

    def identity(self) -> str:
        """Return a hash over all that shapes this backend's values."""
        ...

    def close(self) -> None:
        """Free the weights and close the trace; may be called twice."""
        ...


@runtime_checkable
class ScalableBackend(Backend, Protocol):
    """A backend whose adapter can be scaled."""

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[ScoringView]:
        """Open the weights with the adapter's change multiplied by `lam`."""
        ...


@runtime_checkable
class NullBackend(Backend, Protocol):
    """A backend that can stand random weights in for its adapter's."""

    def as_null_adapter(
        self, seed: int, *, init_scale: float = 0.02, rank_scale: float = 1.0
    ) -> AbstractContextManager[ScoringView]:
        """Open the weights with a random adapter of the same shape.

        Both factors are Gaussian with standard deviation
        init_scale * sqrt(rank_scale), the same for the same seed.
        """
        ...
