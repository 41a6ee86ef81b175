"""What the backends for an adapter and for two checkpoints have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from forwardscope.backends.hf.applied_change import Change
from forwardscope.backends.hf.forward import Forward
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.scorer import HFScorer
from forwardscope.backends.hf.tokens import filler_token
from forwardscope.backends.views import CachedView, ViewSlot
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
        self._identity: str | None = None
        self._closed = False
        #: `fast` or `strict`.
        self.exactness: Final[str] = forwards[0].exactness
        #: Dtype of the weights, such as `float32`.
        self.dtype: Final = str(forwards[0].model.dtype).removeprefix("torch.")
        #: Device of the weights, such as `cpu` or `cuda:0`.
        self.device: Final = str(forwards[0].model.device)

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Cache, counts and trace of this backend's lookups."""
        return self._instrumentation

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
    def vocab_size(self) -> int:
        """Number of tokens in the largest whole distribution."""
        return max(forward.vocab_size for forward in self._forwards)

    def filler(self, tokens: int) -> str:
        """Return `tokens` pad tokens (else unk, else eos) and a blank line; empty for 0."""
        if tokens <= 0:
            return ""
        known = min(forward.vocab_size for forward in self._forwards)
        token = filler_token(self._forwards[0].tokenizer, known)
        if not token:
            raise ViewError("the tokenizer has no pad, unk or eos token for filler")
        return f"{token * tokens}\n\n"

    def longest_filler(self, prompt: str) -> int | None:
        """Return how many tokens of filler fit the model's context before a prompt.

        None where the model has no limit.

        Raises:
            PromptError: The prompt does not fit without filler.
        """
        limits = [self._longest_filler(forward, prompt) for forward in self._forwards]
        return min((limit for limit in limits if limit is not None), default=None)

    def identity(self) -> str:
        """Return a SHA-256 of everything that determines this backend's values.

        It covers weights, adapter, tokenizer, dtype, exactness, device type and
        library versions. The first call computes it, in about two seconds per
        gigabyte of weights. The digest of the weights is saved under the paths,
        sizes and times of the model's files.

        Raises:
            ViewError: The backend is closed, or a view is open that replaces the
                backend's own weights.
        """
        if self._identity is None:
            self._identity = self._compute_identity()
        return self._identity

    def close(self) -> None:
        """Free the weights and close the trace; may be called twice."""
        self._closed = True
        self._instrumentation.close()
        for forward in self._forwards:
            with forward.lock:  # wait for a forward call in flight
                forward.model = None

    @abstractmethod
    def _compute_identity(self) -> str:
        """Compute `identity`."""

    @contextmanager
    def _view(
        self,
        view_id: str,
        forward: Forward,
        change: Change,
    ) -> Iterator[CachedView]:
        """Open a view: a model, and the change of its weights at the first forward pass."""
        self._check_open()
        with self._slot.hold(view_id):
            scorer = HFScorer(
                view_id, forward, change, self._instrumentation, self._origin.vocab_size(view_id)
            )
            try:
                yield CachedView(view_id, scorer, self._instrumentation)
            finally:
                scorer.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ViewError("the backend is closed; load it again to open a view")

    def _longest_filler(self, forward: Forward, prompt: str) -> int | None:
        if forward.context is None:
            return None
        forward.tokenize([prompt])
        try:
            [ids] = forward.tokenize([self.filler(1) + prompt])
        except PromptError:  # one token of filler is too many
            return 0
        return forward.context - len(ids) + 1
