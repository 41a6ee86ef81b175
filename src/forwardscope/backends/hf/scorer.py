"""Compute the three ops for one view."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from forwardscope.backends.completions import added_tokens
from forwardscope.backends.hf import weight_changes
from forwardscope.backends.hf.applied_change import Change
from forwardscope.backends.hf.forward import Forward, Row
from forwardscope.backends.hf.prefix_cache import PrefixCache
from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.core.keys import fold_strings, prompt_hash
from forwardscope.errors import NonFiniteError, PromptError, ViewError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["HFScorer"]

T = TypeVar("T")


class HFScorer:
    """Computes the ops for one view; implements `forwardscope.backends.views.Scorer`.

    The weights are changed at the first forward pass, so a view whose lookups
    are all hits does not change them. Thread-safe; forward calls run one at a
    time.

    Args:
        view_id: Id of the view.
        forward: The model and its tokenizer.
        change: Changes the weights for the view.
        instrumentation: Receives the token counts of each forward call.
        vocab_size: Number of tokens in a whole distribution; the model's further
            logits are left out. By default it has all of them.
    """

    def __init__(
        self,
        view_id: str,
        forward: Forward,
        change: Change,
        instrumentation: BackendInstrumentation,
        vocab_size: int | None = None,
    ) -> None:
        self._view_id = view_id
        self._forward = forward
        self._change = change
        self._inst = instrumentation
        self._vocab_size = forward.vocab_size if vocab_size is None else vocab_size
        self._prefixes = PrefixCache()
        self._finite = True
        self._closed = False

    @property
    def vocab_size(self) -> int:
        """Number of tokens in a whole distribution."""
        return self._vocab_size

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        """Compute the distribution after each prompt from its last position's logits."""
        rows = [Row(ids, 1) for ids in self._forward.tokenize(prompts)]
        return self._score(rows, prompts, lambda _, logits: _token_dist(logits[0], top_k))

    def rolling_logprobs(self, texts: Sequence[str]) -> list[RollingLogprob]:
        """Compute each token's log-probability from the logits one position before it."""
        ids = self._forward.tokenize(texts)
        rows = [Row(row, len(row)) for row in ids]
        return self._score(rows, texts, lambda i, logits: _rolling_logprob(logits, ids[i]))

    def logprobs_of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Compute each completion's summed log-probability given the shared token prefix."""
        keys = [fold_strings(prompt, completion) for prompt, completion in pairs]
        given = self._forward.tokenize([prompt for prompt, _ in pairs], keys)
        full = self._forward.tokenize([prompt + completion for prompt, completion in pairs], keys)
        added = [added_tokens(*pair) for pair in zip(given, full, keys, strict=True)]
        rows = [Row(ids, n + 1) for ids, n in zip(full, added, strict=True)]
        return self._score(
            rows,
            keys,
            lambda i, logits: float(_logprobs_of_next(logits, full[i]).cpu().double().sum()),
        )

    def generate(self, prompt: str, settings: Mapping[str, Any], seed: int) -> str:
        """Continue a prompt; return the text that follows it, without special tokens.

        Args:
            prompt: The prompt.
            settings: Arguments of transformers' `generate`.
            seed: Seed of torch's random numbers; it matters where tokens are drawn.
        """
        [ids] = self._forward.tokenize([prompt])
        self._inst.report_tokens([len(ids)])
        with self._forward.lock:
            self._change_weights()
            model, tokenizer = self._forward.model, self._forward.tokenizer
            torch.manual_seed(seed)
            given = torch.tensor([ids], device=model.device)
            padding = tokenizer.pad_token_id
            if padding is None:
                padding = tokenizer.eos_token_id
            with torch.inference_mode():
                [out] = model.generate(
                    input_ids=given,
                    attention_mask=torch.ones_like(given),
                    pad_token_id=padding,
                    **settings,
                )
        return str(tokenizer.decode(out[len(ids) :], skip_special_tokens=True))

    def close(self) -> None:
        """Wait for a forward call in flight, undo the view's changes and reject later calls."""
        self._closed = True  # also where an interrupt ends the wait for the lock
        with self._forward.lock:
            self._prefixes.clear()
            if self._forward.applied.owner is self:
                self._forward.applied.undo()

    def _score(
        self, rows: Sequence[Row], keys: Sequence[str], reduce: Callable[[int, torch.Tensor], T]
    ) -> list[T]:
        """Run rows and reduce each row's logits, shape (positions, vocabulary), batch by batch."""
        for row, key in zip(rows, keys, strict=True):
            self._check_tokens(row, key)
        reused = [0] * len(rows)
        self._inst.report_tokens([len(row.ids) for row in rows], reused)
        results: dict[int, T] = {}
        with self._forward.lock:
            self._change_weights()
            if not self._finite:
                raise NonFiniteError(self._view_id, prompt_hash(keys[0]))
            try:
                for batch, logits, prefix in self._forward.run(rows, self._prefixes):
                    for place, index in enumerate(batch):
                        reused[index] = prefix
                        own = logits[place][:, : self._vocab_size]
                        if not bool(own.isfinite().all()):
                            raise NonFiniteError(self._view_id, prompt_hash(keys[index]))
                        results[index] = reduce(index, own)
                    self._inst.computed_in_flight = len(results)
            finally:
                self._inst.computed_in_flight = 0
        return [results[i] for i in range(len(rows))]

    def _check_tokens(self, row: Row, key: str) -> None:
        """Check that all tokens have embeddings, and those to be predicted have logits."""
        if (read := max(row.ids)) >= self._forward.vocab_size:
            raise PromptError(
                f"prompt {prompt_hash(key)} has token {read} of the tokenizer, for which the model "
                "has no embedding; leave it out of the prompt"
            )
        targets = row.ids[len(row.ids) - row.positions + 1 :]
        if (predicted := max(targets, default=0)) >= self._vocab_size:
            raise PromptError(
                f"prompt {prompt_hash(key)} has token {predicted}, which view {self._view_id!r} "
                f"does not predict: its vocabulary has {self._vocab_size} tokens; leave it out"
            )

    def _change_weights(self) -> None:
        if self._closed or self._forward.model is None:
            raise ViewError(f"view {self._view_id!r} is closed; open it again to score prompts")
        if self._forward.applied.owner is not self:
            self._finite = False  # until the check has ended
            self._forward.applied.apply(self, self._forward.model, self._change)
            self._finite = weight_changes.change_is_finite(self._forward.model)


def _token_dist(logits: torch.Tensor, top_k: int) -> TokenDist:
    logprobs = logits.log_softmax(-1)
    top = logprobs.topk(top_k)
    tail = None
    if top_k < logprobs.numel():
        outside = logprobs.index_fill(0, top.indices, -math.inf)
        tail = float(outside.cpu().double().logsumexp(-1))  # mps has no float64
    return TokenDist(
        token_ids=top.indices.cpu().numpy(),
        logprobs=top.values.cpu().numpy(),
        vocab_size=logprobs.numel(),
        tail_logprob=tail,
    )


def _rolling_logprob(logits: torch.Tensor, ids: list[int]) -> RollingLogprob:
    logprobs = _logprobs_of_next(logits, ids).cpu()
    return RollingLogprob(
        token_ids=np.asarray(ids, dtype=np.int64),
        logprobs=logprobs.numpy(),
        num_tokens=len(ids),
        total_logprob=float(logprobs.double().sum()),
    )


def _logprobs_of_next(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Return the log-probability of the token after each position except the last.

    Args:
        logits: Logits of the last n positions, shape (n, vocabulary).
        ids: All token ids of the prompt.

    Returns:
        Log-probabilities in nats, shape (n-1,).
    """
    predicting = logits[:-1]
    targets = torch.tensor(ids[len(ids) - predicting.shape[0] :], device=predicting.device)
    chosen = predicting.gather(-1, targets.long()[:, None])[:, 0]
    return chosen - predicting.logsumexp(-1)
