"""Call a model with token ids and return the logits that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.compat import States

__all__ = ["ModelCalls", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of a forward batch.

    Attributes:
        ids: Token ids of the prompt.
        positions: Number of last positions whose logits are needed; at least 1.
    """

    ids: list[int]
    positions: int


class ModelCalls:
    """Calls a model with one or more rows.

    Rows of different lengths are padded at their ends. A causal model computes no
    position from later ones, so neither a mask nor position ids are needed, and a
    row gets the same arguments as in a call of its own.

    Args:
        model: A causal language model, wrapped by PEFT or not, in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model: Any = model
        self.accepted = compat.forward_arguments(model)
        # some models log a warning if a row ends with their pad token
        self._filler = 1 if compat.pad_token(model) == 0 else 0

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        device: torch.device = self.model.device
        return device

    @torch.inference_mode()
    def logits(
        self,
        rows: Sequence[Row],
        *,
        prefix: int = 0,
        states: States | None = None,
        keep_cache: bool = False,
    ) -> tuple[list[torch.Tensor], Any | None]:
        """Compute one batch.

        Args:
            rows: The rows; their last positions are after the prefix.
            prefix: Number of first tokens that all rows have in `states`.
            states: Keys and values of the prefix, for one row.
            keep_cache: Whether to return the model's cache.

        Returns:
            For each row the float32 logits of its last positions, shape
            (positions, vocabulary); and the cache, or None.
        """
        rests = [row.ids[prefix:] for row in rows]
        longest = max(map(len, rests))
        spans = [
            range(len(rest) - row.positions, len(rest))
            for rest, row in zip(rests, rows, strict=True)
        ]
        kept: Sequence[int] = sorted({position for span in spans for position in span})
        inputs = self._inputs(rests, longest, kept)
        if self.accepted.use_cache:
            inputs["use_cache"] = keep_cache or states is not None
        if states is not None:
            inputs[str(self.accepted.cache)] = _repeated(states, len(rows))
        output = self.model(**inputs)
        if output.logits.shape[1] == longest:  # the model computed all positions
            kept = range(longest)
        own = [_at(span, kept, logits) for span, logits in zip(spans, output.logits, strict=True)]
        return own, compat.computed_cache(output) if keep_cache else None

    def _inputs(
        self, rests: Sequence[list[int]], longest: int, kept: Sequence[int]
    ) -> dict[str, Any]:
        padded = [rest + [self._filler] * (longest - len(rest)) for rest in rests]
        inputs: dict[str, Any] = {"input_ids": torch.tensor(padded, device=self.device)}
        if self.accepted.logits_to_keep:
            are_last = kept[0] == longest - len(kept)
            inputs["logits_to_keep"] = (
                len(kept) if are_last else torch.tensor(kept, device=self.device)
            )
        return inputs


def _at(span: range, kept: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
    """Return the logits at a row's needed positions, which follow one another in `kept`."""
    first = kept.index(span.start)
    return logits[first : first + len(span)].float()


def _repeated(states: States, n: int) -> Any:
    """Return a cache in which each of `n` rows has the keys and values of a prefix."""
    return compat.cache_of(
        [(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1)) for keys, values in states]
    )
