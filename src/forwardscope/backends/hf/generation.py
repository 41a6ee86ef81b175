"""Views that also generate texts, for tools whose probes compare them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from forwardscope.backends.hf.scorer import HFScorer
from forwardscope.backends.views import CachedView
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["GeneratingView"]


class GeneratingView(CachedView):
    """A `CachedView` that generates texts with its scorer."""

    def __init__(
        self, view_id: str, scorer: HFScorer, instrumentation: BackendInstrumentation
    ) -> None:
        super().__init__(view_id, scorer, instrumentation)
        self._generator: Final = scorer

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Return the text that follows a prompt. It is counted, and never kept.

        Args:
            prompt: The prompt.
            max_new_tokens: The most tokens of the text.
            temperature: Of the distribution that tokens are drawn from; 0 takes the most
                probable one each time.
            top_p: Share of the probability that tokens are drawn from.
            seed: Seed of the draws.
        """
        settings: Mapping[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False}
        if temperature > 0:
            settings = {
                "max_new_tokens": max_new_tokens,
                "do_sample": True,
                "temperature": temperature,
                "top_p": top_p,
            }
        return self._inst.uncached(
            *("generate", self.id, prompt, 0),
            lambda: self._generator.generate(prompt, settings, seed),
        )
