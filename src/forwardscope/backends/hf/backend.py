"""Backend for one transformers model with one LoRA adapter."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from peft import PeftModel

from forwardscope.backends.hf import weight_changes
from forwardscope.backends.hf.adapter_config import check_config
from forwardscope.backends.hf.checkpoints import check_finite
from forwardscope.backends.hf.common import CommonBackend
from forwardscope.backends.hf.forward import Checks, Exactness, Forward
from forwardscope.backends.hf.noise import Noise
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.view_identity import Reading, ViewParts, parts_of_adapter
from forwardscope.backends.views import (
    BASE,
    DEFAULT_INIT_SCALE,
    FINETUNED,
    LORA_ALIASES,
    CachedView,
    check_supported,
    null_view_id,
    scaled_view_id,
)
from forwardscope.errors import AdapterError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["HFBackend"]


class HFBackend(CommonBackend):
    """A transformers model with a PEFT LoRA adapter; implements every backend protocol.

    The weights are in memory once; a view changes the adapter on them. One
    view is open at a time. Any number of threads can use it; forward calls run
    one at a time.

    Args:
        model: Base model with one LoRA adapter. It is set to eval mode.
        tokenizer: Tokenizer of the base model.
        instrumentation: Caches, counts and traces lookups; a new one by default. Backends
            must not share one, because a view's id does not say whose it is.
        exactness: `fast` computes padded batches and reuses shared prefixes;
            `strict` computes each prompt alone, so that no value depends on
            other prompts.
        origin: What the model was loaded from, and its warnings.
        check: Whether to run a few short prompts to find out which optimisations give the
            right values; without it, there are none.
        base_checks: Earlier checks of the same base without an adapter; extended.

    Raises:
        ModelError: The base has NaN or infinite weights.
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
        check: bool = True,
        base_checks: Checks | None = None,
    ) -> None:
        _check_adapter(model)
        check_finite("base model", model)
        model.eval()
        self._forward = Forward(model, tokenizer, exactness)
        self._refusal = weight_changes.refusal(model)
        super().__init__([self._forward], instrumentation, origin)
        self._noise = Noise()
        if check:
            self._forward.check()
            with weight_changes.disabled(model):
                self._forward.check(base_checks)
        else:
            self._forward.skip_check()
        self._identify_views()

    @property
    def scaled_aliases(self) -> Mapping[float, str]:
        """Scales that open another view: 0 the base view and 1 the fine-tuned view."""
        return {} if self._refusal else LORA_ALIASES

    @property
    def refused_views(self) -> Mapping[str, str]:
        """The reason for each view family that is not defined for this adapter."""
        return dict.fromkeys(("scaled", "null"), self._refusal) if self._refusal else {}

    @property
    def optimisations(self) -> Mapping[str, str]:
        """`on`, `on (limit)` or `off (reason)` for prefix sharing and padded batches.

        A check at load decides, with the adapter and without: `fast` uses what gives
        the values of single prompts on this model.
        """
        return self._forward.optimisations

    def as_base(self) -> AbstractContextManager[CachedView]:
        """Open the weights without the adapter."""
        return self._view(BASE, self._forward, weight_changes.disabled)

    def as_finetuned(self) -> AbstractContextManager[CachedView]:
        """Open the weights with the adapter."""
        return self._view(FINETUNED, self._forward, nullcontext)

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
        return self._view(view_id, self._forward, partial(weight_changes.scaled, lam=lam))

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
        return self._view(view_id, self._forward, randomize)

    def close(self) -> None:
        """Free the weights and close the trace; may be called twice."""
        super().close()
        self._noise = Noise()

    def _compute_parts(self, reading: Reading) -> ViewParts:
        model, applied = self._forward.model, self._forward.applied
        applied.undo()  # an open view changes the weights again at its next pass
        applied.check(model)
        return parts_of_adapter(
            model, self._origin, reading, self.scaled_aliases, self.refused_views
        )


def _check_adapter(model: PeftModel) -> None:
    if len(model.peft_config) != 1:
        names = ", ".join(sorted(model.peft_config))
        raise AdapterError(
            f"the model has several adapters ({names}); delete all but one with delete_adapter()"
        )
    check_config(model.peft_config[model.active_adapter])
    if model.get_model_status().merged_adapters:
        raise AdapterError("the adapter is merged into the base; call unmerge_adapter() first")
