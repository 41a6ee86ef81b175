"""Answers of a server become values, or one clear error."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from forwardscope.backends.openai.answers import (
    Choice,
    Models,
    NotFinite,
    choices_of,
    logprobs_of_prompt,
    parsed,
    rolling_logprob,
    token_dist,
)
from forwardscope.errors import ServerError

_IDS = [5, 7, 9]


def _choice(**fields: Any) -> Choice:
    """Return the only choice of an answer for the prompt of `_IDS`."""
    body = json.dumps({"choices": [{"index": 0, **fields}]}).encode()
    return choices_of(body, [_IDS])[0]


def _predicted(**logprobs: float | None) -> Choice:
    top = {name.replace("t", "token_id:"): value for name, value in logprobs.items()}
    return _choice(logprobs={"top_logprobs": [top]})


def _read(*logprobs: dict[str, Any] | None) -> Choice:
    return _choice(prompt_logprobs=list(logprobs))


def test_distribution() -> None:
    """Tokens are sorted by probability; the tail has the rest."""
    dist = token_dist(_predicted(t3=-2.0, t8=-0.5, t1=-1.5), 3, 10)
    assert dist.token_ids.tolist() == [8, 1, 3]
    assert dist.logprobs.tolist() == [-0.5, -1.5, -2.0]
    rest = 1 - math.exp(-0.5) - math.exp(-1.5) - math.exp(-2)
    assert dist.tail_logprob == pytest.approx(math.log(rest))


def test_drawn_token_is_left_out() -> None:
    """A server adds the token that it drew, if that is none of the most probable ones."""
    assert token_dist(_predicted(t3=-9.0, t8=-0.5, t1=-1.5), 2, 10).token_ids.tolist() == [8, 1]


def test_whole_distribution() -> None:
    """It has no tail."""
    half = math.log(0.5)
    assert token_dist(_predicted(t0=half, t1=half), 2, 2).tail_logprob is None


@pytest.mark.parametrize(
    ("logprobs", "tail"),
    [
        ({"t0": 0.0, "t1": -40.0}, 0.0),  # the sum is above 1 by rounding
        ({"t0": math.log(0.5), "t1": math.log(0.124)}, 0.372),  # three tokens of at most 0.124
    ],
)
def test_tail_is_possible(logprobs: dict[str, float], tail: float) -> None:
    """No token of the tail is more probable than the last known one."""
    found = token_dist(_predicted(**logprobs), 2, 5).tail_logprob
    assert found is not None
    assert math.exp(found) == pytest.approx(tail, abs=1e-12)


@pytest.mark.parametrize("wrong", [None, -9999.0])
def test_values_that_are_not_finite(wrong: float | None) -> None:
    """A missing value, and what vLLM writes for -inf, are no log-probabilities."""
    with pytest.raises(NotFinite):
        token_dist(_predicted(t0=-0.5, t1=wrong), 2, 5)
    with pytest.raises(NotFinite):
        rolling_logprob(_read(None, {"7": {"logprob": wrong}}, {"9": {"logprob": -1.0}}))


def test_tokens_as_text() -> None:
    """Equal texts can be different tokens, so they are refused."""
    choice = _choice(logprobs={"top_logprobs": [{" Paris": -0.5}]})
    with pytest.raises(ServerError, match="return_tokens_as_token_ids"):
        token_dist(choice, 1, 5)


@pytest.mark.parametrize("token", ["token_id:01", "token_id:\u0661", "token_id:-1", "token_id:"])
def test_tokens_in_another_form(token: str) -> None:
    """An id has one form, so no token is there twice."""
    choice = _choice(logprobs={"top_logprobs": [{"token_id:1": -0.7, token: -0.7}]})
    with pytest.raises(ServerError, match="return_tokens_as_token_ids"):
        token_dist(choice, 2, 5)


@pytest.mark.parametrize("logits", [(900.0, 8.0), (-0.1, -0.2), (-30.0, -31.0)])
def test_logits_are_no_log_probabilities(logits: tuple[float, float]) -> None:
    """Numbers that no distribution has are refused, with the option of vLLM that gives them."""
    with pytest.raises(ServerError, match="--logprobs-mode raw_logprobs"):
        token_dist(_predicted(t0=logits[0], t1=logits[1]), 2, 50_000)


def test_logits_of_a_prompt_are_no_log_probabilities() -> None:
    """A probability above 1 is refused."""
    with pytest.raises(ServerError, match="--logprobs-mode raw_logprobs"):
        rolling_logprob(_read(None, {"7": {"logprob": 3.0}}, {"9": {"logprob": -1.0}}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": None},
        {"logprobs": {"top_logprobs": []}},
        {"logprobs": {"top_logprobs": [None]}},
        {"logprobs": {"top_logprobs": [{"token_id:1": -0.5}]}},
        {"logprobs": {"top_logprobs": [{"token_id:1": -0.5, "token_id:2": -1.0}] * 2}},
    ],
)
def test_too_few_log_probabilities(fields: dict[str, Any]) -> None:
    """The error has both numbers."""
    with pytest.raises(ServerError, match="and 2 were requested"):
        token_dist(_choice(**fields), 2, 5)


def test_token_outside_the_vocabulary() -> None:
    """It is the answer of another model."""
    with pytest.raises(ServerError, match="token 5 of a vocabulary of 5"):
        token_dist(_predicted(t5=-0.5), 1, 5)


def test_rolling() -> None:
    """Each token has its own log-probability, also where others are given beside it."""
    second, third = {"7": {"logprob": -1.5}, "8": {"logprob": -0.1}}, {"9": {"logprob": -0.25}}
    rolled = rolling_logprob(_read(None, second, third))
    assert rolled.token_ids.tolist() == _IDS
    assert np.array_equal(rolled.logprobs, [-1.5, -0.25])
    assert rolled.total_logprob == -1.75


@pytest.mark.parametrize(
    "given",
    [
        [],
        [None, {"7": {"logprob": -1.0}}],
        [None, {"7": {"logprob": -1.0}}, None],
        [None, {"7": {"logprob": -1.0}}, {"8": {"logprob": -1.0}}],
    ],
)
def test_log_probabilities_of_another_prompt(given: list[Any]) -> None:
    """Another number of tokens, or another token, is no answer."""
    with pytest.raises(ServerError, match="prompt_logprobs"):
        logprobs_of_prompt(_read(*given))


def test_choices_are_in_the_order_of_prompts() -> None:
    """A server may answer in another order."""
    body = b'{"choices":[{"index":1},{"index":0}]}'
    assert [one.prompt_token_ids for one in choices_of(body, [[1], [2]])] == [[1], [2]]


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[]}',
        b'{"choices":[{"index":0}]}',
        b'{"choices":[{"index":0},{"index":0}]}',
        b'{"choices":[{"index":0},{"index":2}]}',
        b'{"choices":[{"index":0},{"index":1},{"index":2}]}',
    ],
)
def test_answers_for_other_prompts(body: bytes) -> None:
    """The number of choices and their indices must be those of the prompts."""
    with pytest.raises(ServerError, match="2 prompts were sent"):
        choices_of(body, [[1], [2]])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'{"data": {}}',
        b'{"data": [{"id": 3}]}',
        b'{"data": [{"id": "a", "max_model_len": NaN}]}',
        b"[" * 100_000,
        b'{"data": [{"id": "\xff"}]}',
    ],
)
def test_hostile_answers(body: bytes) -> None:
    """What is no answer is one short error."""
    with pytest.raises(ServerError, match="the answer to models is not as expected") as refused:
        parsed(body, Models, "models")
    assert len(str(refused.value)) < 300
