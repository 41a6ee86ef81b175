"""What a backend's weights were loaded from."""

from __future__ import annotations

from dataclasses import dataclass

from forwardscope.backends.hf.vocabulary import Vocabulary
from forwardscope.core.keys import view_family

__all__ = ["Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a backend's weights were loaded from, and what was found while loading.

    Attributes:
        files: Signature of the files that the weights were loaded from, as
            `sign_files` returns it. With it the digest of the weights is saved for
            later processes; without it each process computes the digest.
        tuned_files: The same for the files of a tuned model without an adapter.
        vocabulary: Number of tokens in the distributions of base and tuned, where
            they differ from the model's output.
        warnings: What a reader of the results should know.
    """

    files: str | None = None
    tuned_files: str | None = None
    vocabulary: Vocabulary | None = None
    warnings: tuple[str, ...] = ()

    def vocab_size(self, view_id: str) -> int | None:
        """Return the number of tokens in a view's distributions; None for all of the model's."""
        if self.vocabulary is None:
            return None
        of_base = view_family(view_id) in ("base", "null")
        return self.vocabulary.base if of_base else self.vocabulary.tuned
