"""Answers of models of lm-evaluation-harness: which are valid, and which may be stored."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from forwardscope.errors import ModelError
from forwardscope.text import printable

__all__ = ["FailedText", "checked_answers", "fault_of", "storable"]

#: Where the harness says which text stands for one that an API did not return.
_API_MODELS: Final = "lm_eval.models.api_models"
_PLACEHOLDER: Final = "LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER"
#: Can be iterated, and are no answers to several requests.
_ONE_VALUE: Final = (str, bytes, Mapping)


class FailedText(str):
    """A text in place of one that an API did not return; no store knows its type."""

    __slots__ = ()


def checked_answers(op: str, answers: Any, expected: int, model: str) -> list[Any]:
    """Return the answers of one call of a model as they may be kept.

    Args:
        op: The kind of the requests.
        answers: What the model returned.
        expected: How many requests it had.
        model: Name of its class, for the error.

    Raises:
        ModelError: They are not as many, or one is not valid.
    """
    several = isinstance(answers, Iterable) and not isinstance(answers, _ONE_VALUE)
    found = list(answers) if several else None
    if found is None or len(found) != expected:
        given = type(answers).__name__ if found is None else f"{len(found)} answers"
        raise ModelError(f"{printable(model)} returned {given} for {expected} requests of {op}")
    for position, answer in enumerate(found, 1):
        if (fault := fault_of(op, answer)) is not None:
            raise ModelError(
                f"{printable(model)} answered request {position} of {expected} of {op} with "
                f"{fault}; it is not stored"
            )
    return [storable(op, answer) for answer in found]


def fault_of(op: str, answer: Any) -> str | None:
    """Return what is wrong with an answer; None for a valid one."""
    if op == "generate_until":
        return None if isinstance(answer, str) else f"{type(answer).__name__}, not a text"
    if op == "loglikelihood":
        with suppress(Exception):  # what tensors and other foreign values raise
            number, is_greedy = answer
            bool(is_greedy)
            return _fault_of_number(number)
        return f"{type(answer).__name__}, not a pair of log-probability and whether it is greedy"
    return _fault_of_number(answer)


def storable(op: str, answer: Any) -> Any:
    """Return a valid answer, marked if it must not be stored as it stands for none."""
    placeholder = getattr(sys.modules.get(_API_MODELS), _PLACEHOLDER, None)
    failed = op == "generate_until" and placeholder is not None and answer == placeholder
    return FailedText(answer) if failed else answer


def _fault_of_number(value: Any) -> str | None:
    """Return what is wrong with a log-probability; minus infinity is one."""
    if isinstance(value, str | bytes | bool):
        return f"{type(value).__name__}, not a log-probability"
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 - what tensors and other foreign values raise
        return f"{type(value).__name__}, not a log-probability"
    is_one = number < math.inf  # NaN is not
    return None if is_one else f"{number}, not a log-probability"
