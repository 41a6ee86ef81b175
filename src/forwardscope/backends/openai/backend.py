"""Backend for one model and one adapter that a server holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from typing import Final

from forwardscope.backends.digests import digest_of
from forwardscope.backends.openai.client import ServerClient
from forwardscope.backends.openai.runtime_adapters import RuntimeAdapter, RuntimeAdapters
from forwardscope.backends.openai.scorer import ServedScorer, check_tokens, check_unicode
from forwardscope.backends.openai.server import Facts
from forwardscope.backends.openai.source import ServedSource
from forwardscope.backends.openai.tokens import filler_of
from forwardscope.backends.openai.view import WITHOUT_TOKENIZER, ServedView
from forwardscope.backends.openai.view_identity import Parts, identity_of, view_parts
from forwardscope.backends.views import (
    BASE,
    DEFAULT_INIT_SCALE,
    FINETUNED,
    LORA_ALIASES,
    ViewSlot,
    check_supported,
    null_view_id,
    scaled_view_id,
)
from forwardscope.core.keys import RenderedChat, view_family
from forwardscope.errors import PromptError, ServerError, UnsupportedError, ViewError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.tier import DEFAULT_TOLERANCE
from forwardscope.text import printable

__all__ = ["ServedBackend"]


class ServedBackend:
    """A base model and an adapter of a server; implements every backend protocol.

    Base and fine-tuned view are two names of the server. Scaled and null views are adapters
    that are written to files, loaded by the server at the first miss and unloaded when the view
    closes. One view is open at a time. Any number of threads can use it.

    Args:
        source: Server and names.
        client: Sends the requests; closed with the backend.
        facts: What the server says of itself.
        adapters: The adapters of scaled and null views; closed with the backend.
        instrumentation: Caches, counts and traces lookups.
        tolerance: Largest difference of a log-probability that the server's batches make, in
            nats.
    """

    #: A server decides what it computes together.
    exactness: Final = "fast"
    #: The server has chosen it, and does not say it.
    dtype: Final = "served"
    #: What limits `top_k`, for a warning.
    top_k_limit: Final = "log-probabilities that the server gives (vLLM's --max-logprobs)"

    def __init__(
        self,
        source: ServedSource,
        client: ServerClient,
        facts: Facts,
        adapters: RuntimeAdapters,
        instrumentation: BackendInstrumentation,
        tolerance: float = DEFAULT_TOLERANCE,
    ) -> None:
        self._source = source
        self._client = client
        self._facts = facts
        self._adapters = adapters
        self._inst = instrumentation
        self._slot = ViewSlot()
        self._closed = False
        self._used_filler = False
        #: Where the model is.
        self.device: Final = client.url.name
        #: Largest difference of a log-probability that the server's batches make, in nats.
        self.tolerance: Final = tolerance
        instrumentation.identify_views(self.view_identity, tolerance, self.view_identity_parts)

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Cache, counts and trace of this backend's lookups."""
        return self._inst

    @property
    def vocab_size(self) -> int:
        """Number to which views clip `top_k`: the log-probabilities that the server gives."""
        return self._facts.max_logprobs

    @property
    def scaled_aliases(self) -> Mapping[float, str]:
        """Scales that open another view: 0 the base view and 1 the fine-tuned view."""
        return {} if "scaled" in self.refused_views else LORA_ALIASES

    @property
    def refused_views(self) -> Mapping[str, str]:
        """The reason for each view family that this server or adapter does not have."""
        return self._adapters.refusals

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of the server, by its name, where it says one."""
        return {"vllm": printable(self._facts.version)} if self._facts.version else {}

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results should know about server, model and adapter."""
        found = list(self._adapters.warnings)
        if self._inst.store is not None and self._source.revision is None:
            found.append(
                "model.revision is not given, so no value is kept in the store: the names of a "
                "server say nothing of its weights"
            )
        if self._used_filler and not self._filler[1]:
            found.append(
                f"filler is the token {self._filler[0]}, because the server does not name its "
                "pad token; give model.tokenizer for the model's own"
            )
        return found

    def as_base(self) -> AbstractContextManager[ServedView]:
        """Open the base model."""
        return self._view(BASE, lambda: self._facts.base.id)

    def as_finetuned(self) -> AbstractContextManager[ServedView]:
        """Open the adapter, or the fine-tuned model."""
        return self._view(FINETUNED, lambda: self._facts.adapter.id)

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[ServedView]:
        """Open the base with the adapter's change multiplied by `lam`.

        0 opens the base view and 1 the fine-tuned view, with their cache entries.

        Raises:
            ValueError: `lam` is not finite.
            UnsupportedViewError: There is no such view on this server or of this adapter.
        """
        view_id = scaled_view_id(lam)
        check_supported(view_id, self.refused_views)
        alias = self.scaled_aliases.get(lam)
        if alias is not None:
            return self.as_base() if alias == BASE else self.as_finetuned()
        return self._adapter_view(view_id, partial(self._adapters.scaled, lam))

    def as_null_adapter(
        self, seed: int, *, init_scale: float = DEFAULT_INIT_SCALE, rank_scale: float = 1.0
    ) -> AbstractContextManager[ServedView]:
        """Open the base with a random adapter of the same shape; see `HFBackend`.

        Raises:
            ValueError: A scale is not positive and finite.
            UnsupportedViewError: There is no such view on this server or of this adapter.
        """
        view_id = null_view_id(seed, init_scale, rank_scale)
        check_supported(view_id, self.refused_views)
        return self._adapter_view(
            view_id, partial(self._adapters.random, seed, init_scale, rank_scale)
        )

    def filler(self, tokens: int) -> str:
        """Return `tokens` pad tokens (else unk, else eos) and a blank line; empty for 0.

        Raises:
            UnsupportedError: No tokenizer is known, or it has no such token.
        """
        if tokens <= 0:
            return ""
        token, _ = self._filler
        if not token:
            raise UnsupportedError(f"filler is not available: {WITHOUT_TOKENIZER}")
        self._used_filler = True
        return f"{token * tokens}\n\n"

    def longest_filler(self, prompt: str) -> int | None:
        """Return how many tokens of filler the server takes before a prompt; None for no limit.

        Raises:
            UnsupportedError: No tokenizer is known, or it has no filler.
            PromptError: The prompt does not fit without filler.
        """
        tokenizer, context = self._facts.tokenizer, self._facts.context
        filler = self.filler(1)
        if tokenizer is None or context is None:
            return None
        check_unicode(prompt, prompt)
        check_tokens(tokenizer.encode(prompt), prompt, self._facts)
        return max(0, context - len(tokenizer.encode(filler + prompt)) + 1)

    def render_chat(self, messages: Sequence[Mapping[str, str]]) -> RenderedChat:
        """Return a chat as the server's template renders it, up to where an answer begins.

        Raises:
            PromptError: The server renders no chats, or refuses these messages.
        """
        tokenizer = self._facts.server_tokenizer
        if tokenizer is None:
            raise PromptError(
                "the server has no /tokenize, which renders chats; write the prompts as plain text"
            )
        for message in messages:
            check_unicode(message["content"], message["content"])
        try:
            return tokenizer.render(messages)
        except ServerError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise PromptError(
                f"the server does not render a chat of the roles {roles}: {error}"
            ) from error

    def identity(self) -> str:
        """Return a hash of all that is known to determine this backend's values, 64 hex digits."""
        return digest_of([*map(identity_of, map(self._parts, (BASE, FINETUNED))), self._filler[0]])

    def view_identity(self, view_id: str) -> str | None:
        """Return a hash of what determines a view's values.

        None without a revision, and for a view that this backend does not open.
        """
        parts = self.view_identity_parts(view_id)
        return identity_of(parts) if parts else None

    def view_identity_parts(self, view_id: str) -> Mapping[str, str]:
        """Return all that a view's identity is a hash of, by name; empty where that is None."""
        if self._source.revision is None or view_family(view_id) in self.refused_views:
            return {}
        return self._parts(view_id)

    def close(self) -> None:
        """Unload what was loaded and close the connections; may be called twice."""
        if not self._closed:
            self._closed = True
            self._adapters.close()
            self._client.close()
            self._inst.close()

    @cached_property
    def _filler(self) -> tuple[str, bool]:
        tokenizer = self._facts.tokenizer
        return ("", False) if tokenizer is None else filler_of(tokenizer)

    def _parts(self, view_id: str) -> Parts:
        return view_parts(view_id, self._source, self._facts, self._adapters.files)

    @contextmanager
    def _adapter_view(
        self, view_id: str, make: Callable[[], AbstractContextManager[RuntimeAdapter]]
    ) -> Iterator[ServedView]:
        """Open a view of an adapter that is loaded at its first miss."""
        with (
            make() as adapter,
            self._view(view_id, adapter.name, adapter.renew) as view,
        ):
            yield view

    @contextmanager
    def _view(
        self,
        view_id: str,
        model: Callable[[], str],
        renew: Callable[[], bool] = lambda: False,
    ) -> Iterator[ServedView]:
        if self._closed:
            raise ViewError("the backend is closed; load it again to open a view")
        with self._slot.hold(view_id):
            scorer = ServedScorer(
                view_id,
                model,
                self._client,
                self._facts,
                self._inst,
                self._source.concurrency,
                renew,
            )
            try:
                yield ServedView(
                    view_id, scorer, self._inst, has_tokens=bool(self._facts.tokenizer)
                )
            finally:
                scorer.close()
