"""What a server says of itself: its models, limits, version and tokenizer.

vLLM has no endpoint for the most log-probabilities of a request and for the size of the
vocabulary. It names both where it refuses a request that has more, at the cost of no forward
pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from forwardscope.backends.openai.answers import Model, Models, Version, choices_of, parsed
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.source import ServedSource
from forwardscope.backends.openai.tokens import LocalTokenizer, ServerTokenizer, Tokenizer
from forwardscope.errors import ModelError, ServerError
from forwardscope.text import listed, shown

__all__ = ["Facts", "completion", "read_facts"]

#: More than any vocabulary has.
_TOO_MANY: Final = 1 << 24
_MOST: Final = re.compile(r"greater than max allowed: (\d{1,9})")
_VOCABULARY: Final = re.compile(r"[Vv]ocabulary size: (\d{1,9})")
_LISTED: Final = 5
_NONE_GIVEN: Final = (
    "the model server {} gives no log-probabilities; start vLLM with --max-logprobs 512"
)
#: Texts that different tokenizers split differently.
_SAMPLES: Final = ("Straße 12, naïve café!\n\tdef f(x):  return x**2", "東京 😀 a1")
#: Statuses of a request whose values are not allowed.
_REFUSED: Final = (400, 422)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself.

    Attributes:
        base: The base model.
        adapter: The adapter, or the fine-tuned model.
        version: Version of the server; an empty text where it has none.
        context: Most tokens of a prompt; None where that is not known.
        vocab_size: Number of tokens in a whole distribution.
        max_logprobs: Most log-probabilities of one distribution.
        tokenizer: Splits prompts as the server does; None where nothing does.
        server_tokenizer: The server's own, which also renders chats; None without one.
    """

    base: Model
    adapter: Model
    version: str
    context: int | None
    vocab_size: int
    max_logprobs: int
    tokenizer: Tokenizer | None
    server_tokenizer: ServerTokenizer | None


def completion(model: str, prompts: Sequence[list[int] | str], **options: Any) -> dict[str, Any]:
    """Return the body of a request that predicts the token after each prompt.

    Args:
        model: The server's name of a model.
        prompts: Token ids, or texts.
        options: Further keys of the request.
    """
    return {"model": model, "prompt": list(prompts), "max_tokens": 1, "temperature": 0.0, **options}


def read_facts(client: ServerClient, source: ServedSource) -> Facts:
    """Return what a server says of itself and of the models of a source.

    Raises:
        ServerError: It is not reached, answers otherwise than vLLM, or does not say the size of
            its vocabulary.
        ModelError: It has no such model, or the local tokenizer is not the server's.
    """
    models = {model.id: model for model in parsed(client.request("models"), Models, "models").data}
    base, adapter = (
        _named(models, *one) for one in (("name", source.name), ("adapter", source.adapter))
    )
    if adapter.parent not in (None, *_aliases(base, models.values())):
        raise ModelError(
            f"model.adapter: {shown(adapter.id)} is an adapter of {shown(adapter.parent or '')} on "
            f"this server, and not of {shown(base.id)}"
        )
    served = _server_tokenizer(client, base.id)
    tokenizer = served if source.tokenizer is None else _local_tokenizer(source.tokenizer, served)
    vocab_size = _vocab_size(client, base.id)
    if not vocab_size and tokenizer is not None:
        vocab_size = tokenizer.vocab_size
    if not vocab_size:
        raise ServerError(
            f"the model server {client.url.name} does not say the size of its vocabulary; give "
            "model.tokenizer, a folder with the model's tokenizer.json"
        )
    longest = base.max_model_len
    return Facts(
        base=base,
        adapter=adapter,
        version=_version(client),
        context=None if longest is None else longest - 1,  # one token is predicted
        vocab_size=vocab_size,
        max_logprobs=_max_logprobs(client, base.id, vocab_size),
        tokenizer=tokenizer,
        server_tokenizer=served,
    )


def _named(models: Mapping[str, Model], key: str, name: str) -> Model:
    if name in models:
        return models[name]
    known = listed(list(map(shown, models)), _LISTED) or "none"
    raise ModelError(f"model.{key}: the server has no model {shown(name)}; it has {known}")


def _aliases(base: Model, models: Iterable[Model]) -> list[str]:
    """Return the names of a base model: vLLM lists it once for each, with one root."""
    return [one.id for one in models if one is base or (one.root and one.root == base.root)]


def _server_tokenizer(client: ServerClient, model: str) -> ServerTokenizer | None:
    with suppress(ServerError):
        return ServerTokenizer(client, model)
    return None


def _local_tokenizer(folder: str, served: ServerTokenizer | None) -> LocalTokenizer:
    """Return the tokenizer of a folder, which must split sample texts as the server's does."""
    local = LocalTokenizer(folder)
    for text in _SAMPLES:
        if served is not None and local.encode(text) != served.encode(text):
            raise ModelError(
                f"tokenizer {folder} is not that of the server's model: it has other tokens for a "
                "sample text; give the model's own, or remove model.tokenizer"
            )
    return local


def _version(client: ServerClient) -> str:
    with suppress(ServerError):
        return parsed(client.request("version"), Version, "version").version
    return ""


def _vocab_size(client: ServerClient, model: str) -> int | None:
    return _named_limit(client, _VOCABULARY, model, logit_bias={str(_TOO_MANY): 0.0})


def _max_logprobs(client: ServerClient, model: str, vocab_size: int) -> int:
    """Return the most log-probabilities of one distribution.

    Raises:
        ServerError: The server gives none.
    """
    named = _named_limit(client, _MOST, model, logprobs=_TOO_MANY)
    if named:
        return min(named, vocab_size)
    if named == 0:
        raise ServerError(_NONE_GIVEN.format(client.url.name))
    options = {"logprobs": vocab_size, "return_tokens_as_token_ids": True}
    body = client.request("completions", completion(model, [[0]], **options))
    [choice] = choices_of(body, [[0]])
    given = choice.logprobs.top_logprobs if choice.logprobs else []
    found = len(given[0]) if given and given[0] else 0
    if not found:
        raise ServerError(_NONE_GIVEN.format(client.url.name))
    return min(found, vocab_size)


def _named_limit(
    client: ServerClient, pattern: re.Pattern[str], model: str, **options: Any
) -> int | None:
    """Return the number that the refusal of a request names; None where it names none."""
    try:
        client.request("completions", completion(model, [[0]], **options))
    except ServerError as error:
        if error.status not in _REFUSED:
            raise
        found = pattern.search(str(error))
        return int(found[1]) if found else None
    return None
