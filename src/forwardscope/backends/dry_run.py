"""A backend without a model, for counting lookups and forward passes."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from opentelemetry.trace import NoOpTracerProvider

from forwardscope.backends.base import Backend, NullBackend, ScalableBackend
from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.backends.views import (
    BASE,
    DEFAULT_INIT_SCALE,
    FINETUNED,
    LORA_ALIASES,
    CachedView,
    check_supported,
    null_view_id,
    scaled_view_id,
)
from forwardscope.core.keys import LookupKey, RenderedChat, fold_strings
from forwardscope.errors import ForwardscopeError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["DryRunBackend", "ForwardCall", "dry_run_backend"]

#: Size of the made-up vocabulary; small, because only the counts matter.
_TOKENS: Final = 8
#: Unicode noncharacters, which do not occur in text, so that no prompt equals filler.
_FILLER: Final = "\ufdd0{}\ufdd1"


RenderChat = Callable[[Sequence[Mapping[str, str]]], RenderedChat]


class ForwardCall(NamedTuple):
    """A forward call of a dry run: its probe, view, op, prompts (or pairs) and `top_k`."""

    probe: str | None
    view_id: str
    op: str
    prompts: tuple[Any, ...]
    top_k: int

    def lookup_keys(self) -> list[LookupKey]:
        """Return the key of each prompt, as `CachedView` makes it."""
        folded = [one if isinstance(one, str) else fold_strings(*one) for one in self.prompts]
        return [(self.op, self.view_id, prompt, self.top_k) for prompt in folded]


class DryRunBackend:
    """A backend with made-up results and the counts of a real backend.

    The results are finite and not uniform. They differ between views and are the
    same for all prompts of a view. Nothing is traced, and there are no spans.

    Args:
        cache_enabled: False stores nothing between calls.
        max_entries: Maximum number of cache entries; by default none is evicted.
        scaled_aliases: As described in `Backend`.
        refused_views: As described in `Backend`.
        vocab_size: Number to which `top_k` is clipped; None for no limit.
        longest_filler: As described in `Backend`.
        filler: As described in `Backend`; by default made-up text.
        render_chat: As described in `Backend`; by default made-up text.

    Attributes:
        computed: The prompts of each forward call, in order.
    """

    def __init__(
        self,
        *,
        cache_enabled: bool = True,
        max_entries: int = sys.maxsize,
        scaled_aliases: Mapping[float, str] | None = None,
        refused_views: Mapping[str, str] | None = None,
        vocab_size: int | None = None,
        longest_filler: Callable[[str], int | None] | None = None,
        filler: Callable[[int], str] | None = None,
        render_chat: RenderChat | None = None,
    ) -> None:
        self.instrumentation: Final = BackendInstrumentation(
            cache_maxsize=max_entries,
            cache_enabled=cache_enabled,
            name="dry-run",
            tracer_provider=NoOpTracerProvider(),
        )
        self.scaled_aliases: Final = {} if scaled_aliases is None else scaled_aliases
        self.refused_views: Final = {} if refused_views is None else refused_views
        self._longest_filler: Final = longest_filler
        self._filler: Final = filler or _made_up_filler
        self._render_chat: Final = render_chat or _made_up_chat
        self.computed: Final[list[ForwardCall]] = []
        self.vocab_size: Final = sys.maxsize if vocab_size is None else vocab_size

    def as_base(self) -> AbstractContextManager[CachedView]:
        """Open the view without the adapter."""
        return self._view(BASE)

    def as_finetuned(self) -> AbstractContextManager[CachedView]:
        """Open the view with the adapter."""
        return self._view(FINETUNED)

    def filler(self, tokens: int) -> str:
        """Return a text that differs for each number of tokens; empty for 0."""
        return self._filler(tokens)

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> RenderedChat:
        """Return a text that differs for different messages."""
        return self._render_chat(messages)

    def longest_filler(self, prompt: str) -> int | None:
        """Return the limit of the other backend; None without one or where it raises an error."""
        if self._longest_filler is None:
            return None
        try:
            return self._longest_filler(prompt)
        except ForwardscopeError:  # the run has this error
            return None

    def identity(self) -> str:
        """Return a fixed name."""
        return "dry-run"

    def view_identity(self, view_id: str) -> None:
        """Return None, because made-up results are never stored."""

    def close(self) -> None:
        """Close the instrumentation."""
        self.instrumentation.close()

    def _view(self, view_id: str) -> AbstractContextManager[CachedView]:
        check_supported(view_id, self.refused_views)
        scorer = _DryRunScorer(view_id, self.vocab_size, self._record)
        return nullcontext(CachedView(view_id, scorer, self.instrumentation))

    def _record(self, view_id: str, op: str, prompts: Sequence[Any], top_k: int) -> None:
        probe = self.instrumentation.current_probe
        self.computed.append(ForwardCall(probe, view_id, op, tuple(prompts), top_k))


class _Scalable(DryRunBackend):
    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[CachedView]:
        return self._view(self.scaled_aliases.get(lam, scaled_view_id(lam)))


class _Null(DryRunBackend):
    def as_null_adapter(
        self, seed: int, *, init_scale: float = DEFAULT_INIT_SCALE, rank_scale: float = 1.0
    ) -> AbstractContextManager[CachedView]:
        return self._view(null_view_id(seed, init_scale, rank_scale))


class _ScalableNull(_Scalable, _Null):
    pass


_CLASSES: Final = {
    (False, False): DryRunBackend,
    (False, True): _Null,
    (True, False): _Scalable,
    (True, True): _ScalableNull,
}


def dry_run_backend(
    like: Backend | None,
    *,
    cache_enabled: bool = True,
    max_entries: int = sys.maxsize,
    has_adapter: bool = True,
    real_texts: bool = False,
) -> DryRunBackend:
    """Return a dry-run backend with the abilities of another backend.

    A missing `scaled_aliases` means no aliases, a missing `vocab_size` no limit
    of `top_k` and a missing `longest_filler` no limit of filler, so that a plan
    overestimates the cost instead of underestimating it. The other backend's
    views are assumed to use the cache as `CachedView` does.

    Args:
        like: Backend whose abilities and optional attributes are copied;
            nothing else of it is used. None means what `has_adapter` says.
        cache_enabled: False stores nothing between calls.
        max_entries: Maximum number of cache entries; by default none is evicted.
        has_adapter: Without `like`: whether to assume all abilities and a plain
            LoRA adapter, or only the views of a base and its full fine-tune.
        real_texts: Whether the prompts of `computed` have the filler of `like`, and its
            rendered chats. By default they are made up, and never equal another prompt.
    """
    assumed = like is None and has_adapter
    cls = _CLASSES[
        assumed or isinstance(like, ScalableBackend), assumed or isinstance(like, NullBackend)
    ]
    aliases = LORA_ALIASES if assumed else getattr(like, "scaled_aliases", None)
    return cls(
        cache_enabled=cache_enabled,
        max_entries=max_entries,
        scaled_aliases=aliases,
        refused_views=getattr(like, "refused_views", None),
        vocab_size=getattr(like, "vocab_size", None),
        longest_filler=getattr(like, "longest_filler", None),
        filler=like.filler if real_texts and like is not None else None,
        render_chat=getattr(like, "render_chat", None) if real_texts else None,
    )


class _DryRunScorer:
    """A scorer with one made-up result for each op, the same for all prompts."""

    def __init__(self, view_id: str, vocab_size: int, record: Callable[..., None]) -> None:
        self.vocab_size: Final = vocab_size
        self._record = partial(record, view_id)
        spread = 1.0 + zlib.crc32(view_id.encode()) / 2**32
        logits = -spread * np.arange(_TOKENS)
        self._logprobs: npt.NDArray[np.float64] = logits - np.log(np.exp(logits).sum())

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        self._record("next_token_dist", prompts, top_k)
        top, rest = self._logprobs[:top_k], self._logprobs[top_k:]
        tail = float(np.log(np.exp(rest).sum())) if rest.size else None
        dist = TokenDist(np.arange(top.size), top.astype(np.float32), _TOKENS, tail)
        return [dist] * len(prompts)

    def rolling_logprobs(self, texts: Sequence[str]) -> list[RollingLogprob]:
        self._record("rolling_logprob", texts, 0)
        logprobs = self._logprobs[1:]
        rolled = RollingLogprob(
            np.arange(_TOKENS), logprobs.astype(np.float32), _TOKENS, float(logprobs.sum())
        )
        return [rolled] * len(texts)

    def logprobs_of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self._record("logprob_of", pairs, 0)
        return [float(self._logprobs[0])] * len(pairs)


def _made_up_chat(messages: Sequence[Mapping[str, str]]) -> RenderedChat:
    return RenderedChat(repr([sorted(message.items()) for message in messages]))


def _made_up_filler(tokens: int) -> str:
    return _FILLER.format(tokens) if tokens > 0 else ""
