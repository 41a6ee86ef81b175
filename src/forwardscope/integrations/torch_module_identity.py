"""The identity of a torch module: its content, or a text that holds while its weights stay.

The content is the classes of all parts with their source files, their plain attributes, and
parameters and buffers. Those are digested again only if torch has counted a change of them.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, NamedTuple, TypeGuard

import torch

from forwardscope.integrations.torch_module_code import (
    code_of,
    code_of_class,
    is_versioned,
    line_of,
    module_of_code,
)
from forwardscope.integrations.torch_module_content import (
    PLAIN,
    Content,
    UnknownContentError,
)

__all__ = ["ModuleIdentity", "check_state", "tensors_of"]

#: What each module has in its `__dict__`, and which of it are hooks around `forward`.
_OWN: Final = frozenset(vars(torch.nn.Module()))
_HOOKS: Final = tuple(one for one in _OWN if "_forward" in one and one.endswith("_hooks"))
#: Attribute of generation configs: a hash of Python's, which differs between processes.
_OBJECT_HASH: Final = "_original_object_hash"


class _ModuleContent(Content):
    """The content of a module: classes with their code, plain attributes, parameters, buffers."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._configurations: dict[int, int] = {}
        parts = list(module.named_modules(remove_duplicate=False))
        self._parts: dict[int, str] = {id(part): name for name, part in parts}
        for name, part in parts:
            self.structure += ("module", name, *code_of_class(type(part)))
            self._add_forward(type(part).forward)
            own = vars(part)
            for members in (own["_parameters"], own["_buffers"]):
                for key, tensor in members.items():
                    self.structure.append(key)
                    self.add(tensor)
            for key, value in own.items():
                if key not in _OWN:
                    self.structure.append(key)
                    self.add(value)

    def _add_forward(self, function: Any) -> None:
        """Add a forward, which a program may have replaced, with the functions that wrap it."""
        while (wrapped := getattr(function, "__wrapped__", None)) is not None:
            if not is_versioned(module_of_code(function)):
                raise UnknownContentError("a forward that a function of a program wraps")
            self.structure.append(f"wrapper {function.__code__.co_qualname}")
            function = wrapped
        self.add(function)

    def add_object(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, enum.Enum):
            self.structure += (*code_of_class(kind), value.name)
        elif kind in (set, frozenset) and all(type(item) in PLAIN for item in value):
            self.structure.append(f"{kind.__name__} {sorted(map(repr, value))}")
        elif isinstance(value, type):
            self.structure += code_of_class(value)
        elif _is_plain_function(value):
            self.structure += (code_of(value), value.__qualname__, line_of(value))
        elif self._is_own_method(value):
            self.structure += ("method", value.__name__, self._parts[id(value.__self__)])
        elif _is_configuration(value):
            self._add_configuration(value)
        else:
            super().add_object(value)

    def _is_own_method(self, value: Any) -> TypeGuard[MethodType]:
        """Return whether it is a method of one of the modules, as its class defines it."""
        return (
            isinstance(value, MethodType)
            and id(value.__self__) in self._parts
            and getattr(type(value.__self__), value.__name__, None) is value.__func__
        )

    def _add_configuration(self, value: Any) -> None:
        """Add an object by its attributes; the parts of a model share one."""
        is_new = id(value) not in self._configurations
        number = self._configurations.setdefault(id(value), len(self._configurations))
        self.structure += (*code_of_class(type(value)), str(number))
        if is_new:
            self.add({key: one for key, one in vars(value).items() if key != _OBJECT_HASH})


class _State(NamedTuple):
    """Whether tensors are those of before: they, their memory and the counts of their changes.

    Their memory is an object, as an address is used again: `half().float()` may return to it.
    """

    objects: tuple[weakref.ref[Any], ...]
    versions: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, tensors: Iterable[torch.Tensor]) -> _State:
        """Return the state of tensors; it refers to them weakly."""
        tensors = list(tensors)
        versions = tuple((tensor.data_ptr(), _version(tensor)) for tensor in tensors)
        memory = [tensor.untyped_storage() for tensor in tensors]
        return cls(tuple(map(weakref.ref, [*tensors, *memory])), versions)

    def is_of(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Return whether the tensors are the same and unchanged."""
        tensors = list(tensors)  # alive while their state is compared
        now = _State.of(tensors)
        same = len(now.objects) == len(self.objects) and all(
            one() is other() for one, other in zip(self.objects, now.objects, strict=True)
        )
        return same and now.versions == self.versions


class ModuleIdentity:
    """Identity of a module by its content, or by a text that holds while its weights stay.

    Args:
        module: The module, as it is now.
        text: What identifies it as it is now; None for its content.
    """

    def __init__(self, module: torch.nn.Module, text: str | None) -> None:
        self._text: Final = text
        self._state: _State | None = None
        if text is not None:
            with suppress(UnknownContentError):
                self._state = _State.of(tensors_of(module))
        self._known: tuple[list[str], _State, str] | None = None

    def of(self, module: torch.nn.Module) -> str:
        """Return the identity of the module, or of a copy of it, as it is now.

        Raises:
            UnknownContentError: It has none.
        """
        if self._text is not None:
            if self._state is None or not self._state.is_of(tensors_of(module)):
                raise UnknownContentError("the weights are not those that the identity is of")
            return self._text
        content, known = _ModuleContent(module), self._known  # another thread may replace it
        if known is not None and known[0] == content.structure and known[1].is_of(content.tensors):
            return known[2]
        state = _State.of(content.tensors)  # before the digest, so that a change meanwhile shows
        found = content.digest()
        self._known = content.structure, state, found
        return found


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


def _version(tensor: torch.Tensor) -> int:
    if tensor.is_inference():
        raise UnknownContentError("weights made in inference mode, whose changes do not show")
    return tensor._version


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()


class _Attributes:
    """A class whose objects are nothing but their attributes."""


def _is_configuration(value: Any) -> bool:
    """Return whether it is a configuration whose attributes are all that it holds.

    A dict or list that has a `to_dict` holds more.
    """
    is_one = dataclasses.is_dataclass(value) or hasattr(value, "to_dict")
    return is_one and type(value).__basicsize__ == _Attributes.__basicsize__


def _is_plain_function(value: Any) -> TypeGuard[FunctionType | BuiltinFunctionType]:
    """Return whether its module, name and line say what a function does."""
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is None or inspect.ismodule(value.__self__)
    return (
        isinstance(value, FunctionType)
        and value.__closure__ is None
        and "<" not in value.__qualname__  # a lambda, or made in a function
    )
