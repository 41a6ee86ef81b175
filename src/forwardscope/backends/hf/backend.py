"""Backend for one transformers model with one LoRA adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from forwardscope.backends.hf import weight_changes
from forwardscope.backends.hf.forward import Exactness, Forward
from forwardscope.backends.hf.identity import backend_identity
from forwardscope.backends.hf.scorer import HFScorer
from forwardscope.backends.views import (
    BASE,
    DEFAULT_INIT_SCALE,
    FINETUNED,
    LORA_ALIASES,
    CachedView,
    ViewSlot,
    null_view_id,
    scaled_view_id,
)
from forwardscope.core.keys import view_family
from forwardscope.errors import AdapterError, ViewError
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
        files: Files that the model was loaded from. With them the digest of the
            weights is saved for later processes; without them each process
            computes it.

    Raises:
        AdapterError: The adapter is not LoRA, is merged, or changed the base
            model itself (trained biases, PiSSA and similar), which a view
            cannot undo.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: Any,
        *,
        instrumentation: BackendInstrumentation | None = None,
        exactness: Exactness = "fast",
        files: tuple[Path, ...] = (),
    ) -> None:
        _check_adapter(model)
        model.eval()
        self._instrumentation = instrumentation or BackendInstrumentation()
        self._model: PeftModel | None = model
        self._forward = Forward(model, tokenizer, exactness)
        self._files = files
        self._identity: str | None = None
        self._slot = ViewSlot()
        self._aliases = LORA_ALIASES if weight_changes.is_plain_lora(model) else {}
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
        """Scales that open another view: 0 and 1 with plain LoRA, otherwise none."""
        return self._aliases

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
        """Open the weights with the adapter's change multiplied by `lam`.

        With plain LoRA, 0 opens the base view and 1 the fine-tuned view, with
        their cache entries. An adapter that changes more (DoRA, saved modules)
        has no such aliases.

        Raises:
            ValueError: `lam` is not finite.
        """
        view_id = scaled_view_id(lam)
        alias = self._aliases.get(lam)
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
        init_scale * sqrt(rank_scale), the same for the same seed.

        Raises:
            ValueError: A scale is not positive and finite.
        """
        view_id = null_view_id(seed, init_scale, rank_scale)
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

    def identity(self) -> str:
        """Return a SHA-256 of everything that determines this backend's values.

        It covers weights, adapter, tokenizer, dtype, exactness, device type and
        library versions. The first call computes it, in about two seconds per
        gigabyte of weights. The digest of the weights is saved under the paths,
        sizes and times of the model's files.

        Raises:
            ViewError: The identity is not known yet and a null view is open,
                which replaces the backend's own weights.
        """
        if self._identity is None:
            model = self._loaded()
            with self._forward.lock:
                opened = self._slot.current
                if opened is not None and view_family(opened) == "null":
                    raise ViewError(
                        f"view {opened!r} is open; close it before computing the identity"
                    )
                self._identity = backend_identity(
                    model, self._forward.tokenizer, self._forward.exactness, self._files
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
            scorer = HFScorer(view_id, self._forward, partial(change, model), self._instrumentation)
            try:
                yield CachedView(view_id, scorer, self._instrumentation)
            finally:
                scorer.close()

    def _loaded(self) -> PeftModel:
        if self._model is None:
            raise ViewError("the backend is closed; load it again to open a view")
        return self._model


def _check_adapter(model: PeftModel) -> None:
    config = model.peft_config[model.active_adapter]
    if config.peft_type != "LORA":
        raise AdapterError(
            f"the adapter is of type {config.peft_type.value}; only LoRA adapters are supported"
        )
    if getattr(config, "bias", "none") != "none":
        raise AdapterError(
            f"the adapter trains biases of the base (bias={config.bias!r}), which cannot be "
            "undone; train it with bias='none'"
        )
    init = getattr(config, "init_lora_weights", True)
    if (isinstance(init, str) and init.lower() not in _INITS_WITHOUT_BASE_CHANGE) or getattr(
        config, "kasa_config", None
    ):
        raise AdapterError(
            f"the adapter's initialisation ({init!r}) changes the base's own weights, which cannot "
            "be undone; convert it to plain LoRA with save_pretrained's "
            "path_initial_model_for_weight_conversion"
        )
    if model.get_model_status().merged_adapters:
        raise AdapterError("the adapter is merged into the base; call unmerge_adapter() first")


#: Values of `init_lora_weights` that do not change the base; PiSSA, OLoRA, LoftQ and others do.
_INITS_WITHOUT_BASE_CHANGE = ("eva", "gaussian", "mica", "orthogonal")
