"""Calls of any torch module or callable: counted and traced, and cached on request.

    model = instrument(model, identity="content", cache=True)
    with torch.no_grad():
        model(input_ids)  # a forward pass
        model(input_ids)  # a hit: the same values, bit for bit
    print(calls_of(model).instrumentation.stats, calls_of(model).bypasses)

A call is cached where its result depends on nothing but what its key holds: the module's
identity, the content of the arguments, and the settings of torch. Every other call runs as it
would without this module, and is counted with the reason. Under grad mode nothing is cached.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, overload

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.integrations.torch_module_calls import InstrumentedCalls
from forwardscope.integrations.torch_module_code import MARK
from forwardscope.integrations.torch_module_content import UnknownContentError
from forwardscope.integrations.torch_module_identity import ModuleIdentity

__all__ = ["InstrumentedCalls", "calls_of", "instrument", "uninstrument"]

_MAX_BYTES: Final = 2**30

T = TypeVar("T", bound=Callable[..., Any])
#: What identifies a module or callable; see `instrument`.
Identity = str | Callable[[], str | None] | None


@overload
def instrument(
    target: T,
    *,
    identity: Identity = None,
    name: str | None = None,
    instrumentation: BackendInstrumentation | None = None,
    cache: bool = False,
    max_bytes: int | None = None,
) -> T: ...
@overload
def instrument(
    target: None = None,
    *,
    identity: Identity = None,
    name: str | None = None,
    instrumentation: BackendInstrumentation | None = None,
    cache: bool = False,
    max_bytes: int | None = None,
) -> Callable[[T], T]: ...
def instrument(
    target: Any = None,
    *,
    identity: Identity = None,
    name: str | None = None,
    instrumentation: BackendInstrumentation | None = None,
    cache: bool = False,
    max_bytes: int | None = None,
) -> Any:
    """Count and trace the calls of a torch module or callable, and cache them on request.

    A module gets a class of the same name whose `__call__` is this one; parameters, hooks,
    gradients and `state_dict` stay as they are. A deep copy and the replicas of `DataParallel`
    are instrumented as well; a pickled module is not. Safe under threads.

    Args:
        target: A module, which is changed and returned, or another callable, for which a
            wrapper is returned. Without it the result is a decorator.
        identity: What identifies the target, for the cache and a store: `"content"`, the
            content of a module, read again whenever it changes; another text, such as a
            version, which for a module holds until its weights change; a function that
            returns such a text, or None where calls must not be cached. In a store a text
            stands for the target in all processes, so it must change with it.
        name: Name in counts and spans; by default that of the class or function. In place of
            `_`, which separates a view's parameter, it has `-`.
        instrumentation: Caches, counts and traces; give it a store to keep results. By
            default one with a cache in memory alone, of 256 results.
        cache: Whether calls may be answered from the cache.
        max_bytes: The most bytes of results to keep in memory, by default 1 GiB. An
            `instrumentation` has a bound of its own.

    Raises:
        ValueError: The target is instrumented already, is cached without an identity, has
            both a bound and an instrumentation, or is a lazy module that was never called.
        TypeError: The target is a class, or is no module and has no content.
    """
    if target is None:
        return functools.partial(
            instrument,
            identity=identity,
            name=name,
            instrumentation=instrumentation,
            cache=cache,
            max_bytes=max_bytes,
        )
    if isinstance(target, type) or not callable(target):
        raise TypeError(f"instrument a module or function, not {target!r}")
    if _found(target) is not None:
        raise ValueError("this is instrumented already; call uninstrument before")
    if _is_unmade(target):
        raise ValueError("a lazy module gets its class at its first call; call it once before")
    if cache and identity is None:
        raise ValueError('a cache needs an identity, such as identity="content" for a module')
    if instrumentation is not None and max_bytes is not None:
        raise ValueError("give max_bytes, or an instrumentation with cache_max_bytes")
    module = target if isinstance(target, torch.nn.Module) else None
    if module is None and identity == "content":
        raise TypeError("only a module has a content; give a version of the function as identity")
    given = type(target).__name__ if module is not None else _name_of(target)
    name = (name or given).replace("_", "-")
    if instrumentation is None:
        bound = _MAX_BYTES if max_bytes is None else max_bytes
        instrumentation = BackendInstrumentation(name=name, cache_max_bytes=bound)
    identify = _identity(identity, target) if cache else None
    calls = InstrumentedCalls(name, identify, instrumentation)
    if module is None:
        return _wrapped(target, calls)
    module.__class__ = _subclass(type(module), calls)
    return module


def uninstrument(target: Any) -> Any:
    """Return a module, or the callable that was wrapped, as it was before `instrument`.

    Raises:
        ValueError: It is not instrumented, or something else has changed its class since.
    """
    if MARK in vars(type(target)):
        target.__class__ = type(target).__base__
        return target
    if MARK in getattr(target, "__dict__", {}) and not isinstance(target, torch.nn.Module):
        return target.__wrapped__
    raise ValueError(f"this {type(target).__name__} is not instrumented, or was changed since")


def calls_of(target: Any) -> InstrumentedCalls:
    """Return the calls of an instrumented module or callable.

    Raises:
        ValueError: It is not instrumented.
    """
    found = _found(target)
    if found is None:
        raise ValueError(f"this {type(target).__name__} is not instrumented")
    return found


def _is_unmade(target: Any) -> bool:
    """Return whether it is a lazy module that was never called."""
    return isinstance(target, LazyModuleMixin) and any(
        map(is_lazy, torch.nn.Module.parameters(target))  # type: ignore[arg-type]
    )


def _identity(identity: Identity, target: Any) -> Callable[[Any], str]:
    """Return the function that identifies a target at each call.

    A text is that of one class or function: others may have the same version.
    """
    named = target if hasattr(target, "__qualname__") else type(target)
    place = f"{named.__module__}.{named.__qualname__}"
    if isinstance(identity, str):
        if not isinstance(target, torch.nn.Module):
            return lambda _: f"{place} {identity}"
        text = None if identity == "content" else f"{place} {identity}"
        return ModuleIdentity(target, text).of

    def called(_: Any) -> str:
        found = identity() if identity is not None else None
        if found is None:
            raise UnknownContentError("its identity is not known")
        return f"{place} {found}"

    return called


def _found(target: Any) -> InstrumentedCalls | None:
    found = getattr(target, MARK, None)
    return found if isinstance(found, InstrumentedCalls) else None


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _wrapped(function: Any, calls: InstrumentedCalls) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return calls.call(function, functools.partial(function, *args, **kwargs), args, kwargs)

    setattr(wrapper, MARK, calls)
    return wrapper


def _subclass(original: type[torch.nn.Module], calls: InstrumentedCalls) -> type[torch.nn.Module]:
    """Return a class for instrumented modules of a class, with its name.

    A class, not a method of one module, so that copies call their own module's forward.
    """

    def call(self: torch.nn.Module, /, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # what torch.compile traces is the module's own code
            return original.__call__(self, *args, **kwargs)
        compute = functools.partial(original.__call__, self, *args, **kwargs)
        return calls.call(self, compute, args, kwargs)

    def deepcopy(self: torch.nn.Module, memo: dict[int, Any]) -> torch.nn.Module:
        if (own := getattr(original, "__deepcopy__", None)) is not None:
            return own(self, memo)  # type: ignore[no-any-return]
        new = memo[id(self)] = type(self).__new__(type(self))
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))  # type: ignore[no-untyped-call]
        return new

    def reduce(self: torch.nn.Module, _: Literal[0, 1, 2, 3, 4, 5]) -> tuple[Any, ...]:
        state = self.__getstate__()  # type: ignore[no-untyped-call]
        return object.__new__, (original,), state

    members = {
        MARK: calls,
        "__call__": functools.wraps(original.__call__)(call),
        "__deepcopy__": deepcopy,
        "__reduce_ex__": reduce,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": inspect.getdoc(original),
    }
    return type(original.__name__, (original,), members)
