"""Backend for one transformers model with one LoRA adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from peft import PeftModel

from forwardscope.backends.hf import weight_changes
from forwardscope.backends.hf.adapters import check_config
from forwardscope.backends.hf.forward import Exactness, Forward
from forwardscope.backends.hf.identity import backend_identity
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.scorer import HFScorer
from forwardscope.backends.views import (
    BASE,
    DEFAULT_INIT_SCALE,
    FINETUNED,
    LORA_ALIASES,
    CachedView,
    ViewSlot,
    check_supported,
    null_view_id,
    scaled_view_id,
)
from forwardscope.core.keys import view_family
from forwardscope.errors import AdapterError, PromptError, ViewError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["HFBackend"]


class HFBackend:
    """A transformers model with a PEFT LoRA adapter; implements every backend protocol.

    The weights are in memory once; a view changes the adapter on them. One
    view is open at a time. Any number of threads can use it; forward calls run
    one at a time.

    Args:
        model: Base model with one LoRA adapter. It is set to eval mode.
        tokenizer: Tokenizer of the base model.
        instrumentation: Caches, counts and traces lookups; a new one by default.
        exactness: `fast` computes padded batches and reuses shared prefixes;
            `strict` computes each prompt alone, so that no value depends on
            other prompts.
        origin: What the model was loaded from, and its warnings.

    Raises:
        AdapterError: The adapter is not LoRA, is merged, or changed the base
            model itself (trained biases, repeated layers, PiSSA and similar),
            which a view cannot undo.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: Any,
        *,
        instrumentation: BackendInstrumentation | None = None,
        exactness: Exactness = "fast",
        origin: Origin | None = None,
    ) -> None:
        _check_adapter(model)
        model.eval()
        self._instrumentation = instrumentation or BackendInstrumentation()
        self._model: PeftModel | None = model
        self._forward = Forward(model, tokenizer, exactness)
        self._origin = origin or Origin()
        self._identity: str | None = None
        self._slot = ViewSlot()
        self._refusal = weight_changes.refusal(model)
        self._noise = weight_changes.Noise()
        for change in (nullcontext, weight_changes.disabled):
            with change(model):
                self._forward.check()

    @property
    def instrumentation(self) -> BackendInstrumentation:
        """Cache, counts and trace of this backend's lookups."""
        return self._instrumentation

    @property
    def scaled_aliases(self) -> Mapping[float, str]:
        """Scales that open another view: 0 the base view and 1 the fine-tuned view."""
        return {} if self._refusal else LORA_ALIASES

    @property
    def refused_views(self) -> Mapping[str, str]:
        """The reason for each view family that is not defined for this adapter."""
        return dict.fromkeys(("scaled", "null"), self._refusal) if self._refusal else {}

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results should know about the model and its adapter."""
        return list(self._origin.warnings)

    @property
    def optimisations(self) -> Mapping[str, str]:
        """`on`, `on (limit)` or `off (reason)` for prefix sharing and padded batches.

        A check at load decides, with the adapter and without: `fast` uses what gives
        the values of single prompts on this model.
        """
        return self._forward.optimisations

    @property
    def vocab_size(self) -> int:
        """Number of tokens in a whole distribution."""
        return self._forward.vocab_size

    def as_base(self) -> AbstractContextManager[CachedView]:
        """Open the weights without the adapter."""
        return self._view(BASE, weight_changes.disabled)

    def as_finetuned(self) -> AbstractContextManager[CachedView]:
        """Open the weights with the adapter."""
        return self._view(FINETUNED, nullcontext)

    def as_scaled_adapter(self, lam: float) -> AbstractContextManager[CachedView]:
        """Open the weights with everything that the adapter changes multiplied by `lam`.

        Each weight W that the adapter turns into W' becomes W + lam * (W' - W):
        the weights with LoRA or DoRA, saved modules and trained tokens. 0 opens
        the base view and 1 the fine-tuned view, with their cache entries.

        Raises:
            ValueError: `lam` is not finite.
            UnsupportedViewError: The change of this adapter cannot be scaled.
        """
        view_id = scaled_view_id(lam)
        check_supported(view_id, self.refused_views)
        alias = self.scaled_aliases.get(lam)
        if alias == BASE:
            return self.as_base()
        if alias == FINETUNED:
            return self.as_finetuned()
        return self._view(view_id, partial(weight_changes.scaled, lam=lam))

    def as_null_adapter(
        self, seed: int, *, init_scale: float = DEFAULT_INIT_SCALE, rank_scale: float = 1.0
    ) -> AbstractContextManager[CachedView]:
        """Open the weights with a random adapter of the same shape.

        Both factors are Gaussian with standard deviation
        init_scale * sqrt(rank_scale), the same for the same seed. All else is as
        in an adapter that is not trained: saved modules and trained tokens are
        the base's, biases are 0, and DoRA magnitudes are the norms of the
        weights with the random factors added, so that the view has the values
        of plain LoRA. Adapters of one shape on one base have equal null views.

        Raises:
            ValueError: A scale is not positive and finite.
            UnsupportedViewError: This adapter has no random counterpart.
        """
        view_id = null_view_id(seed, init_scale, rank_scale)
        check_supported(view_id, self.refused_views)
        randomize = partial(
            weight_changes.randomized,
            seed=seed,
            init_scale=init_scale,
            rank_scale=rank_scale,
            noise=self._noise,
        )
        return self._view(view_id, randomize)

    def filler(self, tokens: int) -> str:
        """Return `tokens` pad tokens (else unk, else eos) and a blank line; empty for 0."""
        if tokens <= 0:
            return ""
        tokenizer = self._forward.tokenizer
        token = tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token
        if not token:
            raise ViewError("the tokenizer has no pad, unk or eos token for filler")
        return f"{token * tokens}\n\n"

    def longest_filler(self, prompt: str) -> int | None:
        """Return how many tokens of filler fit the model's context before a prompt.

        None where the model has no limit.

        Raises:
            PromptError: The prompt does not fit without filler.
        """
        if self._forward.context is None:
            return None
        self._forward.tokenize([prompt])
        try:
            [ids] = self._forward.tokenize([self.filler(1) + prompt])
        except PromptError:  # one token of filler is too many
            return 0
        return self._forward.context - len(ids) + 1

    def identity(self) -> str:
        """Return a SHA-256 of everything that determines this backend's values.

        It covers weights, adapter, tokenizer, dtype, exactness, device type and
        library versions. The first call computes it, in about two seconds per
        gigabyte of weights. The digest of the weights is saved under the paths,
        sizes and times of the model's files.

        Raises:
            ViewError: The identity is not known yet and a scaled or null view
                is open, which replaces the backend's own weights.
        """
        if self._identity is None:
            model = self._loaded()
            with self._forward.lock:
                opened = self._slot.current
                if opened is not None and view_family(opened) in ("scaled", "null"):
                    raise ViewError(
                        f"view {opened!r} is open; close it before computing the identity"
                    )
                self._identity = backend_identity(
                    model, self._forward.tokenizer, self._forward.exactness, self._origin
                )
        return self._identity

    def close(self) -> None:
        """Free the weights and close the trace; may be called twice."""
        self._instrumentation.close()
        with self._forward.lock:  # wait for a forward call in flight
            self._model = None
            self._forward.model = None
            self._noise = weight_changes.Noise()

    @contextmanager
    def _view(
        self, view_id: str, change: Callable[[PeftModel], AbstractContextManager[object]]
    ) -> Iterator[CachedView]:
        model = self._loaded()
        with self._slot.hold(view_id):
            scorer = HFScorer(
                view_id,
                self._forward,
                partial(change, model),
                self._instrumentation,
                self._origin.vocab_size(view_id),
            )
            try:
                yield CachedView(view_id, scorer, self._instrumentation)
            finally:
                scorer.close()

    def _loaded(self) -> PeftModel:
        if self._model is None:
            raise ViewError("the backend is closed; load it again to open a view")
        return self._model


def _check_adapter(model: PeftModel) -> None:
    check_config(model.peft_config[model.active_adapter])
    if model.get_model_status().merged_adapters:
        raise AdapterError("the adapter is merged into the base; call unmerge_adapter() first")
