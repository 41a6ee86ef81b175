"""The content of a torch call's arguments, and of the settings that it is made with.

Content is a structure, a list of short texts, and the tensors that it refers to. What has no
content that is known here raises `UnknownContentError`: a call with it has no key.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from hashlib import sha256
from itertools import chain
from typing import Any, Final

import torch
from torch.autograd import forward_ad

from forwardscope.backends.hf.environment import environment

__all__ = [
    "PLAIN",
    "Content",
    "UnknownContentError",
    "digest",
    "is_model_output",
    "settings",
]

#: Types whose `repr` is their content.
PLAIN: Final = frozenset((bool, int, float, complex, str, bytes, type(None))) | frozenset(
    (torch.dtype, torch.device, torch.layout, torch.memory_format)
)
_TENSORS: Final = frozenset((torch.Tensor, torch.nn.Parameter))
_SEQUENCES: Final = frozenset((tuple, list, torch.Size))
_HALF: Final = 0.5
_CHARACTERS: Final = 32  # of a digest; 128 bits


class UnknownContentError(Exception):
    """What has no content that is known; the message says what, without its value."""


class Content:
    """The content of plain values, tensors, and nested tuples, lists and dicts of them.

    Attributes:
        structure: All but what the tensors hold.
        tensors: The tensors, in order.
    """

    def __init__(self) -> None:
        self.structure: list[str] = []
        self.tensors: list[torch.Tensor] = []

    def add(self, value: Any) -> None:
        """Add a value.

        Raises:
            UnknownContentError: It has no content that is known.
        """
        kind = type(value)
        if kind in PLAIN:
            self.structure.append(repr(value))
        elif kind in _TENSORS:
            self._add_tensor(value)
        elif kind in _SEQUENCES:
            self.structure.append(f"{kind.__name__} of {len(value)}")
            for item in value:
                self.add(item)
        elif kind is dict or is_model_output(value):
            self.structure.append(f"{kind.__module__}.{kind.__qualname__} of {len(value)}")
            for key, item in value.items():
                self.add(key)
                self.add(item)
        else:
            self.add_object(value)

    def add_object(self, value: Any) -> None:
        """Add a value of another type."""
        kind = type(value)
        raise UnknownContentError(f"{kind.__module__}.{kind.__qualname__} has no known content")

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UnknownContentError("a tensor that is sparse, quantised or without data")
        dual = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
        if dual.tangent is not None:
            raise UnknownContentError("a tensor with a forward gradient")
        # kernels may round differently by the layout of numbers, but not by that of integers
        inexact = tensor.is_floating_point() or tensor.is_complex()
        layout = tensor.stride() if inexact else ""
        kind = type(tensor).__name__
        self.structure.append(
            f"{kind} {tensor.dtype} {tuple(tensor.shape)} {layout} {tensor.device}"
        )
        self.tensors.append(tensor)

    def digest(self) -> str:
        """Return the digest of structure and tensors.

        Raises:
            UnknownContentError: A tensor cannot be read.
        """
        try:
            return digest(chain(self.structure, map(_bytes, self.tensors)))
        except (RuntimeError, TypeError) as error:
            raise UnknownContentError("a tensor that cannot be read") from error


def settings(devices: Collection[torch.device]) -> list[str]:
    """Return the settings of torch that change results, and what computes on the devices."""
    content = Content()
    for kind in sorted({"cpu", *(device.type for device in devices)}):
        content.add((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)))
    content.add((torch.get_default_dtype(), torch.get_default_device()))
    content.add(_flushes_denormals())
    for device in sorted(devices or [torch.device("cpu")], key=str):
        content.add(environment(device))
    return content.structure


def _flushes_denormals() -> bool:
    """Return whether `torch.set_flush_denormal` is in effect, which has no getter."""
    return sys.float_info.min * _HALF == 0.0


def digest(parts: Iterable[str | memoryview]) -> str:
    """Return the digest of a sequence of texts and bytes."""
    hasher = sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hasher.update(b"%d:" % len(data))
        hasher.update(data)
    return hasher.hexdigest()[:_CHARACTERS]


def is_model_output(value: Any) -> bool:
    """Return whether a value is a transformers `ModelOutput`, without importing transformers."""
    kind = getattr(sys.modules.get("transformers.utils.generic"), "ModelOutput", None)
    return kind is not None and isinstance(value, kind)


def _bytes(tensor: torch.Tensor) -> memoryview:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().data
