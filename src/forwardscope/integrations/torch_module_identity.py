"""The identity of a torch module: its content, or a text that holds while its weights stay.

The content is the classes of all parts with their source files, their plain attributes, and
parameters and buffers. Those are digested again only if a change of them was counted.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, TypeGuard

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
from forwardscope.integrations.torch_module_state import (
    MODULE_ATTRIBUTES,
    TensorState,
    count_steps,
    packed_weights_of,
    tensors_of,
)

__all__ = ["ModuleIdentity"]

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
                if key not in MODULE_ATTRIBUTES:
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


class ModuleIdentity:
    """Identity of a module by its content, or by a text that holds while its weights stay.

    Args:
        module: The module, as it is now.
        text: What identifies it as it is now; None for its content.
    """

    def __init__(self, module: torch.nn.Module, text: str | None) -> None:
        count_steps()
        self._text: Final = text
        self._state: TensorState | None = None
        self._packed: Final = packed_weights_of(module)
        if text is not None:
            with suppress(UnknownContentError):
                self._state = TensorState.of(tensors_of(module))
        self._known: tuple[list[str], TensorState, str] | None = None

    def of(self, module: torch.nn.Module) -> str:
        """Return the identity of the module, or of a copy of it, as it is now.

        Raises:
            UnknownContentError: It has none.
        """
        if self._text is not None:
            if self._state is None or not self._is_as_it_was(self._state, module):
                raise UnknownContentError("the weights are not those that the identity is of")
            return self._text
        content, known = _ModuleContent(module), self._known  # another thread may replace it
        if known is not None and known[0] == content.structure and known[1].is_of(content.tensors):
            return known[2]
        state = TensorState.of(content.tensors)  # before the digest, to show a change meanwhile
        found = content.digest()
        self._known = content.structure, state, found
        return found

    def _is_as_it_was(self, state: TensorState, module: torch.nn.Module) -> bool:
        packed = packed_weights_of(module)
        return (
            state.is_of(tensors_of(module))
            and len(packed) == len(self._packed)
            and all(one is other for one, other in zip(packed, self._packed, strict=True))
        )


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
