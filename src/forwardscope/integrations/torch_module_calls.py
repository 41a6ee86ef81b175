"""The calls of an instrumented torch module or callable: answered from a cache, or bypassing it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from forwardscope.core.forks import reset_in_children
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.torch_module_content import (
    Content,
    UnknownContentError,
    digest,
    settings,
)
from forwardscope.integrations.torch_module_state import check_state, tensors_of
from forwardscope.integrations.torch_module_values import Kept, keep

__all__ = ["InstrumentedCalls"]

_OP: Final = "forward"
#: Raise it where the content of keys or of stored results changes its meaning.
_FORMAT: Final = "torch_module 1"


class _Lookup(NamedTuple):
    """What determines the result of a call.

    Attributes:
        view: The target with its identity.
        key: The digest of identity and arguments.
        tensors: Arguments and weights.
    """

    view: str
    key: str
    tensors: list[torch.Tensor]


class InstrumentedCalls:
    """The calls of one instrumented target, and of the copies of a module. Safe under threads.

    Attributes:
        name: Name of the target in counts and spans.
        instrumentation: Caches, counts and traces.
    """

    def __init__(
        self,
        name: str,
        identity: Callable[[Any], str] | None,
        instrumentation: BackendInstrumentation,
    ) -> None:
        self.name: Final = name
        self.instrumentation: Final = instrumentation
        self._identity: Final = identity
        self.after_fork()
        self._bypasses: Counter[str] = Counter()
        self._refusal: str | None = None
        instrumentation.identify_views(_identity_of_view, 0.0, _described)
        reset_in_children(self)

    def after_fork(self) -> None:
        """Make a lock that no thread holds; a signal handler may read what its thread counts."""
        self._lock = threading.RLock()

    @property
    def bypasses(self) -> Mapping[str, int]:
        """How many calls bypassed the cache, by the reason."""
        with self._lock:
            return dict(self._bypasses)

    def call(
        self, target: Any, compute: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Answer one call from the cache, or with `compute`.

        Args:
            target: The module or callable.
            compute: Makes the call.
            args: Its arguments by position.
            kwargs: Its arguments by name.
        """
        try:
            lookup = self._lookup(target, args, kwargs)
        except UnknownContentError as reason:
            return self._bypass(str(reason), compute)
        computed = []

        def compute_kept() -> Kept:
            before = _random_state()
            computed.append(_compute_anew(compute))
            try:
                if any(map(_differ, before, _random_state())):
                    raise UnknownContentError("it draws random numbers")
                if self._lookup(target, args, kwargs)[:2] != lookup[:2]:
                    raise UnknownContentError("it changes its arguments or its module")
                return keep(computed[-1], lookup.tensors)
            except UnknownContentError as error:
                self._refusal = str(error)
            except Exception as error:  # noqa: BLE001 - no call fails for its cache
                self._refusal = f"its result cannot be copied: {type(error).__name__}"
            return Kept(reason=self._refusal)

        kept = self.instrumentation.cached(_OP, *lookup[:2], 0, compute_kept)
        if computed:
            return computed[-1]
        if kept.reason is not None:
            return self._bypass(kept.reason, compute)
        return kept.copy()

    def _lookup(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Lookup:
        """Return the lookup of a call; `UnknownContentError` if it must not be cached."""
        if self._identity is None:
            raise UnknownContentError("no cache was requested")
        if torch.is_grad_enabled():
            raise UnknownContentError("gradients are enabled")
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise UnknownContentError("torch.jit traces it")
        if _is_observed():
            raise UnknownContentError("a mode of torch or a hook on all modules is active")
        if _is_captured():
            raise UnknownContentError("a CUDA graph captures it")
        if self._refusal is not None:
            raise UnknownContentError(self._refusal)
        try:
            if isinstance(target, torch.nn.Module):
                check_state(target)
            content = Content()
            content.add((args, kwargs))
            tensors = [*content.tensors, *_weights_of(target)]
            used = settings({tensor.device for tensor in tensors})
            identity = digest([_FORMAT, self._identity(target), *used])
            key = digest([identity, content.digest()])
        except UnknownContentError:
            raise
        except Exception as error:
            reason = f"content that cannot be read: {type(error).__name__}"
            raise UnknownContentError(reason) from error
        return _Lookup(f"{self.name}_{identity}", key, tensors)

    def _bypass(self, reason: str, compute: Callable[[], Any]) -> Any:
        with self._lock:
            self._bypasses[reason] += 1
            number = self._bypasses.total()
        # without a key, no call is shown as a repetition of another
        return self.instrumentation.uncached(_OP, self.name, f"call {number}", 0, compute)


def _identity_of_view(view_id: str) -> str | None:
    """Return the identity that a view's id ends with; a name alone has none."""
    return view_id.partition("_")[2] or None


def _described(view_id: str) -> Mapping[str, str]:
    return {"module": view_id.partition("_")[0]}


def _compute_anew(compute: Callable[[], Any]) -> Any:
    """Compute a result without the casts that autocast has kept, which may be of older weights."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        return compute()
    finally:
        torch.set_autocast_cache_enabled(enabled)


def _is_observed() -> bool:
    """Return whether a program sees, or changes, the operations of each call.

    A default device is also a mode, and part of the key.
    """
    modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return (
        any(type(mode) is not DeviceContext for mode in modes)
        or bool(_get_current_dispatch_mode_stack())
        or bool(_has_any_global_hook())  # type: ignore[no-untyped-call]
    )


def _is_captured() -> bool:
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()


def _random_state() -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    return states


def _differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    return not torch.equal(one, other)


def _weights_of(target: Any) -> Iterable[torch.Tensor]:
    return tensors_of(target) if isinstance(target, torch.nn.Module) else ()
