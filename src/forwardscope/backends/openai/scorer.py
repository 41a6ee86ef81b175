"""Compute the three ops for one view with requests to a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, Final, TypeVar

from forwardscope.backends.completions import added_tokens
from forwardscope.backends.openai.answers import (
    Choice,
    NotFinite,
    choices_of,
    logprobs_of_prompt,
    rolling_logprob,
    token_dist,
)
from forwardscope.backends.openai.client import NOT_FINITE, ServerClient
from forwardscope.backends.openai.server import Facts, completion
from forwardscope.backends.values import RollingLogprob, TokenDist
from forwardscope.core.keys import fold_strings, prompt_hash
from forwardscope.errors import NonFiniteError, PromptError, ServerError, ViewError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.text import plural

__all__ = ["ServedScorer", "check_tokens", "check_unicode"]

S = TypeVar("S")
T = TypeVar("T")
#: A prompt as it is sent: token ids, or text.
_Sent = list[int] | str

#: Bounds of one request, so that no answer is larger than a few megabytes.
_MAX_PROMPTS: Final = 32
_MAX_TOKENS: Final = 1 << 15
_MAX_LOGPROBS: Final = 1 << 17
_UNKNOWN_MODEL: Final = 404
#: Asks for the log-probability of each token of the prompt, and of no other token.
_OF_THE_PROMPT: Final = {"prompt_logprobs": 0}


class ServedScorer:
    """Computes the ops for one view; implements `forwardscope.backends.views.Scorer`.

    Prompts are sent as token ids where a tokenizer is known, else as text. A request has many of
    them, and several requests are under way at a time. What is answered is kept at once, so that
    a server that is lost later costs only the rest. Thread-safe.

    Args:
        view_id: Id of the view.
        model: Returns the server's name of the view's model; called before requests.
        client: Sends the requests.
        facts: What the server says of itself.
        instrumentation: Receives token counts, and values as they come.
        concurrency: Requests at a time.
        renew: Loads the view's model again where the server has lost it, and returns whether
            it did.
    """

    def __init__(
        self,
        view_id: str,
        model: Callable[[], str],
        client: ServerClient,
        facts: Facts,
        instrumentation: BackendInstrumentation,
        concurrency: int,
        renew: Callable[[], bool] = lambda: False,
    ) -> None:
        self._view_id = view_id
        self._model = model
        self._client = client
        self._facts = facts
        self._inst = instrumentation
        self._concurrency = concurrency
        self._renew = renew
        self._closed = False

    @property
    def vocab_size(self) -> int:
        """Number of tokens to which a distribution is clipped."""
        return self._facts.max_logprobs

    def next_token_dists(self, prompts: Sequence[str], top_k: int) -> list[TokenDist]:
        """Compute the distribution after each prompt."""
        size = self._facts.vocab_size
        options = {"logprobs": top_k, "return_tokens_as_token_ids": True}
        sent = self._encode(prompts, prompts)
        return self._score(
            sent, prompts, options, lambda _, choice: token_dist(choice, top_k, size), top_k
        )

    def rolling_logprobs(self, texts: Sequence[str]) -> list[RollingLogprob]:
        """Compute each token's log-probability given those before it."""
        sent = self._encode(texts, texts)
        return self._score(sent, texts, _OF_THE_PROMPT, lambda _, choice: rolling_logprob(choice))

    def logprobs_of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Compute each completion's summed log-probability given the shared token prefix."""
        keys = [fold_strings(prompt, completion) for prompt, completion in pairs]
        given = self._encode([prompt for prompt, _ in pairs], keys)
        full = self._encode([prompt + completion for prompt, completion in pairs], keys)
        added = [
            added_tokens(_ids(short), _ids(ids), key)
            for short, ids, key in zip(given, full, keys, strict=True)
        ]

        def total(index: int, choice: Choice) -> float:
            return float(logprobs_of_prompt(choice)[-added[index] :].sum())

        return self._score(full, keys, _OF_THE_PROMPT, total)

    def close(self) -> None:
        """Reject later calls."""
        self._closed = True

    def _encode(self, prompts: Sequence[str], keys: Sequence[str]) -> list[_Sent]:
        """Return the token ids of prompts, or the prompts where no tokenizer is known.

        Args:
            prompts: Prompts.
            keys: Prompts of the cache keys, whose hashes errors name.

        Raises:
            PromptError: A prompt has no tokens, more than the model's context, one that the model
                does not know, or an unpaired surrogate.
        """
        for prompt, key in zip(prompts, keys, strict=True):
            check_unicode(prompt, key)
        tokenizer = self._facts.tokenizer
        if tokenizer is None:
            return [str(prompt) for prompt in prompts]
        split = dict(self._at_once(tokenizer.encode, prompts))
        encoded = [split[index] for index in range(len(prompts))]
        for ids, key in zip(encoded, keys, strict=True):
            check_tokens(ids, key, self._facts)
        return list(encoded)

    def _score(
        self,
        sent: Sequence[_Sent],
        keys: Sequence[str],
        options: Mapping[str, Any],
        read: Callable[[int, Choice], T],
        top_k: int = 1,
    ) -> list[T]:
        """Send prompts in as few requests as their sizes allow; read what each has as answer.

        Args:
            sent: Token ids or texts.
            keys: Prompts of the cache keys.
            options: Keys of the requests.
            read: Returns the value of a prompt, by its index, from its answer.
            top_k: Log-probabilities of each prompt.
        """
        if self._closed:
            raise ViewError(f"view {self._view_id!r} is closed; open it again to score prompts")
        tokens = [len(one) if isinstance(one, list) else 0 for one in sent]
        self._inst.report_tokens(tokens)
        model = self._model()
        results: dict[int, T] = {}

        if self._facts.tokenizer is None:
            options = {**options, "return_token_ids": True}

        def send(part: Sequence[int]) -> list[Choice]:
            if self._inst.stopping:
                raise KeyboardInterrupt
            prompts = [sent[index] for index in part]
            try:
                body = self._request(completion(model, prompts, **options))
            except ServerError as error:
                if NOT_FINITE not in str(error):
                    raise
                if len(part) > 1:  # to find the prompt
                    return [choice for index in part for choice in send([index])]
                raise NonFiniteError(self._view_id, prompt_hash(keys[part[0]])) from error
            return choices_of(body, prompts)

        try:
            parts = _parts(sent, top_k)
            for at, choices in self._at_once(send, parts):
                for index, choice in zip(parts[at], choices, strict=True):
                    tokens[index] = len(choice.prompt_token_ids or ())
                    results[index] = value = self._read(read, index, choice, keys[index])
                    self._inst.keep(index, value)
                self._inst.computed_in_flight = len(results)
        finally:
            self._inst.computed_in_flight = 0
        return [results[index] for index in range(len(sent))]

    def _request(self, body: dict[str, Any]) -> bytes:
        """Send a request, once more where a server that was restarted gets its model again."""
        try:
            return self._client.request("completions", body)
        except ServerError as error:
            if error.status != _UNKNOWN_MODEL or not self._renew():
                raise
        return self._client.request("completions", body)

    def _read(self, read: Callable[[int, Choice], T], index: int, choice: Choice, key: str) -> T:
        try:
            return read(index, choice)
        except NotFinite:
            raise NonFiniteError(self._view_id, prompt_hash(key)) from None

    def _at_once(self, send: Callable[[S], T], inputs: Sequence[S]) -> Iterator[tuple[int, T]]:
        """Yield the index of each input with its answer, as they come; several are sent at a time.

        After an error no other input is sent; the answers that are under way are yielded, and
        then the error is raised.
        """
        if len(inputs) == 1:
            yield 0, send(inputs[0])
            return
        failure: BaseException | None = None
        with ThreadPoolExecutor(self._concurrency, "forwardscope-serve") as pool:
            sent = {pool.submit(copy_context().run, send, one): at for at, one in enumerate(inputs)}
            waiting = set(sent)
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        if (error := future.exception()) is None:
                            yield sent[future], future.result()
                        else:
                            failure = failure or error
                    if failure is not None:  # nothing tells the end of what is cancelled
                        waiting = {future for future in waiting if not future.cancel()}
            finally:
                for future in waiting:
                    future.cancel()
        if failure is not None:
            raise failure


def check_unicode(prompt: str, key: str) -> None:
    """Check that a prompt can be sent.

    Raises:
        PromptError: It has an unpaired surrogate.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise PromptError(
            f"prompt {prompt_hash(key)} contains an unpaired surrogate, which is not valid "
            "Unicode; fix its encoding"
        ) from None  # it has the prompt


def check_tokens(ids: Sequence[int], key: str, facts: Facts) -> None:
    """Check that a server takes a prompt.

    Args:
        ids: Its token ids.
        key: Prompt of the cache key, whose hash errors name.
        facts: What the server says of itself.

    Raises:
        PromptError: It has no tokens, more than the model's context, or one that the model does
            not know.
    """
    name = prompt_hash(key)
    if not ids:
        raise PromptError(f"prompt {name} has no tokens")
    if facts.context is not None and len(ids) > facts.context:
        raise PromptError(
            f"prompt {name} has {plural(len(ids), 'token')}, more than the {facts.context} that "
            "the server takes (--max-model-len); shorten it"
        )
    if (largest := max(ids)) >= facts.vocab_size:
        raise PromptError(
            f"prompt {name} has token {largest} of the tokenizer, for which the model has no "
            "embedding; leave it out of the prompt"
        )


def _parts(sent: Sequence[_Sent], top_k: int) -> list[list[int]]:
    """Divide prompts into requests of a bounded size, in order; returns their indices."""
    most = max(1, min(_MAX_PROMPTS, _MAX_LOGPROBS // top_k))
    parts: list[list[int]] = []
    size = 0
    for index, one in enumerate(sent):
        size += len(one)
        if not parts or len(parts[-1]) == most or size > _MAX_TOKENS:
            parts.append([])
            size = len(one)
        parts[-1].append(index)
    return parts


def _ids(sent: _Sent) -> list[int]:
    if isinstance(sent, str):
        raise ViewError("log-probabilities of completions need a tokenizer")
    return sent
