"""Token ids of prompts: from a local tokenizer, or from the server's own."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from forwardscope.backends.digests import digest_of_bytes
from forwardscope.backends.openai.answers import Text, Tokens, parsed
from forwardscope.backends.openai.client import ServerClient
from forwardscope.core.cache import MISS, ForwardCache
from forwardscope.core.keys import RenderedChat
from forwardscope.errors import ModelError, ServerError

__all__ = ["LocalTokenizer", "ServerTokenizer", "Tokenizer", "filler_of"]

#: A text that has at least one token in every tokenizer.
_SAMPLE: Final = "a 1"
_MAX_BYTES: Final = 256 << 20
#: Bounds of the prompts whose token ids are remembered.
_MAX_PROMPTS: Final = 4096
_MAX_PROMPT_BYTES: Final = 64 << 20
#: Tokens of filler in the order in which they are preferred, as in a tokenizer's config.
_ROLES: Final = ("pad_token", "unk_token", "eos_token")
#: Special tokens of widespread models, where no config names the model's own.
_WIDESPREAD: Final = (
    "<pad>",
    "<|pad|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|im_end|>",
)


class Tokenizer(Protocol):
    """Splits prompts into tokens, as the server does."""

    @property
    def identity(self) -> str:
        """Digest of the tokenizer, or `server`."""
        ...

    @property
    def vocab_size(self) -> int | None:
        """Number of its tokens; None where that is not known."""
        ...

    def config(self) -> Mapping[str, Any]:
        """Return its config, which names special tokens; empty without one."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return a prompt's token ids.

        Special tokens before a text stay; those that a tokenizer appends are dropped, because
        what follows a text is predicted. To a rendered chat none are added.
        """
        ...


class LocalTokenizer:
    """A folder's `tokenizer.json`, by the library `tokenizers`.

    Args:
        folder: Folder of the tokenizer, such as that of the model.

    Raises:
        ModelError: It has no tokenizer that can be read, or `tokenizers` is not installed.
    """

    def __init__(self, folder: str) -> None:
        try:
            from tokenizers import Tokenizer as Fast  # noqa: PLC0415 - only with a folder
        except ImportError:
            raise ModelError(
                "model.tokenizer needs the package tokenizers; install it, or remove the key: "
                "then vLLM's tokenizer is used"
            ) from None
        self._folder = Path(folder)
        data = self._read("tokenizer.json")
        if data is None:
            raise ModelError(f"tokenizer folder {folder} has no tokenizer.json")
        try:
            self._fast = Fast.from_buffer(data)
        except Exception as error:  # the library raises bare exceptions
            raise ModelError(
                f"tokenizer.json of {folder} cannot be read: {str(error)[:200]}"
            ) from error
        self._fast.no_padding()
        self._fast.no_truncation()
        self.identity: Final = digest_of_bytes([data])

    @property
    def vocab_size(self) -> int | None:
        """Number of its tokens."""
        return int(self._fast.get_vocab_size(with_added_tokens=True))

    def config(self) -> Mapping[str, Any]:
        """Return its config; empty without one."""
        return _json(self._read("tokenizer_config.json"))

    def encode(self, text: str) -> list[int]:
        """Return a prompt's token ids; see `Tokenizer.encode`."""
        rendered = isinstance(text, RenderedChat)
        encoded = self._fast.encode(str(text), add_special_tokens=not rendered)
        added = next(
            (n for n, special in enumerate(reversed(encoded.special_tokens_mask)) if not special), 0
        )
        ids: list[int] = encoded.ids
        return ids if rendered else ids[: len(ids) - added]

    def _read(self, name: str) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelError(f"{self._folder / name} cannot be read: {error.strerror}") from error
        if len(data) > _MAX_BYTES:
            raise ModelError(f"{self._folder / name} has over {_MAX_BYTES >> 20} MiB")
        return data


class ServerTokenizer:
    """vLLM's `/tokenize`, with one request for each prompt. Safe under threads.

    Args:
        client: Sends the requests.
        model: The server's name of the base model.

    Raises:
        ServerError: The server has no such endpoint.
    """

    identity: Final = "server"
    vocab_size: Final = None

    def __init__(self, client: ServerClient, model: str) -> None:
        self._client = client
        self._model = model
        self._known = ForwardCache(_MAX_PROMPTS, max_bytes=_MAX_PROMPT_BYTES)
        plain, whole = (self._tokens(_SAMPLE, special) for special in (False, True))
        self._appended = _appended(plain, whole)

    def config(self) -> Mapping[str, Any]:
        """Return what `/tokenizer_info` says; empty where the server has no such endpoint."""
        with suppress(ServerError):
            return _json(self._client.request("tokenizer_info"))
        return {}

    def encode(self, text: str) -> list[int]:
        """Return a prompt's token ids; see `Tokenizer.encode`."""
        rendered = isinstance(text, RenderedChat)
        ids = self._tokens(str(text), not rendered)
        return ids if rendered else ids[: len(ids) - self._appended]

    def render(self, messages: Sequence[Mapping[str, str]]) -> RenderedChat:
        """Return a chat as the server's template renders it, up to where an answer begins."""
        begun = messages[-1]["role"] == "assistant"
        request = {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": not begun,
            "continue_final_message": begun,
        }
        ids = parsed(self._client.request("tokenize", request), Tokens, "tokenize").tokens
        request = {"model": self._model, "tokens": ids}
        text = parsed(self._client.request("detokenize", request), Text, "detokenize").prompt
        rendered = RenderedChat(text)
        if self.encode(rendered) != ids:
            raise ServerError("the rendered chat has other tokens when it is read again")
        return rendered

    def _tokens(self, text: str, special: bool) -> list[int]:
        """Return a text's token ids, with one request for a text that is not remembered."""
        known = self._known.get((text, special))
        if known is not MISS:
            return list(known)
        request = {"model": self._model, "prompt": text, "add_special_tokens": special}
        ids = parsed(self._client.request("tokenize", request), Tokens, "tokenize").tokens
        self._known.put((text, special), array("I", ids))
        return ids


def filler_of(tokenizer: Tokenizer) -> tuple[str, bool]:
    """Return the token of neutral filler, and whether the tokenizer's config names it.

    It is the pad token, else unk, else eos; without a config the first of some widespread special
    tokens that this tokenizer has. An empty text where there is none.
    """
    config = tokenizer.config()
    named = [_text(config.get(role)) for role in _ROLES]
    for token in (*filter(None, named), *_WIDESPREAD):
        if len(tokenizer.encode(RenderedChat(token))) == 1:
            return token, token in named
    return "", False


def _text(token: object) -> str:
    """Return a special token, which a config has as a text or as a mapping."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _appended(plain: Sequence[int], whole: Sequence[int]) -> int:
    """Return how many special tokens follow a text's own."""
    for start in range(len(whole) - len(plain) + 1):
        if list(whole[start : start + len(plain)]) == list(plain):
            return len(whole) - len(plain) - start
    return 0


def _json(data: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
