"""The protocols between probes and backends.

A backend holds one set of weights and an adapter on it. It opens *views* of
them, one at a time. Any class with these methods is a backend;
`forwardscope.backends.views` has the parts that all backends share.
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
    """One open state of the weights, which scores prompts.

    All methods raise `PromptError` for an empty prompt or one longer than the
    model's context (prompts are never truncated), `NonFiniteError` where the
    model gives NaN or infinite logits, and `ViewError` for a miss in a closed
    view (a closed view still returns cached results). The `_batch` forms return
    results in the order of their arguments; a backend may compute them together.
    """

    @property
    def id(self) -> str:
        """The view's exact id; part of every cache key."""
        ...

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the distribution of the token after a prompt.

        A `top_k` larger than the vocabulary means the whole vocabulary; a
        `top_k` below 1 is a ValueError.
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

        The condition is the longest token prefix that `prompt` and
        `prompt + completion` share. A completion that adds no token to this
        prefix is a `PromptError`.
        """
        ...

    def logprob_of_batch(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return `logprob_of` of each (prompt, completion)."""
        ...


@runtime_checkable
class Backend(Protocol):
    """One set of weights with an adapter on it.

    One view is open at a time; opening a second raises a `ViewError` that
    names both. Closing a view undoes its changes, also after an exception.

    The planner reads more attributes, all optional. `scaled_aliases` maps a
    scale of the adapter to the id of the view that has the same entries; the
    default is no aliases. `refused_views` maps a view family (`scaled`, `null`)
    that this backend cannot open to the reason; opening such a view raises an
    `UnsupportedViewError`, and the default is that none is refused. `vocab_size`
    is the number to which views clip `top_k`; the default is no limit. `top_k_limit` says
    what there are no more of, by default `tokens of the vocabulary`.
    `longest_filler(prompt)` returns the largest number of tokens of filler that
    fit the model's context before a prompt, or None for no limit, which is the
    default. `base_first` says that opening another view is expensive, so that
    `run_suite` has all of the base view computed at its beginning; the default is
    False. `run_suite` copies `warnings`, a list of sentences about the model
    and its adapter, to the result; so it does with `optimisations`, a mapping
    from the name of each optimisation to `on`, `on (limit)` or `off (reason)`, and
    with the strings `exactness`, `dtype` and `device`, by default those of the suite.
    `view_identity(view_id)` returns a hash of everything that determines the values of a
    view, so that a store can answer for it in a later run, and None, the default, where
    its values must not be stored. `view_identity_parts(view_id)` returns by name what
    that is a hash of. `render_chat(messages)` returns messages, each with `role` and
    `content`, as the model's chat template renders them (a `RenderedChat`); without it,
    prompts are no chats.
    """

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Cache, counts and trace of this backend's lookups."""
        ...

    def as_base(self) -> AbstractContextManager[ScoringView]:
        """Open the weights without the adapter."""
        ...

    def as_finetuned(self) -> AbstractContextManager[ScoringView]:
        """Open the weights with the adapter."""
        ...

    def filler(self, tokens: int) -> str:
        """Return neutral text of `tokens` tokens, to precede a prompt; empty for 0."""
        ...

    def identity(self) -> str:
        """Return a hash of everything that determines this backend's values."""
        ...

    def close(self) -> None:
        """Free the weights and close the trace; may be called twice."""
        ...


@runtime_checkable
class ScalableBackend(Backend, Protocol):
    """A backend whose adapter can be scaled."""

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[ScoringView]:
        """Open the weights with everything that the adapter changes multiplied by `lam`."""
        ...


@runtime_checkable
class NullBackend(Backend, Protocol):
    """A backend that can replace its adapter's weights with random ones."""

    def as_null_adapter(
        self, seed: int, *, init_scale: float = 0.02, rank_scale: float = 1.0
    ) -> AbstractContextManager[ScoringView]:
        """Open the weights with a random adapter of the same shape.

        Both factors are Gaussian with standard deviation
        init_scale * sqrt(rank_scale), the same for the same seed.
        """
        ...
