"""Results of torch calls that are kept: copies, handed out as copies, also from a store.

A result is a tensor, or a nested tuple, list or dict of tensors and plain values, or a
`ModelOutput` of transformers. It is kept as a template, in JSON, and the copied tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from forwardscope.integrations.torch_module_content import UnknownContentError, is_model_output
from forwardscope.store.agreement import difference
from forwardscope.store.codec import Part, RawArray, UnknownValueError, register

__all__ = ["Kept", "keep"]

_PLAIN: Final = frozenset((bool, int, float, str, type(None)))
_SEQUENCES: Final[dict[type, str]] = {tuple: "tuple", list: "list"}


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A copy of a result.

    Attributes:
        template: The result in JSON, with positions in place of tensors and classes.
        tensors: The tensors, which share no memory with what callers have.
        devices: Where each tensor is handed out.
        kinds: The classes of its model outputs.
        reason: Why there is no copy; None where there is one.
    """

    template: str = "null"
    tensors: tuple[torch.Tensor, ...] = ()
    devices: tuple[str, ...] = ()
    kinds: tuple[type, ...] = ()
    reason: str | None = None

    def copy(self) -> Any:
        """Return the result, with tensors of its own."""
        pairs = zip(self.tensors, self.devices, strict=True)
        copies = [tensor.to(device, copy=True) for tensor, device in pairs]
        return _built(json.loads(self.template), copies, self.kinds)


def keep(result: Any, others: Sequence[torch.Tensor]) -> Kept:
    """Return a copy of a result.

    Args:
        result: The result.
        others: Arguments and weights; a tensor that shares memory with one of them is a view,
            which no copy can replace.

    Raises:
        UnknownContentError: It cannot be copied exactly.
    """
    copy = _Copy(others)
    template = json.dumps(copy.node(result), ensure_ascii=False)  # escapes would join surrogates
    devices = tuple(str(tensor.device) for tensor in copy.tensors)
    return Kept(template, tuple(copy.tensors), devices, tuple(copy.kinds))


class _Copy:
    """Copies the tensors of one result. A tensor that occurs twice is copied once."""

    def __init__(self, others: Sequence[torch.Tensor]) -> None:
        self.tensors: list[torch.Tensor] = []
        self.kinds: list[type] = []
        self._memory = {_memory(tensor) for tensor in others if tensor.numel()}
        self._seen: dict[int, int] = {}

    def node(self, value: Any) -> Any:
        """Return the template of a value."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is torch.Tensor:
            return {"tensor": self._position(value)}
        if (name := _SEQUENCES.get(kind)) is not None:
            return {name: [self.node(item) for item in value]}
        if kind is dict:
            return {"dict": self._items(value)}
        if is_model_output(value):
            self.kinds.append(kind)
            return {"output": len(self.kinds) - 1, "items": self._items(value)}
        raise UnknownContentError(f"its result has a {kind.__module__}.{kind.__qualname__}")

    def _items(self, value: Any) -> list[Any]:
        return [[self.node(key), self.node(item)] for key, item in value.items()]

    def _position(self, tensor: torch.Tensor) -> int:
        known = self._seen.get(id(tensor))
        if known is not None:
            return known
        if tensor.requires_grad:
            raise UnknownContentError("its result has gradients")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UnknownContentError("its result is sparse, quantised or without data")
        if tensor.numel():
            memory = _memory(tensor)
            if memory in self._memory:
                raise UnknownContentError("its result shares memory")
            self._memory.add(memory)
        self._seen[id(tensor)] = len(self.tensors)
        self.tensors.append(tensor.detach().resolve_conj().resolve_neg().clone())
        return self._seen[id(tensor)]


def _memory(tensor: torch.Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def _built(node: Any, tensors: Sequence[torch.Tensor], kinds: Sequence[type]) -> Any:
    """Return the value of a template."""
    if not isinstance(node, dict):
        return node

    def built(inner: Any) -> Any:
        return _built(inner, tensors, kinds)

    kind, content = next(iter(node.items()))
    makers: dict[str, Callable[[], Any]] = {
        "tensor": lambda: tensors[content],
        "tuple": lambda: tuple(map(built, content)),
        "list": lambda: list(map(built, content)),
        "dict": lambda: {built(key): built(item) for key, item in content},
        "output": lambda: kinds[content](**{key: built(item) for key, item in node["items"]}),
    }
    return makers[kind]()


@difference.register
def _of_kept(stored: Kept, computed: Kept) -> float:
    """Return 0.0 for results that are equal bit for bit, else inf."""
    return 0.0 if _parts(stored) == _parts(computed) else float("inf")


def _parts(kept: Kept) -> list[Part]:
    """Return a kept result for the store."""
    if kept.reason is not None:
        raise UnknownValueError(kept.reason)
    described = [
        [str(tensor.dtype).removeprefix("torch."), tensor.shape, tensor.stride(), device]
        for tensor, device in zip(kept.tensors, kept.devices, strict=True)
    ]
    names = [kind.__name__ for kind in kept.kinds]
    if tuple(map(_output_class, names)) != kept.kinds:
        raise UnknownValueError("an output of a model that is none of transformers' own")
    return [kept.template, json.dumps([names, described]), *map(_raw, kept.tensors)]


def _raw(tensor: torch.Tensor) -> RawArray:
    data = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return RawArray("|u1", (len(data),), data)


def _kept(template: str, described: str, *raws: RawArray) -> Kept:
    """Return what `_parts` described, with its tensors in the memory of the CPU."""
    names, tensors = json.loads(described)
    kinds = tuple(filter(None, map(_output_class, names)))
    pairs = zip(tensors, raws, strict=True)
    made = tuple(_tensor(raw.data, *one[:3]) for one, raw in pairs)
    _built(json.loads(template), made, kinds)  # raises for a template of other tensors
    return Kept(template, made, tuple(str(one[3]) for one in tensors), kinds)


def _tensor(data: bytes, dtype: str, shape: list[int], stride: list[int]) -> torch.Tensor:
    kind = getattr(torch, dtype)
    tensor = torch.empty_strided(shape, stride, dtype=kind, device="cpu")
    if data:
        flat = torch.frombuffer(bytearray(data), dtype=kind)
        tensor.copy_(flat.reshape(shape))
    return tensor


def _output_class(name: str) -> type | None:
    """Return one of transformers' own classes of outputs; None if it has none of that name."""
    try:
        from transformers import modeling_outputs  # noqa: PLC0415 - only where a result has one
    except ImportError:
        return None
    found = vars(modeling_outputs).get(name)
    return found if isinstance(found, type) else None


register("torch", Kept, _parts, _kept)
