"""Parts that all backends share: view ids, the cached view, and one open view at a time."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Protocol

from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.core.keys import fold_strings, view_family
from forwardscope.errors import PromptError, UnsupportedViewError, ViewError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = [
    "BASE",
    "DEFAULT_INIT_SCALE",
    "FINETUNED",
    "LORA_ALIASES",
    "CachedView",
    "Scorer",
    "ViewSlot",
    "check_supported",
    "null_view_id",
    "scaled_view_id",
]

BASE: Final = "base"
FINETUNED: Final = "ft"
DEFAULT_INIT_SCALE: Final = 0.02
#: Scales at which a plain LoRA adapter gives the same weights as another view.
LORA_ALIASES: Final = MappingProxyType({0.0: BASE, 1.0: FINETUNED})


def scaled_view_id(lam: float) -> str:
    """Return the id of the view scaled by `lam`; different values have different ids.

    Raises:
        ValueError: `lam` is not finite.
    """
    lam = float(lam)
    if not math.isfinite(lam):
        raise ValueError(f"the adapter's scale must be finite; got {lam}")
    return f"scaled_{lam + 0.0!r}"  # + 0.0 gives -0.0 the id of 0.0


def null_view_id(seed: int, init_scale: float, rank_scale: float) -> str:
    """Return the id of a null view; it contains a scale only where that is not the default.

    Raises:
        ValueError: A scale is not positive and finite.
    """
    parts = [f"null_{seed}"]
    for name, value, default in (
        ("init", float(init_scale), DEFAULT_INIT_SCALE),
        ("rank", float(rank_scale), 1.0),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}_scale must be positive and finite; got {value}")
        if value != default:
            parts.append(f"{name}{value!r}")
    return "_".join(parts)


def check_supported(view_id: str, refused_views: Mapping[str, str]) -> None:
    """Raise an error where a view's family is refused.

    Args:
        view_id: Id of the view.
        refused_views: The reason for each refused view family.

    Raises:
        UnsupportedViewError: The family of `view_id` is refused.
    """
    reason = refused_views.get(view_family(view_id))
    if reason is not None:
        raise UnsupportedViewError(view_id, reason)


class Scorer(Protocol):
    """What a backend computes for one view; each method call is one forward call."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens in a whole distribution."""
        ...

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        """Compute `ScoringView.next_token_dist` of each prompt."""
        ...

    def rolling_logprobs(self, texts: Sequence[str]) -> list[RollingLogprob]:
        """Compute `ScoringView.rolling_logprob` of each text."""
        ...

    def logprobs_of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Compute `ScoringView.logprob_of` of each (prompt, completion)."""
        ...


class CachedView:
    """A `ScoringView` that computes misses with its scorer."""

    def __init__(
        self, view_id: str, scorer: Scorer, instrumentation: BackendInstrumentation
    ) -> None:
        self.id: Final = view_id
        self._scorer = scorer
        self._inst = instrumentation

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the distribution of the token after a prompt."""
        k = self._clip(top_k)
        return self._inst.cached(
            "next_token_dist",
            self.id,
            _nonempty(prompt),
            k,
            lambda: self._scorer.next_token_dists([prompt], k)[0],
        )

    def next_token_dist_batch(self, prompts: Sequence[str], *, top_k: int = 256) -> list[TokenDist]:
        """Return `next_token_dist` of each prompt."""
        k = self._clip(top_k)
        return self._inst.cached_batch(
            "next_token_dist",
            self.id,
            [_nonempty(prompt) for prompt in prompts],
            k,
            lambda missed: self._scorer.next_token_dists([prompts[i] for i in missed], k),
        )

    def rolling_logprob(self, text: str) -> RollingLogprob:
        """Return the log-probability of each token of a text, given those before it."""
        return self._inst.cached(
            "rolling_logprob",
            self.id,
            _nonempty(text),
            0,
            lambda: self._scorer.rolling_logprobs([text])[0],
        )

    def rolling_logprob_batch(self, texts: Sequence[str]) -> list[RollingLogprob]:
        """Return `rolling_logprob` of each text."""
        return self._inst.cached_batch(
            "rolling_logprob",
            self.id,
            [_nonempty(text) for text in texts],
            0,
            lambda missed: self._scorer.rolling_logprobs([texts[i] for i in missed]),
        )

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-probability of a completion, in nats."""
        return self._inst.cached(
            "logprob_of",
            self.id,
            fold_strings(_nonempty(prompt), completion),
            0,
            lambda: self._scorer.logprobs_of([(prompt, completion)])[0],
        )

    def logprob_of_batch(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return `logprob_of` of each (prompt, completion)."""
        return self._inst.cached_batch(
            "logprob_of",
            self.id,
            [fold_strings(_nonempty(prompt), completion) for prompt, completion in pairs],
            0,
            lambda missed: self._scorer.logprobs_of([pairs[i] for i in missed]),
        )

    def _clip(self, top_k: int) -> int:
        k = operator.index(top_k)  # a JSON record cannot hold numpy integers
        if k < 1:
            raise ValueError(f"top_k must be at least 1; got {k}")
        return min(k, self._scorer.vocab_size)


class ViewSlot:
    """Limits a backend to one open view and records its id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: str | None = None

    @property
    def current(self) -> str | None:
        """The id of the open view, or None."""
        return self._open

    @contextmanager
    def hold(self, view_id: str) -> Iterator[None]:
        """Occupy the slot with one view for the duration of the context.

        Raises:
            ViewError: Another view is open.
        """
        holds = False
        try:
            with self._lock:
                if self._open is not None:
                    raise ViewError(
                        f"view {self._open!r} is open; close it before opening view {view_id!r}"
                    )
                holds = True  # before the slot is occupied, so that an interrupt frees it
                self._open = view_id
            yield
        finally:
            if holds:
                self._open = None


def _nonempty(prompt: str) -> str:
    if not prompt:
        raise PromptError("an empty prompt cannot be scored; it must have at least one token")
    return prompt
