"""What determines the result of a torch call: the content of its arguments and of its module.

Content is a structure, a list of short texts, and the tensors that it refers to. What has no
content that is known here raises `UnknownContentError`: a call with it has no key.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import uuid
import weakref
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final, NamedTuple, TypeGuard

import torch

from forwardscope.backends.hf.environment import environment

__all__ = [
    "MARK",
    "Content",
    "ModuleIdentity",
    "UnknownContentError",
    "argument_digest",
    "check_state",
    "digest",
    "is_model_output",
]

#: Attribute of the classes of instrumented modules.
MARK: Final = "_forwardscope_calls"
_PLAIN: Final = frozenset((bool, int, float, complex, str, bytes, type(None))) | frozenset(
    (torch.dtype, torch.device, torch.layout, torch.memory_format)
)
_TENSORS: Final = frozenset((torch.Tensor, torch.nn.Parameter))
_SEQUENCES: Final = frozenset((tuple, list, torch.Size))
#: What each module has in its `__dict__`, and which of it are hooks around `forward`.
_OWN: Final = frozenset(vars(torch.nn.Module()))
_HOOKS: Final = tuple(one for one in _OWN if "_forward" in one and one.endswith("_hooks"))
#: Packages whose code the environment identifies by its version.
_VERSIONED: Final = frozenset(("builtins", "collections", "torch", "transformers"))
_AUTOCAST: Final = ("cpu", "cuda", "mps", "xpu")
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
        if kind in _PLAIN:
            self.structure.append(f"{kind.__name__} {value!r}")
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
        # kernels may round differently by the layout of numbers, but not by that of integers
        inexact = tensor.is_floating_point() or tensor.is_complex()
        layout = tensor.stride() if inexact and not tensor.is_contiguous() else ""
        self.structure.append(f"{tensor.dtype} {tuple(tensor.shape)} {layout} {tensor.device}")
        self.tensors.append(tensor)

    def digest(self) -> str:
        """Return the digest of structure and tensors.

        Raises:
            UnknownContentError: A tensor cannot be read.
        """
        try:
            contents = [_bytes(tensor) for tensor in self.tensors]
        except (RuntimeError, TypeError) as error:
            raise UnknownContentError("a tensor that cannot be read") from error
        return digest([*self.structure, *contents])


class _ModuleContent(Content):
    """The content of a module: classes with their code, plain attributes, parameters, buffers."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._configurations: dict[int, int] = {}
        parts = list(module.named_modules(remove_duplicate=False))
        self._parts: dict[int, str] = {id(part): name for name, part in parts}
        for name, part in parts:
            self.structure += ("module", name, *_code_of_class(type(part)))
            own = vars(part)
            for members in (own["_parameters"], own["_buffers"]):
                for key, tensor in members.items():
                    self.structure.append(key)
                    self.add(tensor)
            for key, value in own.items():
                if key not in _OWN:
                    self.structure.append(key)
                    self.add(value)

    def add_object(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, enum.Enum):
            self.structure += (*_code_of_class(kind), value.name)
        elif kind in (set, frozenset) and all(type(item) in _PLAIN for item in value):
            self.structure.append(f"{kind.__name__} {sorted(map(repr, value))}")
        elif isinstance(value, type):
            self.structure += _code_of_class(value)
        elif _is_plain_function(value):
            self.structure += (_code(value), value.__qualname__, _line(value))
        elif self._is_own_method(value):
            self.structure += ("method", value.__name__, self._parts[id(value.__self__)])
        elif dataclasses.is_dataclass(value) or hasattr(value, "to_dict"):  # a configuration
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
        self.structure += (*_code_of_class(type(value)), str(number))
        if is_new:
            self.add(dict(vars(value)))


class _State(NamedTuple):
    """Whether tensors are those of before: they, their memory and the counts of their changes."""

    tensors: tuple[weakref.ref[torch.Tensor], ...]
    versions: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, tensors: Iterable[torch.Tensor]) -> _State:
        """Return the state of tensors; it refers to them weakly."""
        tensors = list(tensors)
        if any(tensor.is_inference() for tensor in tensors):
            raise UnknownContentError("weights made in inference mode, whose changes do not show")
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
        return cls(tuple(map(weakref.ref, tensors)), versions)

    def is_of(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Return whether the tensors are the same and unchanged."""
        now = _State.of(tensors)
        same = len(now.tensors) == len(self.tensors) and all(
            one() is other() for one, other in zip(self.tensors, now.tensors, strict=True)
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
        self._state = _State.of(_weights(module)) if text is not None else None
        self._known: tuple[list[str], _State, str] | None = None

    def of(self, module: torch.nn.Module) -> str:
        """Return the identity of the module, or of a copy of it, as it is now.

        Raises:
            UnknownContentError: It has none.
        """
        if self._state is not None and self._text is not None:
            if not self._state.is_of(_weights(module)):
                raise UnknownContentError("the weights are not those that the identity is of")
            return self._text
        content, known = _ModuleContent(module), self._known  # another thread may replace it
        if known is not None and known[0] == content.structure and known[1].is_of(content.tensors):
            return known[2]
        state, found = _State.of(content.tensors), content.digest()
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


def argument_digest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, str, Content]:
    """Return what else determines a result: of the arguments, and of the settings of torch.

    Returns:
        The digest of the arguments and autocast; that of the environment of their devices;
        the content of the arguments.
    """
    content = Content()
    content.add(args)
    content.add(kwargs)
    content.add([(one, torch.is_autocast_enabled(one)) for one in _AUTOCAST])
    content.add([torch.get_autocast_dtype(one) for one in _AUTOCAST])
    content.add(torch.get_default_dtype())
    devices = {tensor.device for tensor in content.tensors} or {torch.device("cpu")}
    settings = [f"{one}" for device in devices for one in environment(device).items()]
    return content.digest(), digest(sorted(settings)), content


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


def _weights(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _bytes(tensor: torch.Tensor) -> memoryview:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().data


def _is_plain_function(value: Any) -> TypeGuard[FunctionType | BuiltinFunctionType]:
    """Return whether its module, name and line say what a function does."""
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is None or inspect.ismodule(value.__self__)
    return (
        isinstance(value, FunctionType)
        and value.__closure__ is None
        and "<" not in value.__qualname__  # a lambda, or made in a function
    )


def _line(function: FunctionType | BuiltinFunctionType) -> str:
    return str(getattr(getattr(function, "__code__", None), "co_firstlineno", ""))


def _code_of_class(kind: type) -> Iterator[str]:
    """Yield what a class and its bases are, without the class of an instrumented module."""
    for base in kind.__mro__:
        if MARK not in vars(base):
            yield f"class {base.__module__}.{base.__qualname__}"
            yield _code(base)


_codes: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def _code(thing: Any) -> str:
    """Return what identifies the code of a class or function: the digest of its source file.

    That of a package with a version in the environment is empty. What has no file, as in a
    notebook, has an identity of its own that no other process shares.
    """
    if (thing.__module__ or "torch").partition(".")[0] in _VERSIONED:
        return ""
    known = _codes.get(thing)
    if known is None:
        try:
            if _is_typed_in(thing):
                raise OSError
            source = Path(inspect.getsourcefile(thing) or "").read_bytes()
            known = sha256(source).hexdigest()
        except (OSError, TypeError):
            known = uuid.uuid4().hex
        _codes[thing] = known
    return known


def _is_typed_in(thing: Any) -> bool:
    """Return whether a class has methods of no file, though its module may have one."""
    methods = filter(inspect.isfunction, vars(thing).values()) if isinstance(thing, type) else ()
    return any(inspect.unwrap(one).__code__.co_filename.startswith("<") for one in methods)
