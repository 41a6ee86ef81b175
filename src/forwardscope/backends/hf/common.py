"""What the backends for an adapter and for two checkpoints have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from forwardscope.backends.digests import digest_of
from forwardscope.backends.hf import compat
from forwardscope.backends.hf.applied_change import Change
from forwardscope.backends.hf.chats import render_chat
from forwardscope.backends.hf.environment import environment
from forwardscope.backends.hf.forward import Forward
from forwardscope.backends.hf.generation import GeneratingView
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.scorer import HFScorer
from forwardscope.backends.hf.tokens import filler_token
from forwardscope.backends.hf.view_identity import (
    OTHER_CODE,
    UNKNOWN_CODE,
    Parts,
    Reading,
    ViewParts,
    identity_of,
)
from forwardscope.backends.views import BASE, FINETUNED, ViewSlot
from forwardscope.core.keys import RenderedChat
from forwardscope.errors import PromptError, ViewError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["CommonBackend"]


class CommonBackend(ABC):
    """A backend that opens one view of its models at a time.

    Args:
        forwards: The models, all with the same tokenizer.
        instrumentation: Caches, counts and traces lookups; a new one by default.
        origin: What the models were loaded from, and their warnings.
    """

    def __init__(
        self,
        forwards: Sequence[Forward],
        instrumentation: BackendInstrumentation | None,
        origin: Origin | None,
    ) -> None:
        self._forwards = tuple(forwards)
        self._instrumentation = instrumentation or BackendInstrumentation()
        self._origin = origin or Origin()
        self._slot = ViewSlot()
        self._parts: ViewParts | None = None
        self._closed = False
        #: `fast` or `strict`.
        self.exactness: Final[str] = forwards[0].exactness
        #: Dtype of the weights, such as `float32`.
        self.dtype: Final = str(forwards[0].model.dtype).removeprefix("torch.")
        #: Device of the weights, such as `cpu` or `cuda:0`.
        self.device: Final = str(forwards[0].model.device)
        if self._origin.files is None and any(compat.is_quantised(one.model) for one in forwards):
            self._view_parts()  # before the first pass, which may change a quantised state

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Cache, counts and trace of this backend's lookups."""
        return self._instrumentation

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the models; a change of it changes the values of later prompts."""
        return self._forwards[0].tokenizer

    def record_in(self, instrumentation: BackendInstrumentation) -> None:
        """Make the lookups of views that are opened from now on through another instrumentation."""
        self._instrumentation = instrumentation
        self._identify_views()

    @property
    @abstractmethod
    def refused_views(self) -> Mapping[str, str]:
        """The reason for each view family that this backend cannot open."""

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results should know about what was loaded."""
        return list(self._origin.warnings)

    @property
    @abstractmethod
    def optimisations(self) -> Mapping[str, str]:
        """`on`, `on (limit)` or `off (reason)` for prefix sharing and padded batches."""

    @property
    def tolerance(self) -> float:
        """Largest difference of a log-probability that batching makes, in nats; 0.0 in `strict`."""
        return max(forward.tolerance for forward in self._forwards)

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the largest whole distribution."""
        return max(forward.vocab_size for forward in self._forwards)

    def filler(self, tokens: int) -> str:
        """Return `tokens` pad tokens (else unk, else eos) and a blank line; empty for 0."""
        if tokens <= 0:
            return ""
        token = self._filler_token()
        if not token:
            raise ViewError("the tokenizer has no pad, unk or eos token for filler")
        return f"{token * tokens}\n\n"

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> RenderedChat:
        """Return a chat as the template of the models' tokenizer renders it.

        The answer of the assistant follows; a last message of the assistant is its beginning.

        Raises:
            PromptError: There is no template, or it refuses these messages.
        """
        return render_chat(self._forwards[0].tokenizer, messages)

    def longest_filler(self, prompt: str) -> int | None:
        """Return how many tokens of filler fit the model's context before a prompt.

        None where the model has no limit.

        Raises:
            PromptError: The prompt does not fit without filler.
        """
        limits = [self._longest_filler(forward, prompt) for forward in self._forwards]
        return min((limit for limit in limits if limit is not None), default=None)

    def identity(self) -> str:
        """Return a hash of everything that determines this backend's values, 64 hex digits.

        It is one of the identities of base and fine-tuned view, and of the filler.

        Raises:
            ViewError: As for `view_identity_parts`.
        """
        found = self._view_parts()
        views = [self._with_environment(found.of(view)) for view in (BASE, FINETUNED)]
        return digest_of([*map(identity_of, views), self._filler_token()])

    def view_identity(self, view_id: str) -> str | None:
        """Return a hash of everything that determines a view's values, 64 hex digits.

        Views of an equal identity have equal values, whichever backend opens them. None
        means that none is known: this backend cannot open the view, or the model has a
        module whose class is of no installed package.

        Raises:
            ViewError: As for `view_identity_parts`.
        """
        parts = self.view_identity_parts(view_id)
        return identity_of(parts) if parts else None

    def view_identity_parts(self, view_id: str) -> Mapping[str, str]:
        """Return all that a view's identity is a hash of, by name; empty where that is None.

        A value is a digest or a short text. The first call digests the weights, in about a
        second per gigabyte, unless the digest of their files is remembered. It may come at
        any time, also while a view has changed the weights.

        Raises:
            ViewError: The backend was closed before the first call, or an interrupt left
                the weights changed.
        """
        parts = self._view_parts().of(view_id)
        known = parts and parts.get(OTHER_CODE) != UNKNOWN_CODE
        return self._with_environment(parts) if known else {}

    def close(self) -> None:
        """Free the weights and close the trace; may be called twice."""
        self._closed = True
        self._instrumentation.close()
        for forward in self._forwards:
            with forward.lock:  # wait for a forward call in flight
                forward.model = None

    @abstractmethod
    def _compute_parts(self, reading: Reading) -> ViewParts:
        """Return the parts of all identities, with the weights as they were loaded."""

    def _identify_views(self) -> None:
        """Let a store be used; called once the tolerance is measured."""
        self._instrumentation.identify_views(
            self.view_identity, self.tolerance, self.view_identity_parts
        )

    def _view_parts(self) -> ViewParts:
        if self._parts is None:
            first = self._forwards[0]
            reading = Reading(first.tokenizer, first.exactness, self._origin.rehash)
            with first.lock:  # the models have one lock
                self._check_open()
                self._parts = self._parts or self._compute_parts(reading)
        return self._parts

    def _with_environment(self, parts: Parts) -> Parts:
        return {**parts, **environment(torch.device(self.device))}

    @contextmanager
    def _view(
        self,
        view_id: str,
        forward: Forward,
        change: Change,
    ) -> Iterator[GeneratingView]:
        """Open a view: a model, and the change of its weights at the first forward pass."""
        self._check_open()
        with self._slot.hold(view_id):
            scorer = HFScorer(
                view_id, forward, change, self._instrumentation, self._origin.vocab_size(view_id)
            )
            try:
                yield GeneratingView(view_id, scorer, self._instrumentation)
            finally:
                scorer.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ViewError("the backend is closed; load it again to open a view")

    def _filler_token(self) -> str:
        known = min(forward.vocab_size for forward in self._forwards)
        return filler_token(self._forwards[0].tokenizer, known)

    def _longest_filler(self, forward: Forward, prompt: str) -> int | None:
        if forward.context is None:
            return None
        forward.tokenize([prompt])
        try:
            [ids] = forward.tokenize([self.filler(1) + prompt])
        except PromptError:  # one token of filler is too many
            return 0
        return forward.context - len(ids) + 1
