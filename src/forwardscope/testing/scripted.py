"""A backend whose model is a function."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.backends.views import (
    BASE,
    DEFAULT_INIT_SCALE,
    FINETUNED,
    LORA_ALIASES,
    CachedView,
    ViewSlot,
    null_view_id,
    scaled_view_id,
)
from forwardscope.core.keys import RenderedChat, fold_strings, prompt_hash
from forwardscope.errors import NonFiniteError, PromptError, ViewError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["ScriptedBackend", "ScriptedView", "pseudo_random_logits"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScriptedView:
    """The view for which a script computes logits.

    Attributes:
        id: The view's id.
        strength: Scale λ of the adapter: 0 for the base view, 1 for fine-tuned and null
            views.
        seed: The seed of a null view, or None.
    """

    id: str
    strength: float
    seed: int | None = None


Script = Callable[[ScriptedView, str], FloatArray]


def pseudo_random_logits(
    view: ScriptedView, prompt: str, *, vocab_size: int = 32, change: float = 0.5
) -> FloatArray:
    """Return logits that depend only on the prompt and the view.

    The fine-tuned view adds a fixed random change, a scaled view λ times that change. A null
    view adds a random change a tenth as large as the fine-tuned view's.
    """
    logits = _normal(f"base {prompt}", vocab_size)
    if view.seed is not None:
        return logits + 0.1 * change * _normal(f"null {view.id} {prompt}", vocab_size)
    return logits + change * view.strength * _normal(f"tuned {prompt}", vocab_size)


class ScriptedBackend:
    """A backend whose model is a function of view and prompt.

    Tokens are characters; the id of a token is its code point modulo `vocab_size`.

    Args:
        script: Returns the logits after a prompt, shape (vocab_size,). Its exceptions are
            raised unchanged.
        instrumentation: Caches and counts lookups; a new one by default.
        context: Maximum prompt length in characters, or None for no limit.
        vocab_size: Number of logits that the script returns.
        view_identity: Returns the identity of a view by its id; by default None for each,
            so that no value is stored.
        view_identity_parts: Returns by name what that is made of.

    Attributes:
        forward_batches: All forward batches so far, as (view id, prompts).
        scaled_aliases: View ids of the scales that equal another view: 0 and 1.
    """

    scaled_aliases: Mapping[float, str] = LORA_ALIASES

    def __init__(
        self,
        script: Script = pseudo_random_logits,
        *,
        instrumentation: BackendInstrumentation | None = None,
        context: int | None = None,
        vocab_size: int = 32,
        view_identity: Callable[[str], str | None] | None = None,
        view_identity_parts: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        self._view_identity = view_identity
        self.instrumentation = instrumentation or BackendInstrumentation()
        self.forward_batches: list[tuple[str, list[str]]] = []
        self.closed = False
        self.vocab_size: Final = vocab_size
        self._script = script
        self._context = context
        self._slot = ViewSlot()
        if view_identity is not None:
            self.instrumentation.identify_views(view_identity, parts=view_identity_parts)

    def as_base(self) -> AbstractContextManager[CachedView]:
        """Open the view without the adapter."""
        return self._view(ScriptedView(BASE, 0.0))

    def as_finetuned(self) -> AbstractContextManager[CachedView]:
        """Open the view with the adapter."""
        return self._view(ScriptedView(FINETUNED, 1.0))

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[CachedView]:
        """Open the view with the adapter at scale λ: 0 is the base view, 1 the fine-tuned view."""
        view_id = self.scaled_aliases.get(lam, scaled_view_id(lam))
        return self._view(ScriptedView(view_id, float(lam)))

    def as_null_adapter(
        self, seed: int, *, init_scale: float = DEFAULT_INIT_SCALE, rank_scale: float = 1.0
    ) -> AbstractContextManager[CachedView]:
        """Open the view with a random adapter."""
        return self._view(ScriptedView(null_view_id(seed, init_scale, rank_scale), 1.0, seed))

    def filler(self, tokens: int) -> str:
        """Return `tokens` dots and a blank line; "" for 0 or fewer."""
        return "." * tokens + "\n\n" if tokens > 0 else ""

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> RenderedChat:
        """Return the messages in lines such as `user: Hello`, then `assistant: `."""
        lines = [f"{message['role']}: {message['content']}" for message in messages]
        return RenderedChat("\n".join([*lines, "assistant: "]))

    def longest_filler(self, prompt: str) -> int | None:
        """Return how many tokens of filler fit the context before a prompt; None for no limit.

        Raises:
            PromptError: The prompt does not fit without filler.
        """
        if self._context is None:
            return None
        self._check_length(prompt, prompt)
        return max(0, self._context - len(self.filler(1) + prompt) + 1)

    def identity(self) -> str:
        """Return `scripted`, for every script."""
        return "scripted"

    def view_identity(self, view_id: str) -> str | None:
        """Return what the argument `view_identity` returns; None without it."""
        return None if self._view_identity is None else self._view_identity(view_id)

    def close(self) -> None:
        """Close the backend and its trace."""
        self.closed = True
        self.instrumentation.close()

    @contextmanager
    def _view(self, view: ScriptedView) -> Iterator[CachedView]:
        with self._slot.hold(view.id):
            scorer = _ScriptedScorer(self, view)
            try:
                yield CachedView(view.id, scorer, self.instrumentation)
            finally:
                scorer.closed = True

    def _logits(self, view: ScriptedView, prompt: str, key: str) -> FloatArray:
        self._check_length(prompt, key)
        logits = np.asarray(self._script(view, prompt), dtype=np.float64)
        if logits.shape != (self.vocab_size,):
            raise ValueError(
                f"the script returned logits of shape {logits.shape}, not ({self.vocab_size},)"
            )
        if not np.isfinite(logits).all():
            raise NonFiniteError(view.id, prompt_hash(key))
        return logits

    def _check_length(self, prompt: str, key: str) -> None:
        if self._context is not None and len(prompt) > self._context:
            raise PromptError(
                f"prompt {prompt_hash(key)} has {len(prompt)} tokens, more than {self._context}"
            )


class _ScriptedScorer:
    def __init__(self, backend: ScriptedBackend, view: ScriptedView) -> None:
        self._backend = backend
        self._view = view
        self.closed = False

    @property
    def vocab_size(self) -> int:
        return self._backend.vocab_size

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        self._begin(prompts)
        return [self._dist(prompt, top_k) for prompt in prompts]

    def rolling_logprobs(self, texts: Sequence[str]) -> list[RollingLogprob]:
        self._begin(texts)
        return [self._rolling(text) for text in texts]

    def logprobs_of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self._begin([prompt + completion for prompt, completion in pairs])
        return [self._completion(prompt, completion) for prompt, completion in pairs]

    def _begin(self, prompts: Sequence[str]) -> None:
        if self.closed:
            raise ViewError(f"view {self._view.id!r} is closed; open it again to score prompts")
        self._backend.forward_batches.append((self._view.id, list(prompts)))
        self._backend.instrumentation.report_tokens([len(prompt) for prompt in prompts])

    def _dist(self, prompt: str, top_k: int) -> TokenDist:
        logprobs = self._logprobs(prompt, prompt)
        order = np.argsort(-logprobs, kind="stable")
        outside = np.exp(logprobs[order[top_k:]]).sum()
        with np.errstate(divide="ignore"):
            tail = None if top_k >= logprobs.size else float(np.log(outside))
        chosen = order[:top_k]
        return TokenDist(chosen, logprobs[chosen].astype(np.float32), logprobs.size, tail)

    def _rolling(self, text: str) -> RollingLogprob:
        logprobs = [self._next(text[:i], text[i], text) for i in range(1, len(text))]
        return RollingLogprob(
            np.asarray([self._token_id(char) for char in text]),
            np.asarray(logprobs, dtype=np.float32),
            len(text),
            math.fsum(logprobs),
        )

    def _completion(self, prompt: str, completion: str) -> float:
        key = fold_strings(prompt, completion)
        if not completion:
            raise PromptError(f"the completion of prompt {prompt_hash(key)} adds no token")
        return math.fsum(
            self._next(prompt + completion[:i], char, key) for i, char in enumerate(completion)
        )

    def _next(self, before: str, char: str, key: str) -> float:
        logprobs = self._logprobs(before, key)
        return float(logprobs[self._token_id(char)])

    def _token_id(self, char: str) -> int:
        return ord(char) % self.vocab_size

    def _logprobs(self, prompt: str, key: str) -> FloatArray:
        logits = self._backend._logits(self._view, prompt, key)
        shifted = logits - logits.max()
        logprobs: FloatArray = shifted - np.log(np.exp(shifted).sum())
        return logprobs


def _normal(seed: str, size: int) -> FloatArray:
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8])).normal(size=size)
