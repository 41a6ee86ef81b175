"""Tokenize prompts, run them through the model and return the logits that are needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.applied_change import AppliedChange
from forwardscope.backends.hf.calls import ModelCalls, Row
from forwardscope.backends.hf.check import check_optimisations
from forwardscope.backends.hf.compat import States
from forwardscope.backends.hf.optimisations import PADDED_BATCHES, PREFIX_SHARING, Optimisations
from forwardscope.backends.hf.packing import ACCELERATOR_TOKENS, CPU_TOKENS, pack
from forwardscope.backends.hf.prefix_cache import MAX_PREFIX_BYTES, PrefixCache, bytes_of
from forwardscope.backends.hf.prefixes import ACCELERATOR_STEP, CPU_STEP, Ids, Part, plan
from forwardscope.backends.hf.tokens import encode, filler_token
from forwardscope.core.keys import prompt_hash
from forwardscope.errors import PromptError
from forwardscope.text import plural

__all__ = ["Checks", "Exactness", "Forward", "Row"]

_FILLERS = 5
_SAMPLE = "The check computes this text in several ways. It may not matter which of them is used."

#: `fast` computes padded batches and reuses shared prefixes;
#: `strict` computes each prompt alone and reuses nothing.
Exactness = Literal["fast", "strict"]

#: Checks of one model with the same weights that turned nothing off, by what they computed: the
#: size of the output, the tokens that invoke the adapter, and the sample.
Checks = dict[tuple[int, tuple[int, ...], tuple[int, ...]], Optimisations]


class Forward:
    """Runs prompts through a model and its tokenizer.

    One forward call runs at a time (`lock`), because a view must not change
    the weights during another thread's forward call.

    Args:
        model: A causal language model, wrapped by PEFT or not, in eval mode.
        tokenizer: The model's tokenizer.
        exactness: `fast` or `strict`.
        lock: Lock that several models share; a new one by default.

    Attributes:
        lock: Held for a forward call and for a change of the weights.
        applied: The change that the open view has made.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        exactness: Exactness,
        lock: threading.RLock | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.exactness: Exactness = exactness
        self.lock = lock or threading.RLock()
        self.applied = AppliedChange(model)
        self._calls = ModelCalls(model)
        self._optimisations = Optimisations()
        self.context = compat.context_length(model)
        self.vocab_size = compat.output_rows(model)
        self._rotary_limit = compat.rotary_limit(model)
        if exactness == "strict":
            self._optimisations.turn_off("exactness is strict")
        elif self._rotary_limit is not None:
            limit = f"for prompts of up to {plural(self._rotary_limit, 'token')}"
            self._optimisations.limit(f"{limit}; the rotary embedding of others differs")

    @property
    def model(self) -> Any:
        """The model; None after it was released."""
        return self._calls.model

    @model.setter
    def model(self, model: Any) -> None:
        self._calls.model = model

    @property
    def optimisations(self) -> Mapping[str, str]:
        """`on`, `on (limit)` or `off (reason)` by the name of each optimisation."""
        return self._optimisations.to_dict()

    @property
    def tolerance(self) -> float:
        """Largest difference of a log-probability that batching makes, in nats; 0.0 in `strict`."""
        return self._optimisations.tolerance if self.exactness == "fast" else 0.0

    def check(self, checks: Checks | None = None) -> None:
        """Turn off optimisations that give wrong values with the present weights.

        It runs the model without a lookup; see `check_optimisations`.

        Args:
            checks: Earlier checks with these weights, which are not made again; extended. One
                that turned something off is made again, as the reason may be gone.
        """
        if self.exactness == "strict":
            return
        checks = {} if checks is None else checks
        with self.lock:
            invocation = tuple(compat.invocation_tokens(self.model))
            for sample in self._samples():
                key = self.vocab_size, invocation, sample
                found = checks.get(key)
                if found is None:
                    found = Optimisations()
                    check_optimisations(self._calls, sample, found)
                    if found.is_on(PADDED_BATCHES) and found.is_on(PREFIX_SHARING):
                        checks[key] = found
                self._optimisations.join(found)

    def _samples(self) -> list[tuple[int, ...]]:
        """Return what a check computes; with filler too: some models derive positions from it."""
        filler = _FILLERS * filler_token(self.tokenizer, self.vocab_size)
        encoded = encode(self.tokenizer, [_SAMPLE, filler + _SAMPLE])
        known = [tuple(token for token in ids if token < self.vocab_size) for ids in encoded]
        return [ids or (0,) for ids in known]

    def skip_check(self) -> None:
        """Use no optimisation, because none was checked."""
        self._optimisations.turn_off("not checked")

    def tokenize(
        self, prompts: Sequence[str], keys: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Return each prompt's token ids; see `encode`.

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
        encoded = encode(self.tokenizer, prompts)
        for ids, key in zip(encoded, keys, strict=True):
            if not ids:
                raise PromptError(f"prompt {prompt_hash(key)} has no tokens")
            if self.context is not None and len(ids) > self.context:
                raise PromptError(
                    f"prompt {prompt_hash(key)} has {plural(len(ids), 'token')}, more than the "
                    f"{self.context} of the model's context; shorten it"
                )
        return encoded

    def run(
        self, rows: Sequence[Row], prefixes: PrefixCache
    ) -> Iterator[tuple[list[int], list[torch.Tensor], int]]:
        """Run rows in as few batches as their lengths and the exactness allow.

        Args:
            rows: Rows to run.
            prefixes: The view's cache of computed sequences; read and extended.

        Yields:
            The indices of a batch's rows; for each of them the logits of its last
            `row.positions` positions, float32, shape (positions, vocabulary); and
            the number of reused tokens per row.
        """
        for part in self._parts(rows, prefixes):
            prefix = part.prefix
            states = prefixes.get(_ids(rows[part.indices[0]], prefix)) if prefix else None
            if states is None:  # nothing to reuse, or evicted after planning
                prefix = 0
            for batch in self._batches(rows, part.indices, prefix, states):
                chosen = [rows[i] for i in batch]
                stored = self._is_stored(chosen, part)
                logits, cache = self._calls.logits(
                    chosen, prefix=prefix, states=states, keep_cache=stored
                )
                if stored:
                    self._store(chosen[0], cache, prefixes)
                yield batch, logits, prefix

    @property
    def _on_cpu(self) -> bool:
        return self._calls.device.type == "cpu"

    @property
    def _step(self) -> int:
        return CPU_STEP if self._on_cpu else ACCELERATOR_STEP

    def _parts(self, rows: Sequence[Row], prefixes: PrefixCache) -> list[Part]:
        if not self._optimisations.is_on(PREFIX_SHARING):
            return [Part(tuple(range(len(rows))), 0)]
        reusable = [
            _ids(row, 0 if self._is_long(row) else len(row.ids) - row.positions) for row in rows
        ]
        return plan(reusable, prefixes.sequences(), self._step)

    def _batches(
        self, rows: Sequence[Row], chosen: Sequence[int], prefix: int, states: States | None
    ) -> list[list[int]]:
        if not self._optimisations.is_on(PADDED_BATCHES):
            return [[i] for i in chosen]
        alone = [i for i in chosen if self._is_long(rows[i])]
        together = [i for i in chosen if not self._is_long(rows[i])]
        return [*self._pack(rows, together, prefix, states), *([i] for i in alone)]

    def _is_long(self, row: Row) -> bool:
        """Whether a prompt's length changes its rotary embedding, and with it all values."""
        return self._rotary_limit is not None and len(row.ids) > self._rotary_limit

    def _pack(
        self, rows: Sequence[Row], chosen: Sequence[int], prefix: int, states: States | None
    ) -> list[list[int]]:
        lengths = [len(rows[i].ids) - prefix for i in chosen]
        keeps_some = self._calls.accepted.logits_to_keep
        positions = [rows[i].positions for i in chosen] if keeps_some else lengths
        max_tokens = CPU_TOKENS if self._on_cpu else ACCELERATOR_TOKENS
        packed = pack(lengths, positions, self.vocab_size, max_tokens)
        # each row of a batch has its own copy of the prefix, so bound the bytes of the copies
        limit = max(1, MAX_PREFIX_BYTES // bytes_of(states)) if states else len(chosen)
        return [
            [chosen[place] for place in batch[first : first + limit]]
            for batch in packed
            for first in range(0, len(batch), limit)
        ]

    def _is_stored(self, rows: Sequence[Row], part: Part) -> bool:
        """Whether to store the keys and values of a batch: of a lead, or of one long prompt."""
        reusable = part.is_lead or (len(rows) == 1 and len(rows[0].ids) >= self._step)
        sharing = self._optimisations.is_on(PREFIX_SHARING)
        return sharing and reusable and not self._is_long(rows[0])

    def _store(self, row: Row, cache: Any | None, prefixes: PrefixCache) -> None:
        """Store the model's cache for a row; state it where that is not possible."""
        reason = compat.unsupported_cache(cache, len(row.ids))
        if reason is not None:
            self._optimisations.turn_off(reason, PREFIX_SHARING)
        elif not prefixes.store(_ids(row, len(row.ids)), compat.plain_states(cache)):
            limit = f"for prompts whose keys and values fit into {prefixes.max_bytes >> 20} MiB"
            self._optimisations.limit(limit, PREFIX_SHARING)


def _ids(row: Row, n: int) -> Ids:
    return np.array(row.ids[:n], dtype=np.int64)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
