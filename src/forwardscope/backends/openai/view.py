"""The cached view of a server, which says what needs a tokenizer before it is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from forwardscope.backends.views import CachedView, Scorer
from forwardscope.errors import UnsupportedError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["WITHOUT_TOKENIZER", "ServedView"]

#: Why what needs token ids is not possible.
WITHOUT_TOKENIZER: Final = (
    "the server has no /tokenize; give model.tokenizer, a folder with the model's tokenizer.json"
)


class ServedView(CachedView):
    """A `CachedView` that has log-probabilities of completions only with a tokenizer.

    Args:
        view_id: Id of the view.
        scorer: Computes what is not cached.
        instrumentation: Caches, counts and traces lookups.
        has_tokens: Whether a tokenizer is known.
    """

    def __init__(
        self,
        view_id: str,
        scorer: Scorer,
        instrumentation: BackendInstrumentation,
        *,
        has_tokens: bool,
    ) -> None:
        super().__init__(view_id, scorer, instrumentation)
        self._has_tokens = has_tokens

    def logprob_of(self, prompt: str, completion: str) -> float:
        """Return the summed log-probability of a completion, in nats.

        Raises:
            UnsupportedError: No tokenizer is known.
        """
        self._check()
        return super().logprob_of(prompt, completion)

    def logprob_of_batch(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return `logprob_of` of each (prompt, completion)."""
        self._check()
        return super().logprob_of_batch(pairs)

    def _check(self) -> None:
        if not self._has_tokens:
            raise UnsupportedError(
                f"log-probabilities of completions are not available: {WITHOUT_TOKENIZER}"
            )
