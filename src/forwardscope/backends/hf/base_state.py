"""The state of a base model, to bring back after an adapter was attached to it.

Attaching an adapter replaces modules, wraps embeddings, resizes the vocabulary, sets values of
parameters and changes configs. `restore` undoes all of it: each module gets its own attributes
again, each tensor its own memory, each config its own values. What cannot be undone is a write
into the memory of a weight; `damage` finds it by the sums of all weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers

__all__ = ["BaseState"]

_CONTAINERS: Final = (dict, list, set)
_CONFIGS: Final = (transformers.PretrainedConfig, transformers.GenerationConfig)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A parameter or buffer.

    Attributes:
        name: Its name in the model.
        tensor: The object.
        data: Its memory.
        requires_grad: Whether it has gradients.
        total: The sum of its bits.
    """

    name: str
    tensor: torch.Tensor
    data: torch.Tensor
    requires_grad: bool
    total: int


class BaseState:
    """The state of a model at the time at which this object is made.

    Args:
        model: The model, on its device and without an adapter.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules = [(one, type(one), _copied(vars(one))) for one in model.modules()]
        self._configs = [(one, copy.deepcopy(_without_configs(one))) for one in _configs(model)]
        self._tensors = [
            _Tensor(name, one, one.data, one.requires_grad, _sum_of(one.data))
            for name, one in _named_tensors(model)
        ]

    def restore(self) -> None:
        """Give the model its state again."""
        for module, kind, attributes in self._modules:
            module.__class__ = kind  # a parametrised module has another
            vars(module).clear()
            vars(module).update(_copied(attributes))
        for config, values in self._configs:
            own = {key: one for key, one in vars(config).items() if isinstance(one, _CONFIGS)}
            vars(config).clear()
            vars(config).update(copy.deepcopy(values) | own)
        for one in self._tensors:
            one.tensor.data = one.data
            one.tensor.grad = None
            one.tensor.requires_grad_(one.requires_grad)

    def damage(self) -> str | None:
        """Return the name of a weight whose values are not those of before; None if all are."""
        return next((one.name for one in self._tensors if _sum_of(one.data) != one.total), None)


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes with containers of their own, whose items are the same objects."""
    return {
        name: copy.copy(value) if isinstance(value, _CONTAINERS) else value
        for name, value in attributes.items()
    }


def _configs(model: torch.nn.Module) -> Iterator[Any]:
    """Yield each config of the modules, and the configs inside, once."""
    left = [one for module in model.modules() for one in vars(module).values()]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if isinstance(one, _CONFIGS) and id(one) not in seen:
            seen.add(id(one))
            left += vars(one).values()
            yield one


def _without_configs(config: Any) -> dict[str, Any]:
    return {key: one for key, one in vars(config).items() if not isinstance(one, _CONFIGS)}


def _named_tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _sum_of(data: torch.Tensor) -> int:
    """Return the sum of a tensor's bits, as whole numbers of eight bytes where it has them."""
    raw = data.detach().contiguous().reshape(-1).view(torch.uint8)
    try:
        return int(raw.view(torch.int64).sum())
    except RuntimeError:  # another size or place in memory
        return int(raw.sum(dtype=torch.int64))
