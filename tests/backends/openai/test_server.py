"""What a server says of itself is found with few requests, and what it does not say is told."""

from __future__ import annotations

import importlib.util
import json
import runpy
from typing import Any

import pytest

from forwardscope.backends import openai
from forwardscope.backends.openai import ServedSource, load_backend
from forwardscope.errors import MissingExtraError, ModelError, ServerError

from .conftest import OpenBackend
from .vllm_double import Fault, VllmDouble

_NO_LIMIT = b'{"error":{"message":"logprobs is too large","type":"BadRequestError","code":400}}'
#: vLLM's own words.
_TWENTY = (
    b'{"error":{"message":"Requested sample logprobs of 16777216, which is greater than max '
    b'allowed: 20 (parameter=logprobs, value=16777216)","type":"BadRequestError","param":'
    b'"logprobs","code":400}}'
)


def _completion(number: int) -> bytes:
    top = {f"token_id:{token}": -1.0 - token for token in range(number)}
    choice = {"index": 0, "logprobs": {"top_logprobs": [top]}}
    return json.dumps({"choices": [choice]}).encode()


def test_limits(open_backend: OpenBackend, server: VllmDouble) -> None:
    """The refusals of two requests name them; no prompt is computed."""
    backend = open_backend()
    assert backend.vocab_size == 512
    assert backend.longest_filler("Hello") == 2044
    assert len(server.of("completions")) == 2


def test_default_of_the_server(open_backend: OpenBackend, server: VllmDouble) -> None:
    """VLLM gives 20 log-probabilities unless it is told otherwise."""
    server.faults.append(Fault(400, _TWENTY, operation="completions", after=1))
    backend = open_backend()
    assert backend.vocab_size == 20
    assert "--max-logprobs" in backend.top_k_limit


def test_server_that_names_no_limit(open_backend: OpenBackend, server: VllmDouble) -> None:
    """It is asked for a whole distribution, and gives what it gives."""
    server.faults += [
        Fault(400, _NO_LIMIT, operation="completions", after=1),
        Fault(200, _completion(7), operation="completions"),
    ]
    assert open_backend().vocab_size == 7


def test_server_without_log_probabilities(open_backend: OpenBackend, server: VllmDouble) -> None:
    """It cannot be measured."""
    nothing = b'{"choices":[{"index":0,"logprobs":null}]}'
    server.faults += [
        Fault(400, _NO_LIMIT, operation="completions", after=1),
        Fault(200, nothing, operation="completions"),
    ]
    with pytest.raises(ServerError, match="gives no log-probabilities"):
        open_backend()


def test_server_with_no_log_probabilities_allowed(
    open_backend: OpenBackend, server: VllmDouble
) -> None:
    """The error has the option of vLLM that allows some."""
    said = b'{"error":{"message":"Requested 9, which is greater than max allowed: 0"}}'
    server.faults.append(Fault(400, said, operation="completions", after=1))
    with pytest.raises(ServerError, match="--max-logprobs"):
        open_backend()


@pytest.mark.parametrize("ids", ["-1", "2147483648", "9" * 40, "1.0"])
def test_tokens_that_are_no_ids(open_backend: OpenBackend, server: VllmDouble, ids: str) -> None:
    """They are refused where they are read."""
    backend = open_backend()
    server.faults.append(Fault(200, b'{"tokens":[%s]}' % ids.encode(), operation="tokenize"))
    with backend.as_base() as view, pytest.raises(ServerError, match="answer to tokenize"):
        view.next_token_dist("new", top_k=5)


def test_vocabulary_that_nobody_names(open_backend: OpenBackend, server: VllmDouble) -> None:
    """The error names the key that helps."""
    server.faults.append(Fault(400, _NO_LIMIT, operation="completions"))
    with pytest.raises(ServerError, match=r"size of its vocabulary; give model\.tokenizer"):
        open_backend()


@pytest.mark.parametrize("absent", ["version", "tokenizer_info"])
def test_endpoints_that_may_be_absent(
    open_backend: OpenBackend, server: VllmDouble, absent: str
) -> None:
    """A proxy may let only some through."""
    server.absent = {absent}
    assert open_backend().vocab_size == 512


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(401, b'{"error":"Unauthorized"}'), "FORWARDSCOPE_API_KEY"),
        (Fault(404, b"<html>nginx</html>"), "HTTP 404"),
        (Fault(200, b"<html>welcome</html>"), "no valid JSON"),
    ],
)
def test_servers_of_something_else(
    open_backend: OpenBackend, server: VllmDouble, fault: Fault, message: str
) -> None:
    """One sentence says what was answered."""
    server.faults.append(fault)
    with pytest.raises(ServerError, match=message):
        open_backend()


def test_server_without_models(open_backend: OpenBackend, server: VllmDouble) -> None:
    """The error says that it has none."""
    server.faults.append(Fault(200, b'{"data":[]}', operation="models"))
    with pytest.raises(ModelError, match="has no model base; it has none"):
        open_backend()


def test_url_that_is_none() -> None:
    """A library's user gets the sentence that a suite's user gets."""
    with pytest.raises(ServerError, match=r"model\.server must be the URL"):
        load_backend(ServedSource("nowhere", "base", "ft"))


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import fails with the pip command that installs it."""
    find = importlib.util.find_spec

    def without(name: str) -> Any:
        return None if name == "httpx" else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(MissingExtraError, match=r"^httpx is not installed.*forwardscope\[serve"):
        runpy.run_path(openai.__file__)
