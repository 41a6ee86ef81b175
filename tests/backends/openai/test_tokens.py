"""Prompts are split as the server splits them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.tokens import LocalTokenizer, ServerTokenizer, filler_of
from forwardscope.backends.server_url import ServerUrl
from forwardscope.core.keys import RenderedChat
from forwardscope.errors import ModelError

from .conftest import OpenBackend
from .vllm_double import Fault, VllmDouble

_UNKNOWN = "<unk>"
_WORDS = {"<s>": 0, "</s>": 1, "a": 2, "1": 3, "b": 4, _UNKNOWN: 5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tokenizer of words, which puts a text between `<s>` and `</s>`."""
    tokenizer = Tokenizer(models.WordLevel(_WORDS, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_special_tokens(folder: Path) -> None:
    """Those before a text stay; those after it, which end it, are left out."""
    tokenizer = LocalTokenizer(str(folder))
    assert tokenizer.encode("a b a 1") == [0, 2, 4, 2, 3]
    assert tokenizer.encode("a </s>") == [0, 2, 1]
    assert tokenizer.encode(RenderedChat("a b")) == [2, 4]
    assert tokenizer.vocab_size == len(_WORDS)


@pytest.mark.parametrize(
    ("config", "filler"),
    [
        ({"pad_token": "<unk>", "eos_token": "</s>"}, ("<unk>", True)),
        ({"pad_token": None, "eos_token": {"content": "</s>"}}, ("</s>", True)),
        ({"pad_token": "no token of it a b"}, ("</s>", False)),
        (None, ("</s>", False)),
        ([], ("</s>", False)),
    ],
)
def test_filler(folder: Path, config: object, filler: tuple[str, bool]) -> None:
    """It is the pad token, else unk, else eos; without a config a widespread special token."""
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert filler_of(LocalTokenizer(str(folder))) == filler


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff", b'{"model": {"type": "None"}}'])
def test_folders_without_a_tokenizer(tmp_path: Path, content: bytes | None) -> None:
    """A missing or damaged tokenizer is a user's mistake."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        LocalTokenizer(str(tmp_path))


def test_tokenizer_of_another_model(open_backend: OpenBackend, folder: Path) -> None:
    """A local tokenizer must split texts as the server's own."""
    with pytest.raises(ModelError, match=r"is not that of the server's model"):
        open_backend(tokenizer=str(folder))


def test_local_tokenizer_where_the_server_has_none(
    open_backend: OpenBackend, folder: Path, server: VllmDouble
) -> None:
    """It is used as it is, also for the size of the vocabulary."""
    server.absent = {"tokenize"}
    server.faults.append(Fault(400, b'{"error":{"message":"no"}}', operation="completions"))
    backend = open_backend(tokenizer=str(folder))
    assert backend.filler(2) == "</s></s>\n\n"
    assert backend.vocab_size == len(_WORDS)


def test_what_the_server_appends_is_left_out(open_backend: OpenBackend, server: VllmDouble) -> None:
    """A server whose tokenizer ends each text gets prompts without that end."""
    plain, whole = (b'{"tokens":[2,3]}', b'{"tokens":[1,2,3,9]}')
    server.faults += [Fault(200, one, operation="tokenize") for one in (plain, whole)]
    backend = open_backend()
    server.faults.append(Fault(200, b'{"tokens":[1,28120,9]}', operation="tokenize"))
    with backend.as_base() as view:
        view.next_token_dist("ends", top_k=3)
    assert server.of("completions")[-1]["prompt"] == [[1, 28120]]


def test_long_prompts_are_not_all_remembered() -> None:
    """Memory is bounded by bytes: the oldest prompts are split again."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content)["prompt"])
        return httpx.Response(200, stream=httpx.ByteStream(b'{"tokens":[1,2]}'))

    url = ServerUrl.parse("http://server:8000")
    client = ServerClient(url, transport=httpx.MockTransport(answer))
    tokenizer = ServerTokenizer(client, "base")
    prompts = [letter * (24 << 20) for letter in "abc"]
    for prompt in (*prompts, prompts[2], prompts[0]):
        tokenizer.encode(prompt)
    client.close()
    assert [one[0] for one in asked[2:]] == ["a", "b", "c", "a"]


def test_a_prompt_is_split_once(open_backend: OpenBackend, server: VllmDouble) -> None:
    """Views of one prompt ask the server's tokenizer once."""
    backend = open_backend()
    asked = len(server.of("tokenize"))
    for view in (backend.as_base(), backend.as_finetuned()):
        with view as opened:
            opened.next_token_dist("Hello", top_k=5)
    assert len(server.of("tokenize")) == asked + 1
