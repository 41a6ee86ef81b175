"""What a backend's weights were loaded from."""

from __future__ import annotations

from dataclasses import dataclass

from forwardscope.backends.hf.remembered import SignedFiles
from forwardscope.backends.hf.vocabulary import Vocabulary
from forwardscope.core.keys import view_family

__all__ = ["Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a backend's weights were loaded from, and what was found while loading.

    Attributes:
        files: The files that the base's weights were loaded from. With them the digest
            of the weights is saved for later processes; without them each process
            computes the digest.
        tuned_files: The same for the adapter or the tuned model.
        vocabulary: Number of tokens in the distributions of base and tuned, where
            they differ from the model's output.
        warnings: What a reader of the results should know.
        rehash: Whether to ignore digests that were saved.
    """

    files: SignedFiles | None = None
    tuned_files: SignedFiles | None = None
    vocabulary: Vocabulary | None = None
    warnings: tuple[str, ...] = ()
    rehash: bool = False

    def vocab_size(self, view_id: str) -> int | None:
        """Return the number of tokens in a view's distributions; None for all of the model's."""
        if self.vocabulary is None:
            return None
        of_base = view_family(view_id) in ("base", "null")
        return self.vocabulary.base if of_base else self.vocabulary.tuned
