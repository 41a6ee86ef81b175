"""Running prompts through the model: tokens in, the logits that are needed out."""

from __future__ import annotations

import inspect
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from forwardscope.backends.hf.packing import ACCELERATOR_TOKENS, CPU_TOKENS, pack
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import PromptError

__all__ = ["Exactness", "Forward", "Row"]

#: `fast` computes prompts in padded batches, `strict` each alone and whole.
Exactness = Literal["fast", "strict"]


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of a forward batch.

    Attributes:
        ids: Its token ids.
        kept: How many of its last positions' logits are needed; at least 1.
    """

    ids: list[int]
    kept: int


class Forward:
    """The model and its tokenizer, and how the two are run.

    One forward batch runs at a time (`lock`): a view must not change the
    weights under another thread's pass.

    Args:
        model: A causal language model, wrapped by PEFT or not, in eval mode.
        tokenizer: Its tokenizer.
        exactness: Whether prompts may share a batch.
    """

    def __init__(self, model: Any, tokenizer: Any, exactness: Exactness) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.exactness: Exactness = exactness
        self.lock = threading.RLock()
        config = model.config.get_text_config()
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        accepted = inspect.signature(base.forward).parameters
        self._takes_kept = "logits_to_keep" in accepted
        # a model that cannot be told where its padding is gets none
        self._takes_padding = {"attention_mask", "position_ids"} <= accepted.keys()
        self._takes_positions = "position_ids" in accepted

    def tokenize(
        self, prompts: Sequence[str], keys: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Return each prompt's token ids, as the tokenizer makes them by default.

        Args:
            prompts: What to tokenize.
            keys: What each prompt's lookup is kept under, so that an error
                has the hash of its trace record; by default the prompts.

        Raises:
            PromptError: A prompt has no token, more than the model's context
                holds, or half a surrogate pair.
        """
        keys = prompts if keys is None else keys
        for prompt, key in zip(prompts, keys, strict=True):
            if not _is_unicode(prompt):
                raise PromptError(
                    f"prompt {prompt_hash(key)} holds half a surrogate pair, which is no text; "
                    "mend its encoding"
                )
        encoded: list[list[int]] = self.tokenizer(list(prompts), verbose=False)["input_ids"]
        for ids, key in zip(encoded, keys, strict=True):
            if not ids:
                raise PromptError(f"prompt {prompt_hash(key)} has no tokens")
            if self.context is not None and len(ids) > self.context:
                raise PromptError(
                    f"prompt {prompt_hash(key)} has {len(ids)} tokens, more than the "
                    f"{self.context} of the model's context; shorten it"
                )
        return encoded

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Run rows in as few batches as their lengths and the exactness allow.

        Yields:
            The indices of a batch's rows, and their logits: float32, shape
            (batch, max kept, vocabulary), the last position last. Of a row
            that needs fewer positions only its last `kept` mean anything.
        """
        for batch in self._batches(rows):
            ids = [rows[i].ids for i in batch]
            yield batch, self._logits(ids, max(rows[i].kept for i in batch))

    def _batches(self, rows: Sequence[Row]) -> list[list[int]]:
        if self.exactness == "strict":
            return [[i] for i in range(len(rows))]
        if self._takes_padding:
            return self._pack(rows, range(len(rows)))
        alike = defaultdict(list)
        for i, row in enumerate(rows):
            alike[len(row.ids)].append(i)
        return [batch for same in alike.values() for batch in self._pack(rows, same)]

    def _pack(self, rows: Sequence[Row], chosen: Sequence[int]) -> list[list[int]]:
        lengths = [len(rows[i].ids) for i in chosen]
        kept = [rows[i].kept for i in chosen]
        on_cpu = self.model.device.type == "cpu"
        max_tokens = CPU_TOKENS if on_cpu else ACCELERATOR_TOKENS
        packed = pack(lengths, kept, self.vocab_size, max_tokens)
        return [[chosen[place] for place in batch] for batch in packed]

    @torch.inference_mode()
    def _logits(self, ids: list[list[int]], kept: int) -> torch.Tensor:
        """Run one batch, padded on the left so that the needed positions stand together."""
        longest = max(len(row) for row in ids)
        pad = [longest - len(row) for row in ids]
        inputs: dict[str, Any] = {
            "input_ids": self._tensor([[0] * n + row for n, row in zip(pad, ids, strict=True)]),
            "use_cache": False,
        }
        if any(pad):
            # from the lengths, never from the ids: a prompt may hold the pad token
            inputs["attention_mask"] = self._tensor([[0] * n + [1] * (longest - n) for n in pad])
        if self._takes_positions:
            inputs["position_ids"] = self._tensor([[0] * n + list(range(longest - n)) for n in pad])
        if self._takes_kept:
            inputs["logits_to_keep"] = kept
        logits: torch.Tensor = self.model(**inputs).logits
        return logits[:, -kept:].float()

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=self.model.device)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
