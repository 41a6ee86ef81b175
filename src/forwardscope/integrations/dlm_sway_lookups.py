"""Our views with the methods and value types that dlm-sway's probes use."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, NamedTuple

from dlm_sway.core.errors import ProbeError
from dlm_sway.core.scoring import RollingLogprob, TokenDist

from forwardscope.backends import values
from forwardscope.backends.views import DEFAULT_INIT_SCALE

__all__ = ["Lookup", "LookupBackend", "LookupView", "Opening", "compute", "compute_batch"]

#: Below it dlm-sway reports that no probability is outside the top k.
_SMALLEST_TAIL: Final = math.log(1e-12)


class Opening(NamedTuple):
    """How a view is opened: the method of the backend, and its arguments."""

    method: str
    given: tuple[Any, ...] = ()
    scales: tuple[float, ...] = ()

    def of(self, backend: Any) -> AbstractContextManager[Any]:
        """Open the view of a backend of ours."""
        names = ("init_scale", "rank_scale")
        settings = dict(zip(names, self.scales, strict=False))
        opened: AbstractContextManager[Any] = getattr(backend, self.method)(*self.given, **settings)
        return opened


class Lookup(NamedTuple):
    """A lookup in a view, of a prompt or of a pair of prompt and completion."""

    opening: Opening
    op: str
    prompt: Any
    top_k: int = 0


class LookupBackend(ABC):
    """A backend of ours as dlm-sway's probes see it.

    Args:
        backend: A backend of ours.
        tokenizer: Its tokenizer.

    Attributes:
        tokenizer: As given. dlm-sway makes the filler of long prompts with it.
    """

    def __init__(self, backend: Any, tokenizer: Any) -> None:
        self.backend: Final = backend
        self.tokenizer: Final = tokenizer
        self._tokenizer = tokenizer  # the name under which dlm-sway looks for it

    def as_base(self) -> AbstractContextManager[LookupView]:
        """Open the weights without the adapter."""
        return self._open(Opening("as_base"))

    def as_finetuned(self) -> AbstractContextManager[LookupView]:
        """Open the weights with the adapter."""
        return self._open(Opening("as_finetuned"))

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[LookupView]:
        """Open the weights with everything that the adapter changes multiplied by `lam`."""
        return self._open(Opening("as_scaled_adapter", (float(lam),)))

    def as_null_adapter(
        self, seed: int, *, init_scale: float = DEFAULT_INIT_SCALE, rank_scale: float = 1.0
    ) -> AbstractContextManager[LookupView]:
        """Open the weights with a random adapter of the same shape."""
        return self._open(Opening("as_null_adapter", (seed,), (init_scale, rank_scale)))

    @contextmanager
    def _open(self, opening: Opening) -> Iterator[LookupView]:
        with opening.of(self.backend) as view:
            yield LookupView(self, view, opening)

    @abstractmethod
    def cache_identity(self) -> str | None:
        """Return what determines all values; None where nothing may be kept under it."""

    @abstractmethod
    def answer(self, view: Any, lookup: Lookup) -> Any:
        """Return the value of a lookup of an open view."""

    @abstractmethod
    def generate(self, view: Any, prompt: str, **settings: Any) -> str:
        """Return the text that follows a prompt in an open view."""


class LookupView:
    """An open view of an `LookupBackend`."""

    def __init__(self, backend: LookupBackend, view: Any, opening: Opening) -> None:
        self.id: Final[str] = view.id
        self._backend: Final = backend
        self._view: Final = view
        self._opening: Final = opening

    def next_token_dist(self, prompt: str, *, top_k: int = 256) -> TokenDist:
        """Return the distribution of the token after a prompt."""
        found: values.TokenDist = self._look_up("next_token_dist", prompt, top_k)
        tail = found.tail_logprob
        if tail is not None and tail <= _SMALLEST_TAIL:
            tail = 0.0
        return TokenDist(found.token_ids, found.logprobs, found.vocab_size, tail)

    def rolling_logprob(self, text: str) -> RollingLogprob:
        """Return the log-probability of each token of a text, given those before it."""
        found: values.RollingLogprob = self._look_up("rolling_logprob", text)
        own = found.token_ids, found.logprobs, found.num_tokens, found.total_logprob
        return RollingLogprob(*own)

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-probability of the tokens after as many as the prompt has.

        Where the last token of the prompt and the first of the completion are one, that is
        what dlm-sway scores, and not what our backends call a completion's tokens.
        """
        given, whole = self._ids(prompt), self._ids(prompt + completion)
        if len(whole) <= len(given):
            raise ProbeError("logprob_of", "the completion adds no token to the prompt")
        if whole[: len(given)] == given:
            return float(self._look_up("logprob_of", (prompt, completion)))
        rolled = self._look_up("rolling_logprob", prompt + completion).logprobs
        return float(rolled[len(given) - 1 :].sum(dtype=float))

    def generate(self, prompt: str, **settings: Any) -> str:
        """Return the text that follows a prompt."""
        return self._backend.generate(self._view, prompt, **settings)

    def close(self) -> None:
        """Do nothing: the context in which the view was opened closes it."""

    def _look_up(self, op: str, prompt: Any, top_k: int = 0) -> Any:
        return self._backend.answer(self._view, Lookup(self._opening, op, prompt, top_k))

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.tokenizer(text)["input_ids"])


def compute(view: Any, lookup: Lookup) -> Any:
    """Return the value of one lookup of an open view of ours."""
    if lookup.op == "next_token_dist":
        return view.next_token_dist(lookup.prompt, top_k=lookup.top_k)
    if lookup.op == "rolling_logprob":
        return view.rolling_logprob(lookup.prompt)
    return view.logprob_of(*lookup.prompt)


def compute_batch(view: Any, lookups: Sequence[Lookup]) -> Sequence[Any]:
    """Return the values of lookups of an open view of ours, with equal op and `top_k`."""
    prompts = [lookup.prompt for lookup in lookups]
    op, top_k = lookups[0].op, lookups[0].top_k
    answer = getattr(view, f"{op}_batch")
    values: Sequence[Any] = answer(prompts, top_k=top_k) if top_k else answer(prompts)
    return values
