"""Running prompts through the model: tokens in, the logits that are needed out."""

from __future__ import annotations

import inspect
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from forwardscope.backends.hf.kept import (
    MAX_KEPT_BYTES,
    KeptPrefixes,
    States,
    bytes_of,
    can_share,
)
from forwardscope.backends.hf.packing import ACCELERATOR_TOKENS, CPU_TOKENS, pack
from forwardscope.backends.hf.prefixes import ACCELERATOR_STEP, CPU_STEP, Ids, Part, plan
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import PromptError

__all__ = ["Exactness", "Forward", "Row"]

#: `fast` computes prompts in padded batches, and what they begin with alike once;
#: `strict` computes each alone and whole.
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
        exactness: Whether prompts may share a batch and a prefix.
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
        self._shares = (
            exactness == "fast"
            and self._takes_padding
            and "past_key_values" in accepted
            and can_share(config)
        )

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

    def run(
        self, rows: Sequence[Row], kept: KeptPrefixes
    ) -> Iterator[tuple[list[int], torch.Tensor, int]]:
        """Run rows in as few batches as their lengths and the exactness allow.

        Args:
            rows: What to run.
            kept: Prefixes that the view has computed so far, taken over from and added to.

        Yields:
            The indices of a batch's rows; their logits: float32, shape
            (batch, max kept, vocabulary), the last position last; and how many
            tokens of each row were taken over. Of a row that needs fewer
            positions only its last `kept` mean anything.
        """
        for part in self._parts(rows, kept):
            prefix = part.prefix
            states = kept.states(_ids(rows[part.places[0]], prefix)) if prefix else None
            if states is None:  # nothing to take over, or dropped for room since
                prefix = 0
            for batch in self._batches(rows, part.places, prefix, states):
                chosen = [rows[i] for i in batch]
                keep_in = kept if self._is_kept(chosen, part, kept) else None
                yield batch, self._logits(chosen, prefix, states, keep_in), prefix

    @property
    def _on_cpu(self) -> bool:
        return bool(self.model.device.type == "cpu")

    @property
    def _step(self) -> int:
        return CPU_STEP if self._on_cpu else ACCELERATOR_STEP

    def _parts(self, rows: Sequence[Row], kept: KeptPrefixes) -> list[Part]:
        if not (self._shares and kept.works):
            return [Part(tuple(range(len(rows))), 0)]
        given = [_ids(row, len(row.ids) - row.kept) for row in rows]
        return plan(given, kept.known(), self._step)

    def _batches(
        self, rows: Sequence[Row], chosen: Sequence[int], prefix: int, states: States | None
    ) -> list[list[int]]:
        if self.exactness == "strict":
            return [[i] for i in chosen]
        if self._takes_padding:
            return self._pack(rows, chosen, prefix, states)
        alike = defaultdict(list)
        for i in chosen:
            alike[len(rows[i].ids)].append(i)
        return [batch for same in alike.values() for batch in self._pack(rows, same, 0, None)]

    def _pack(
        self, rows: Sequence[Row], chosen: Sequence[int], prefix: int, states: States | None
    ) -> list[list[int]]:
        lengths = [len(rows[i].ids) - prefix for i in chosen]
        kept = [rows[i].kept for i in chosen]
        max_tokens = CPU_TOKENS if self._on_cpu else ACCELERATOR_TOKENS
        packed = pack(lengths, kept, self.vocab_size, max_tokens)
        # each row of a batch has a copy of the prefix
        most = max(1, MAX_KEPT_BYTES // bytes_of(states)) if states else len(chosen)
        return [
            [chosen[place] for place in batch[first : first + most]]
            for batch in packed
            for first in range(0, len(batch), most)
        ]

    @torch.inference_mode()
    def _logits(
        self, rows: Sequence[Row], prefix: int, states: States | None, keep_in: KeptPrefixes | None
    ) -> torch.Tensor:
        """Run one batch, padded on the left of what is computed, so that all rows end together."""
        needed = max(row.kept for row in rows)
        rests = [row.ids[prefix:] for row in rows]
        longest = max(map(len, rests))
        pad = [longest - len(rest) for rest in rests]
        inputs: dict[str, Any] = {
            "input_ids": self._tensor([[0] * n + rest for n, rest in zip(pad, rests, strict=True)]),
            "use_cache": states is not None or keep_in is not None,
        }
        if any(pad):
            # from the lengths, never from the ids: a prompt may hold the pad token
            masks = [[1] * prefix + [0] * n + [1] * (longest - n) for n in pad]
            inputs["attention_mask"] = self._tensor(masks)
        if self._takes_positions:
            positions = [[0] * n + list(range(prefix, prefix + longest - n)) for n in pad]
            inputs["position_ids"] = self._tensor(positions)
        if self._takes_kept:
            inputs["logits_to_keep"] = needed
        if states is not None:
            inputs["past_key_values"] = _copied(states, len(rows))
        output = self.model(**inputs)
        if keep_in is not None:
            keep_in.keep(_ids(rows[0], len(rows[0].ids)), output.past_key_values)
        logits: torch.Tensor = output.logits
        return logits[:, -needed:].float()

    def _is_kept(self, rows: Sequence[Row], part: Part, kept: KeptPrefixes) -> bool:
        """Whether a batch is one prompt that others wait for, or that later ones may want."""
        wanted = part.leads or (len(rows) == 1 and len(rows[0].ids) >= self._step)
        return self._shares and kept.works and wanted

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=self.model.device)


def _ids(row: Row, n: int) -> Ids:
    return np.array(row.ids[:n], dtype=np.int64)


def _copied(states: States, n: int) -> DynamicCache:
    """Return a cache in which each of `n` rows has a prefix's keys and values."""
    return DynamicCache(
        [(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1)) for keys, values in states]
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
