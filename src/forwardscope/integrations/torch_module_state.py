"""Whether a module is in a state to be cached, and its tensors are those of before.

Torch counts changes of a tensor in its version, except those by fused kernels of optimizers.
So the steps of all optimizers are counted as well, from the first module that is cached.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import suppress
from itertools import count
from typing import Any, Final, NamedTuple

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary

from forwardscope.integrations.torch_module_content import UnknownContentError

__all__ = [
    "MODULE_ATTRIBUTES",
    "TensorState",
    "check_state",
    "count_steps",
    "packed_weights_of",
    "tensors_of",
]

#: What each module has in its `__dict__`, and which of it are hooks around `forward`.
MODULE_ATTRIBUTES: Final = frozenset(vars(torch.nn.Module()))
_HOOKS: Final = tuple(
    one for one in MODULE_ATTRIBUTES if "_forward" in one and one.endswith("_hooks")
)

#: The latest step of an optimizer by the memory that it changed. Steps have numbers of their own.
_steps: Final[MutableMapping[torch.UntypedStorage, int]] = WeakIdKeyDictionary()
_numbers: Final = count(1)
_counting: Final = threading.Event()


class TensorState(NamedTuple):
    """Whether tensors are those of before: they, their memory and the counts of their changes.

    Their memory is an object, as an address is used again: `half().float()` may return to it.
    Tensors are known by their ids alone, as torch swaps none that has a weak reference.
    """

    memory: tuple[weakref.ref[Any], ...]
    facts: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, tensors: Iterable[torch.Tensor]) -> TensorState:
        """Return the state of tensors; it does not keep them alive.

        Raises:
            UnknownContentError: Changes of a tensor do not show.
        """
        tensors = list(tensors)
        if any(tensor.is_inference() for tensor in tensors):
            raise UnknownContentError("weights made in inference mode, whose changes do not show")
        try:
            memory = [tensor.untyped_storage() for tensor in tensors]
            facts = tuple(map(_facts, tensors, memory))
        except (RuntimeError, TypeError, NotImplementedError) as error:
            raise UnknownContentError("weights that are sparse or without data") from error
        return cls(tuple(map(weakref.ref, memory)), facts)

    def is_of(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Return whether the tensors are the same and unchanged."""
        tensors = list(tensors)  # alive while their state is compared
        now = TensorState.of(tensors)
        return now.facts == self.facts and all(
            one() is other() for one, other in zip(self.memory, now.memory, strict=True)
        )


def _facts(tensor: torch.Tensor, memory: torch.UntypedStorage) -> tuple[Any, ...]:
    layout = tensor.dtype, tuple(tensor.shape), tensor.stride()
    return (id(tensor), tensor.data_ptr(), tensor._version, _steps.get(memory, 0), *layout)


def count_steps() -> None:
    """Count the steps of all optimizers from now on; may be called again."""
    if not _counting.is_set():
        _counting.set()
        register_optimizer_step_post_hook(_count_step)


def _count_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Count a step for each of an optimizer's tensors."""
    number = next(_numbers)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            with suppress(Exception):  # no step fails for a tensor without memory
                _steps[parameter.untyped_storage()] = number


def check_state(module: torch.nn.Module) -> None:
    """Raise `UnknownContentError` for a module in a state in which no call is like another."""
    for part in module.modules():
        own = vars(part)
        if part.training:
            raise UnknownContentError("training mode")
        if any(own[name] for name in _HOOKS):
            raise UnknownContentError("hooks around the forward of a module")
        if own.get("_is_replica"):
            raise UnknownContentError("a replica of DataParallel")


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield parameters, buffers, and tensors in other attributes of a part.

    Those are tensors themselves, or lists, tuples and dicts of them.
    """
    yield from module.parameters()
    yield from module.buffers()
    waiting = [
        value
        for part in module.modules()
        for name, value in vars(part).items()
        if name not in MODULE_ATTRIBUTES
    ]
    seen: set[int] = set()  # a list may be in itself
    for value in waiting:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple | dict) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def packed_weights_of(module: torch.nn.Module) -> list[torch.ScriptObject]:
    """Return the packed weights of quantised parts, which are no tensors.

    A change of one puts another in its place.
    """
    attributes = (one for part in module.modules() for one in vars(part).values())
    return [one for one in attributes if isinstance(one, torch.ScriptObject)]
