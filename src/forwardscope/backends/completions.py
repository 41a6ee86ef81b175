"""Which tokens of a prompt with its completion are those of the completion."""

from __future__ import annotations

from collections.abc import Sequence

from forwardscope.core.keys import prompt_hash
from forwardscope.errors import PromptError

__all__ = ["added_tokens"]


def added_tokens(given: Sequence[int], full: Sequence[int], key: str) -> int:
    """Return how many tokens of `full` follow its longest common prefix with `given`.

    Args:
        given: Tokens of the prompt.
        full: Tokens of prompt and completion.
        key: Prompt of the cache key, whose hash errors name.

    Raises:
        PromptError: The completion adds no token, or changes the first one of the prompt.
    """
    pairs = zip(given, full, strict=False)
    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(given), len(full)))
    if shared == len(full):
        raise PromptError(f"the completion of prompt {prompt_hash(key)} adds no token")
    if shared == 0:
        raise PromptError(
            f"the completion of prompt {prompt_hash(key)} changes the prompt's first token, "
            "so nothing is left to condition on; begin the completion with a space"
        )
    return len(full) - shared
