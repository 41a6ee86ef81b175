"""Models of lm-evaluation-harness whose answers are not valid, or stand for none."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from forwardscope.errors import ModelError
from forwardscope.integrations.lm_eval import wrap

from .harness import CountingLM, request

_GREEDY = {"do_sample": False}
_DRAWN = {"do_sample": True}


class _AnswersLM(CountingLM):
    """A model that gives the answers of a function, and may report each as it is computed."""

    def __init__(self, answers: Callable[[int], Any], *, reports: bool = False) -> None:
        super().__init__()
        self.given = answers
        self.reports = reports

    def _answers(self, op: str, requests: list[Any], answer: Any) -> Any:
        del answer
        self.calls.append(len(requests))
        answers = self.given(len(requests))
        if self.reports:
            for one, found in zip(requests, answers, strict=False):
                self.cache_hook.add_partial(op, one.args, found)
        return answers


def _requests(op: str, settings: Any = None) -> list[Any]:
    more = {"loglikelihood": ("x",), "loglikelihood_rolling": ()}.get(op, (settings or _GREEDY,))
    return [request(op, text, *more) for text in "abc"]


@pytest.mark.parametrize(
    ("op", "answers", "said"),
    [
        ("loglikelihood", lambda _: None, "returned NoneType for 3 requests"),
        ("generate_until", lambda _: "abc", "returned str for 3 requests"),
        ("loglikelihood", lambda _: [(-1.0, True)], "returned 1 answers for 3 requests"),
        ("loglikelihood", lambda n: [(-1.0, True)] * (n + 1), "returned 4 answers for 3"),
        ("loglikelihood", lambda n: [(-1.0, True)] * (n - 1) + [None], "request 3 of 3 .* None"),
        ("loglikelihood", lambda n: [-1.0] * n, "request 1 .* float, not a pair"),
        ("loglikelihood", lambda n: ["ab"] * n, "str, not a log-probability"),
        ("loglikelihood", lambda n: [(math.nan, False)] * n, "nan, not a log-probability"),
        ("loglikelihood", lambda n: [(None, False)] * n, "NoneType, not a log-probability"),
        ("loglikelihood", lambda n: [(-1.0, torch.ones(2))] * n, "tuple, not a pair"),
        ("loglikelihood", lambda n: [(math.inf, False)] * n, "inf, not a log-probability"),
        ("loglikelihood_rolling", lambda n: [10**400] * n, "int, not a log-probability"),
        ("loglikelihood_rolling", lambda n: [math.nan] * n, "nan, not a log-probability"),
        ("loglikelihood_rolling", lambda n: [(-1.0,)] * n, "tuple, not a log-probability"),
        ("generate_until", lambda n: [None] * n, "NoneType, not a text"),
        ("generate_until", lambda n: [["text"]] * n, "list, not a text"),
    ],
)
def test_answers_that_are_not_valid_are_one_error_and_are_not_stored(
    op: str, answers: Callable[[int], Any], said: str, tmp_path: Path
) -> None:
    """The error names the model, the request and what it got; the next run computes them."""
    store = str(tmp_path / "s.db")
    with (
        closing(wrap(_AnswersLM(answers), store=store, revision="1")) as cached,
        pytest.raises(ModelError, match=f"_AnswersLM .*{said}"),
    ):
        getattr(cached, op)(_requests(op))
    valid = {
        "loglikelihood": (-1.0, False),
        "loglikelihood_rolling": -1.0,
        "generate_until": "text",
    }[op]
    lm = _AnswersLM(lambda n: [valid] * n)
    with closing(wrap(lm, store=store, revision="1")) as cached:
        assert getattr(cached, op)(_requests(op)) == [valid] * 3
    assert lm.calls == [3]


def test_an_answer_that_is_not_valid_is_not_kept_as_it_is_computed(tmp_path: Path) -> None:
    """A model reports each answer at once; those that are valid are kept."""
    store = str(tmp_path / "s.db")
    wrong = _AnswersLM(lambda _: [(-1.0, True), None, (math.nan, True)], reports=True)
    with (
        closing(wrap(wrong, store=store, revision="1")) as cached,
        pytest.raises(ModelError),
    ):
        cached.loglikelihood(_requests("loglikelihood"))
    right = _AnswersLM(lambda n: [(-1.0, True)] * n, reports=True)
    with closing(wrap(right, store=store, revision="1")) as cached:
        assert cached.loglikelihood(_requests("loglikelihood")) == [(-1.0, True)] * 3
    assert right.calls == [2, 1]  # the second verifies the one that is stored


@pytest.mark.parametrize("answers", [lambda _: None, lambda n: [None] * n])
def test_drawn_texts_are_checked_too(answers: Callable[[int], Any]) -> None:
    """They bypass the cache and not the check."""
    with pytest.raises(ModelError, match="generate_until"):
        wrap(_AnswersLM(answers)).generate_until(_requests("generate_until", _DRAWN))


@pytest.mark.parametrize(
    ("op", "answer"),
    [
        ("loglikelihood", (-math.inf, False)),
        ("loglikelihood", (np.float32(-0.5), np.bool_(True))),
        ("loglikelihood_rolling", 0),
        ("generate_until", ""),
    ],
)
def test_unusual_answers_are_valid(op: str, answer: Any) -> None:
    """What the harness can use is handed on as it is, also by a generator."""
    cached = wrap(_AnswersLM(lambda n: (answer for _ in range(n))))
    assert getattr(cached, op)(_requests(op)) == [answer] * 3


def test_a_text_in_place_of_one_that_an_api_did_not_return_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a refusal of once is no answer for ever; the harness gets it as it is."""
    api = SimpleNamespace(LMEVAL_MODEL_NONE_ANSWER_PLACEHOLDER="none")
    monkeypatch.setitem(sys.modules, "lm_eval.models.api_models", api)
    calls = []
    for _ in range(2):
        lm = _AnswersLM(lambda n: ["none", "text", "none"] if n > 2 else ["none"] * n)
        with closing(wrap(lm, store=str(tmp_path / "s.db"), revision="1")) as cached:
            found = cached.generate_until(_requests("generate_until"))
        assert sorted(found) == ["none", "none", "text"]
        calls += lm.calls
    assert calls == [3, 2]
