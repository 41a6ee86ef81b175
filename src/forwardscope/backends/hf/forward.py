"""Tokenize prompts, run them through the model and return the logits that are needed."""

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

from forwardscope.backends.hf.packing import ACCELERATOR_TOKENS, CPU_TOKENS, pack
from forwardscope.backends.hf.prefix_cache import (
    MAX_PREFIX_BYTES,
    PrefixCache,
    States,
    bytes_of,
    supports_prefixes,
)
from forwardscope.backends.hf.prefixes import ACCELERATOR_STEP, CPU_STEP, Ids, Part, plan
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import PromptError

__all__ = ["Exactness", "Forward", "Row"]

#: `fast` computes padded batches and reuses shared prefixes;
#: `strict` computes each prompt alone and reuses nothing.
Exactness = Literal["fast", "strict"]


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of a forward batch.

    Attributes:
        ids: Token ids of the prompt.
        positions: Number of last positions whose logits are needed; at least 1.
    """

    ids: list[int]
    positions: int


class Forward:
    """Runs prompts through a model and its tokenizer.

    One forward call runs at a time (`lock`), because a view must not change
    the weights during another thread's forward call.

    Args:
        model: A causal language model, wrapped by PEFT or not, in eval mode.
        tokenizer: The model's tokenizer.
        exactness: `fast` or `strict`.
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
        self._accepts_logits_to_keep = "logits_to_keep" in accepted
        # without both arguments a model would treat padding as tokens
        self._accepts_padding = {"attention_mask", "position_ids"} <= accepted.keys()
        self._accepts_positions = "position_ids" in accepted
        self._reuses_prefixes = (
            exactness == "fast"
            and self._accepts_padding
            and "past_key_values" in accepted
            and supports_prefixes(config)
        )

    def tokenize(
        self, prompts: Sequence[str], keys: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Return each prompt's token ids, with the tokenizer's default settings.

        Args:
            prompts: Prompts to tokenize.
            keys: Prompts of the cache keys, whose hashes an error and the trace
                record have in common; by default `prompts`.

        Raises:
            PromptError: A prompt has no tokens, more tokens than the model's
                context, or an unpaired surrogate.
        """
        keys = prompts if keys is None else keys
        for prompt, key in zip(prompts, keys, strict=True):
            if not _is_unicode(prompt):
                raise PromptError(
                    f"prompt {prompt_hash(key)} contains an unpaired surrogate, which is not valid "
                    "Unicode; fix its encoding"
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
        self, rows: Sequence[Row], prefixes: PrefixCache
    ) -> Iterator[tuple[list[int], torch.Tensor, int]]:
        """Run rows in as few batches as their lengths and the exactness allow.

        Args:
            rows: Rows to run.
            prefixes: The view's cache of computed sequences; read and extended.

        Yields:
            The indices of a batch's rows; their logits, float32, shape
            (batch, positions, vocabulary), last position last; and the number of
            reused tokens per row. Only the last `row.positions` positions of a
            row are valid.
        """
        for part in self._parts(rows, prefixes):
            prefix = part.prefix
            states = prefixes.get(_ids(rows[part.indices[0]], prefix)) if prefix else None
            if states is None:  # nothing to reuse, or evicted after planning
                prefix = 0
            for batch in self._batches(rows, part.indices, prefix, states):
                chosen = [rows[i] for i in batch]
                target = prefixes if self._is_stored(chosen, part, prefixes) else None
                yield batch, self._logits(chosen, prefix, states, target), prefix

    @property
    def _on_cpu(self) -> bool:
        return bool(self.model.device.type == "cpu")

    @property
    def _step(self) -> int:
        return CPU_STEP if self._on_cpu else ACCELERATOR_STEP

    def _parts(self, rows: Sequence[Row], prefixes: PrefixCache) -> list[Part]:
        if not (self._reuses_prefixes and prefixes.enabled):
            return [Part(tuple(range(len(rows))), 0)]
        reusable = [_ids(row, len(row.ids) - row.positions) for row in rows]
        return plan(reusable, prefixes.sequences(), self._step)

    def _batches(
        self, rows: Sequence[Row], chosen: Sequence[int], prefix: int, states: States | None
    ) -> list[list[int]]:
        if self.exactness == "strict":
            return [[i] for i in chosen]
        if self._accepts_padding:
            return self._pack(rows, chosen, prefix, states)
        by_length = defaultdict(list)
        for i in chosen:
            by_length[len(rows[i].ids)].append(i)
        return [batch for same in by_length.values() for batch in self._pack(rows, same, 0, None)]

    def _pack(
        self, rows: Sequence[Row], chosen: Sequence[int], prefix: int, states: States | None
    ) -> list[list[int]]:
        lengths = [len(rows[i].ids) - prefix for i in chosen]
        positions = [rows[i].positions for i in chosen]
        max_tokens = CPU_TOKENS if self._on_cpu else ACCELERATOR_TOKENS
        packed = pack(lengths, positions, self.vocab_size, max_tokens)
        # each row of a batch has its own copy of the prefix, so bound the bytes of the copies
        limit = max(1, MAX_PREFIX_BYTES // bytes_of(states)) if states else len(chosen)
        return [
            [chosen[place] for place in batch[first : first + limit]]
            for batch in packed
            for first in range(0, len(batch), limit)
        ]

    @torch.inference_mode()
    def _logits(
        self, rows: Sequence[Row], prefix: int, states: States | None, target: PrefixCache | None
    ) -> torch.Tensor:
        """Run one batch, padded after the prefix so that all rows end at the same position.

        With a `target` the batch is a single row, whose keys and values are stored there.
        """
        needed = max(row.positions for row in rows)
        rests = [row.ids[prefix:] for row in rows]
        longest = max(map(len, rests))
        pad = [longest - len(rest) for rest in rests]
        inputs: dict[str, Any] = {
            "input_ids": self._tensor([[0] * n + rest for n, rest in zip(pad, rests, strict=True)]),
            "use_cache": states is not None or target is not None,
        }
        if any(pad):
            # from the lengths, because a prompt may contain the pad token
            masks = [[1] * prefix + [0] * n + [1] * (longest - n) for n in pad]
            inputs["attention_mask"] = self._tensor(masks)
        if self._accepts_positions:
            positions = [[0] * n + list(range(prefix, prefix + longest - n)) for n in pad]
            inputs["position_ids"] = self._tensor(positions)
        if self._accepts_logits_to_keep:
            inputs["logits_to_keep"] = needed
        if states is not None:
            inputs["past_key_values"] = _repeated(states, len(rows))
        output = self.model(**inputs)
        if target is not None:
            target.store(_ids(rows[0], len(rows[0].ids)), output.past_key_values)
        logits: torch.Tensor = output.logits
        return logits[:, -needed:].float()

    def _is_stored(self, rows: Sequence[Row], part: Part, prefixes: PrefixCache) -> bool:
        """Whether to store the keys and values of a batch: of a lead, or of one long prompt."""
        reusable = part.is_lead or (len(rows) == 1 and len(rows[0].ids) >= self._step)
        return self._reuses_prefixes and prefixes.enabled and reusable

    def _tensor(self, rows: list[list[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=self.model.device)


def _ids(row: Row, n: int) -> Ids:
    return np.array(row.ids[:n], dtype=np.int64)


def _repeated(states: States, n: int) -> DynamicCache:
    """Return a cache in which each of `n` rows has the keys and values of a prefix."""
    return DynamicCache(
        [(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1)) for keys, values in states]
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
