"""Backend for a base model and a fully fine-tuned one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Final

import torch

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.checkpoints import check_finite
from forwardscope.backends.hf.common import CommonBackend
from forwardscope.backends.hf.forward import Exactness, Forward
from forwardscope.backends.hf.origin import Origin
from forwardscope.backends.hf.placement import Placement
from forwardscope.backends.hf.view_identity import Reading, ViewParts, parts_of_pair
from forwardscope.backends.views import BASE, FINETUNED, CachedView
from forwardscope.errors import ModelError
from forwardscope.instrumentation import BackendInstrumentation

__all__ = ["HFPairBackend"]

_REFUSED: Final = MappingProxyType(
    {
        "scaled": "a full fine-tune has no adapter to scale",
        "null": "a full fine-tune has no adapter, so it has no random counterpart",
    }
)


class HFPairBackend(CommonBackend):
    """Two transformers models, a base and its full fine-tune; implements `Backend`.

    The weights of both are in memory; where both do not fit the device, one of them is
    in the CPU's. One view is open at a time. Any number of threads can use it; forward
    calls run one at a time.

    Args:
        base: The base model. It is set to eval mode.
        tuned: The fine-tuned model. It is set to eval mode.
        tokenizer: Tokenizer of both.
        instrumentation: Caches, counts and traces lookups; a new one by default.
        exactness: As in `HFBackend`.
        origin: What the models were loaded from, and their warnings.
        device: The device to compute on; by default that of the base.
        one_at_a_time: Keep one model on the device, also where both fit.
        check: As in `HFBackend`.

    Raises:
        ModelError: The models are of different architectures, or one has NaN or
            infinite weights.
    """

    def __init__(
        self,
        base: Any,
        tuned: Any,
        tokenizer: Any,
        *,
        instrumentation: BackendInstrumentation | None = None,
        exactness: Exactness = "fast",
        origin: Origin | None = None,
        device: torch.device | None = None,
        one_at_a_time: bool = False,
        check: bool = True,
    ) -> None:
        _check_architectures(base, tuned)
        check_finite("base model", base)
        check_finite("tuned model", tuned)
        self._placement = Placement((base, tuned), device or base.device, one_at_a_time)
        self._base = Forward(base.eval(), tokenizer, exactness)
        self._tuned = Forward(tuned.eval(), tokenizer, exactness, self._base.lock)
        super().__init__([self._base, self._tuned], instrumentation, origin)
        for forward in (self._tuned, self._base):  # the base is used first
            if check:
                with self._placement.of(forward.model):
                    forward.check()
            else:
                forward.skip_check()
        self._placement.moves = 0
        self._identify_views()

    @property
    def base_first(self) -> bool:
        """Whether one model is on the device at a time, so that a run asks the base first."""
        return self._placement.one_at_a_time

    @property
    def moves(self) -> int:
        """How often another model was moved to the device."""
        return self._placement.moves

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results should know about what was loaded."""
        if not self.base_first:
            return super().warnings
        return [
            *super().warnings,
            f"the base and the tuned model are on device {self.device} one at a time",
        ]

    @property
    def refused_views(self) -> Mapping[str, str]:
        """The reason why scaled and null views are not defined."""
        return _REFUSED

    @property
    def optimisations(self) -> Mapping[str, str]:
        """`on`, `on (limit)` or `off (reason)` for prefix sharing and padded batches.

        Where the two models differ, it is the state with fewer optimised prompts.
        """
        base, tuned = self._base.optimisations, self._tuned.optimisations
        return {name: max(base[name], tuned[name], key=_restriction) for name in base}

    def as_base(self) -> AbstractContextManager[CachedView]:
        """Open the base model."""
        return self._view(BASE, self._base, self._placement.of)

    def as_finetuned(self) -> AbstractContextManager[CachedView]:
        """Open the fine-tuned model."""
        return self._view(FINETUNED, self._tuned, self._placement.of)

    def _compute_parts(self, reading: Reading) -> ViewParts:
        return parts_of_pair(self._base.model, self._tuned.model, self._origin, reading)


def _restriction(state: str) -> int:
    """Return 0 for `on`, 1 for `on (limit)` and 2 for `off (reason)`."""
    return 2 if state.startswith("off") else int(state != "on")


def _check_architectures(base: Any, tuned: Any) -> None:
    first, second = _architecture(base), _architecture(tuned)
    if first != second:
        raise ModelError(
            f"the tuned model is a {second} and the base a {first}, so it was not trained from "
            "this base; give the base that it was trained from"
        )


def _architecture(model: Any) -> str:
    """Describe what training does not change. Classes and prefixes may differ."""
    config = compat.text_config(model)
    layers, width = (getattr(config, name, "?") for name in ("num_hidden_layers", "hidden_size"))
    return f"{config.model_type} of {layers} layers and width {width}"
