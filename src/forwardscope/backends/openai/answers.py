"""What a server answers, read strictly: numbers and token ids, or one clear error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.errors import ServerError

__all__ = [
    "Choice",
    "Model",
    "Models",
    "NotFinite",
    "Text",
    "Tokens",
    "Version",
    "choices_of",
    "logprobs_of_prompt",
    "parsed",
    "rolling_logprob",
    "token_dist",
]

T = TypeVar("T")
_Floats = npt.NDArray[np.float64]
_Token = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
#: A name that is a part of identities.
_Name = Annotated[str, msgspec.Meta(max_length=4096)]

#: vLLM writes it in place of -inf.
_MINUS_INFINITY: Final = -9999.0
#: A token's id, in its one form: others could name a token twice.
_TOKEN: Final = re.compile(r"token_id:(0|[1-9][0-9]{0,8})")
#: How far probabilities may be off, such as where a server rounds them.
_ROUNDING: Final = 0.02


_NO_LOGPROBS: Final = (
    "the server gave numbers that are no log-probabilities of a distribution; start vLLM with "
    "--logprobs-mode raw_logprobs"
)


class NotFinite(ArithmeticError):  # noqa: N818 - it becomes a NonFiniteError, with view and prompt
    """A log-probability is missing, NaN or infinite."""


class Model(msgspec.Struct):
    """An entry of `models`.

    Attributes:
        id: Name of the model.
        root: Path or hub id that it was loaded from.
        parent: Name of an adapter's base.
        max_model_len: Most tokens of a prompt and its answer.
    """

    id: _Name
    root: _Name | None = None
    parent: _Name | None = None
    max_model_len: int | None = None


class Models(msgspec.Struct):
    """The answer of `models`."""

    data: list[Model]


class Version(msgspec.Struct):
    """The answer of `version`."""

    version: _Name


class Tokens(msgspec.Struct):
    """The answer of `tokenize`."""

    tokens: list[_Token]


class Text(msgspec.Struct):
    """The answer of `detokenize`."""

    prompt: str


class _Predicted(msgspec.Struct):
    """Log-probabilities of the tokens after a prompt, by `token_id:` and the id."""

    top_logprobs: list[dict[str, float | None] | None]


class _Read(msgspec.Struct):
    """Log-probability of a token of the prompt."""

    logprob: float | None


class Choice(msgspec.Struct):
    """What a server computed for one prompt.

    Attributes:
        index: Position of the prompt in the request.
        logprobs: Of the token after it.
        prompt_logprobs: For each of its tokens, by id; None for the first.
        prompt_token_ids: Its tokens, where the request has that option.
    """

    index: int
    logprobs: _Predicted | None = None
    prompt_logprobs: list[dict[str, _Read] | None] | None = None
    prompt_token_ids: list[_Token] | None = None


class _Completion(msgspec.Struct):
    choices: list[Choice]


def parsed(body: bytes, kind: type[T], operation: str) -> T:
    """Return an answer as its type.

    Raises:
        ServerError: It is something else. The message quotes nothing of it.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, msgspec.ValidationError) else "no valid JSON"
        raise ServerError(f"the answer to {operation} is not as expected: {reason[:200]}") from None


def choices_of(body: bytes, prompts: Sequence[Sequence[int] | str]) -> list[Choice]:
    """Return what a server computed for each prompt, in order, with its token ids.

    Args:
        body: The answer.
        prompts: What was sent: token ids, or texts, where the answer has their ids.

    Raises:
        ServerError: The answer is for other prompts.
    """
    choices = parsed(body, _Completion, "completions").choices
    choices.sort(key=lambda choice: choice.index)
    if [choice.index for choice in choices] != list(range(len(prompts))):
        raise ServerError(
            f"the answer to completions has {len(choices)} choices, and {len(prompts)} prompts "
            "were sent"
        )
    for choice, prompt in zip(choices, prompts, strict=True):
        if not isinstance(prompt, str):
            choice.prompt_token_ids = list(prompt)
    return choices


def token_dist(choice: Choice, top_k: int, vocab_size: int) -> TokenDist:
    """Return the distribution after a prompt.

    The tail is what the known probabilities leave of 1, between 0 and what the other tokens
    can have: each of them is at most as probable as the last known one.

    Args:
        choice: The answer for the prompt.
        top_k: Number of tokens; a server may give one more, the one that it drew.
        vocab_size: Number of tokens in the whole distribution.

    Raises:
        ServerError: It has fewer tokens, no ids, or numbers that are no log-probabilities.
        NotFinite: A log-probability is not finite.
    """
    given = choice.logprobs.top_logprobs if choice.logprobs else []
    if len(given) != 1 or given[0] is None or len(given[0]) < top_k:
        found = len(given[0]) if given and given[0] else 0
        raise ServerError(f"the server gave {found} log-probabilities, and {top_k} were requested")
    ids, values = _ids(given[0]), _finite(list(given[0].values()))
    order = np.argsort(-values, kind="stable")[:top_k]
    if (largest := int(ids.max())) >= vocab_size:
        raise ServerError(f"the server gave token {largest} of a vocabulary of {vocab_size}")
    chosen = values[order]
    rest = 1.0 - float(np.exp(chosen).sum())
    most = (vocab_size - top_k) * math.exp(float(chosen[-1]))
    if not -_ROUNDING <= rest <= most + _ROUNDING:
        raise ServerError(_NO_LOGPROBS)
    tail = min(max(rest, 0.0), most)
    return TokenDist(
        token_ids=ids[order],
        logprobs=chosen.astype(np.float32),
        vocab_size=vocab_size,
        tail_logprob=None if top_k == vocab_size else _log(tail),
    )


def logprobs_of_prompt(choice: Choice) -> _Floats:
    """Return the log-probability of each token of a prompt but the first, float64, shape (n-1,).

    Raises:
        ServerError: The answer has no tokens of the prompt, is for others, or has numbers that
            are no log-probabilities.
        NotFinite: A log-probability is not finite.
    """
    given, ids = choice.prompt_logprobs or [], choice.prompt_token_ids or []
    if not ids or len(given) != len(ids):
        raise ServerError(
            f"the server gave prompt_logprobs of {len(given)} tokens for a prompt of {len(ids)}"
        )
    found = []
    for known, token in zip(given[1:], ids[1:], strict=True):
        read = (known or {}).get(str(token))
        if read is None:
            raise ServerError("the server gave prompt_logprobs without a token of the prompt")
        found.append(read.logprob)
    return _finite(found)


def rolling_logprob(choice: Choice) -> RollingLogprob:
    """Return the log-probability of each token of a text; see `logprobs_of_prompt`."""
    logprobs, ids = logprobs_of_prompt(choice), choice.prompt_token_ids or []
    return RollingLogprob(
        token_ids=np.asarray(ids, dtype=np.int64),
        logprobs=logprobs.astype(np.float32),
        num_tokens=len(ids),
        total_logprob=float(logprobs.sum()),
    )


def _ids(top: Mapping[str, float | None]) -> npt.NDArray[np.int64]:
    named = [_TOKEN.fullmatch(key) for key in top]
    found = [int(one[1]) for one in named if one]
    if len(found) < len(named):
        raise ServerError(
            "the server gave tokens as text, which may be equal for different tokens; it must know "
            "return_tokens_as_token_ids, as vLLM does"
        )
    return np.array(found, dtype=np.int64)


def _finite(values: Sequence[float | None]) -> _Floats:
    found = np.array([math.nan if one is None else one for one in values], dtype=np.float64)
    if not (np.isfinite(found) & (found > _MINUS_INFINITY)).all():
        raise NotFinite
    if (found > _ROUNDING).any():
        raise ServerError(_NO_LOGPROBS)
    return found


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
