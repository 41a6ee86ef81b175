"""Check on a model whether padding and shared prefixes give the values of single prompts.

Whether they do depends on more than a model's class: on positions, attention
windows, the kind of cache, the adapter. So two short prompts are computed both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.calls import ModelCalls, Row
from forwardscope.backends.hf.compat import States
from forwardscope.backends.hf.optimisations import (
    PADDED_BATCHES,
    PREFIX_SHARING,
    TOLERANCE,
    Optimisations,
)
from forwardscope.backends.hf.prefix_cache import cut
from forwardscope.text import printable

__all__ = ["MAX_WINDOW", "check_optimisations"]

#: Maximum difference where it is larger, in rounding errors of the largest logit. With a
#: model of 30 layers they are 10 in float32; half precision adds up in float32.
ROUNDINGS: Final = 64
ROUNDINGS_HALF: Final = 4
#: Tokens that both prompts share, and of each prompt after them.
PREFIX: Final = 24
RESTS: Final = (7, 3)
#: Largest attention window that the prompts exceed, in tokens.
MAX_WINDOW: Final = 512
_MAX_MESSAGE: Final = 120


def check_optimisations(
    calls: ModelCalls, sample: Sequence[int], optimisations: Optimisations
) -> None:
    """Turn off each optimisation that does not give the values of single prompts.

    Call it in each state of the weights that differs in more than numbers: with
    the adapter and without. It runs four forward calls of about 30 tokens, more
    where the model has an attention window of up to `MAX_WINDOW` tokens.

    Args:
        calls: The model.
        sample: Token ids of some text; not empty.
        optimisations: States to update.
    """
    prefix = _prefix_length(calls.model)
    if prefix < 1:
        optimisations.turn_off("this model's context is too short for the check")
        return
    if reason := _known_reason(calls):
        optimisations.turn_off(reason, PREFIX_SHARING)
    check = _Check(calls, _rows(sample, prefix, compat.invocation_tokens(calls.model)), prefix)
    try:
        check.compute_alone(optimisations)
    except Exception as error:  # noqa: BLE001 - a model may raise anything; so do its lookups
        optimisations.turn_off(_failure(error))
        return
    if optimisations.is_on(PADDED_BATCHES):
        check.compare(optimisations, PADDED_BATCHES, check.padded)
    if optimisations.is_on(PREFIX_SHARING):
        together = optimisations.is_on(PADDED_BATCHES)
        check.compare(optimisations, PREFIX_SHARING, partial(check.shared, together))


class _Check:
    """Two prompts with a shared prefix, computed in several ways."""

    def __init__(self, calls: ModelCalls, rows: Sequence[Row], prefix: int) -> None:
        self._calls = calls
        self._rows = rows
        self._prefix = prefix
        self._expected: list[torch.Tensor] = []
        self._states: States | None = None

    def compute_alone(self, optimisations: Optimisations) -> None:
        """Compute each prompt alone, and keep the first one's keys and values of the prefix."""
        first, second = self._rows
        logits = self._lead(first, optimisations) if optimisations.is_on(PREFIX_SHARING) else None
        self._expected = [
            self._calls.logits([first])[0][0] if logits is None else logits,
            self._calls.logits([second])[0][0],
        ]

    def _lead(self, row: Row, optimisations: Optimisations) -> torch.Tensor | None:
        """Compute a prompt with its cache; turn prefix sharing off if that is not possible."""
        try:
            [logits], cache = self._calls.logits([row], keep_cache=True)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it is the reason
            optimisations.turn_off(_failure(error), PREFIX_SHARING)
            return None
        if reason := compat.unsupported_cache(cache, len(row.ids)):
            optimisations.turn_off(reason, PREFIX_SHARING)
        else:
            self._states = cut(compat.plain_states(cache), self._prefix)
        return logits

    def padded(self) -> list[torch.Tensor]:
        """Compute both prompts in one batch."""
        return self._calls.logits(self._rows)[0]

    def shared(self, together: bool) -> list[torch.Tensor]:
        """Compute both prompts after the shared prefix, in one batch or one by one."""
        batches = [self._rows] if together else [[row] for row in self._rows]
        computed = [
            self._calls.logits(batch, prefix=self._prefix, states=self._states)[0]
            for batch in batches
        ]
        return [logits for batch in computed for logits in batch]

    def compare(
        self, optimisations: Optimisations, name: str, compute: Callable[[], list[torch.Tensor]]
    ) -> None:
        """Turn an optimisation off if its values differ or it raises an exception."""
        try:
            computed = compute()
        except Exception as error:  # noqa: BLE001 - a model may raise anything; it is the reason
            optimisations.turn_off(_failure(error), name)
            return
        difference = max(map(_difference, computed, self._expected))
        tolerance = _tolerance(self._expected, self._calls.model.dtype)
        optimisations.tolerance = max(optimisations.tolerance, tolerance)
        if difference > tolerance:
            reason = f"log-probabilities differ by {difference:.2g} from those of single prompts"
            optimisations.turn_off(reason, name)


def _known_reason(calls: ModelCalls) -> str | None:
    """Return why prefixes cannot be shared, where it is known without a forward call."""
    if calls.accepted.cache is None:
        names = " or ".join(compat.CACHE_NAMES)
        return f"this model's forward method has no argument {names}"
    if compat.invocation_tokens(calls.model):
        return "the adapter is an activated LoRA, which searches the whole prompt"
    config = compat.text_config(calls.model)
    window = max(compat.windows(config), default=0)
    if window > MAX_WINDOW and not compat.layers_are_typed(config):
        return f"this model has an attention window of {window} tokens, longer than the check"
    return None


def _prefix_length(model: Any) -> int:
    windows = compat.windows(compat.text_config(model))
    wanted = [window + 8 for window in windows if window <= MAX_WINDOW]
    limits = [compat.context_length(model), compat.rotary_limit(model)]
    return min([max([PREFIX, *wanted]), *(n - max(RESTS) for n in limits if n is not None)])


def _rows(sample: Sequence[int], prefix: int, invocation: list[int]) -> list[Row]:
    """Return two prompts whose common prefix ends with the adapter's invocation tokens."""
    first, second = RESTS
    repeats = 1 + (prefix + first + second) // len(sample)
    ids = list(sample) * repeats
    start = [*ids[: max(prefix - len(invocation), 0)], *invocation][-prefix:]
    rests = ids[prefix : prefix + first], ids[prefix + first : prefix + first + second]
    return [Row([*start, *rest], 1) for rest in rests]


def _difference(computed: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference of log-probabilities; equal infinities and NaN are equal."""
    one, other = computed.log_softmax(-1), expected.log_softmax(-1)
    equal = (one == other) | (one.isnan() & other.isnan())
    difference = (one - other).abs().masked_fill(equal, 0.0)
    return float(difference.nan_to_num(torch.inf, torch.inf).max())


def _tolerance(logits: Sequence[torch.Tensor], dtype: torch.dtype) -> float:
    largest = max(float(one.abs().nan_to_num(0.0, 0.0).max()) for one in logits)
    roundings = ROUNDINGS if dtype in (torch.float32, torch.float64) else ROUNDINGS_HALF
    return max(TOLERANCE, roundings * torch.finfo(dtype).eps * largest)


def _failure(error: Exception) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return f"the check raised {type(error).__name__}: {printable(first_line)[:_MAX_MESSAGE]}"
