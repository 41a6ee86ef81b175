"""What identifies the code of a module: its classes and functions, by their source files.

A file holds the code that was loaded only if it has not changed since. Python does not keep
when it loaded a file, so one that changed after the process began identifies nothing.
"""

from __future__ import annotations

import inspect
import uuid
import weakref
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final

import psutil

__all__ = [
    "MARK",
    "CodeIdentity",
    "code_of",
    "code_of_class",
    "is_versioned",
    "line_of",
    "module_of_code",
]

#: Attribute of the classes of instrumented modules.
MARK: Final = "_forwardscope_calls"
#: Packages whose code the environment identifies by its version.
_VERSIONED: Final = frozenset(("builtins", "collections", "torch", "transformers"))
#: Seconds by which the system may tell the start of a process, or the time of a file, wrongly.
_CLOCK_S: Final = 2.0


class CodeIdentity:
    """Identities of classes and functions. Safe under threads.

    Args:
        started_s: When the first source file may have been loaded, as seconds since the epoch.
    """

    def __init__(self, started_s: float) -> None:
        self._latest_ns: Final = int((started_s - _CLOCK_S) * 1e9)
        self._known: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def of(self, thing: Any) -> str:
        """Return what identifies the code of a class or function: the digest of its file.

        That of a package with a version in the environment is empty. What has no file, as in a
        notebook, or one that changed since the start, has an identity of its own that no other
        process shares.
        """
        if is_versioned(thing.__module__):
            return ""
        known = self._known.get(thing)
        if known is None:
            found = self._digest_of_source(thing) or uuid.uuid4().hex
            known = self._known.setdefault(thing, found)
        return known

    def _digest_of_source(self, thing: Any) -> str | None:
        """Return the digest of the file from which a class or function was loaded."""
        try:
            file = None if _is_typed_in(thing) else inspect.getsourcefile(thing)
            if file is None:
                return None
            found = sha256(Path(file).read_bytes()).hexdigest()
            status = Path(file).stat()  # after the reading, so that a change meanwhile shows
        except (OSError, TypeError):
            return None
        # a file that is moved or copied into its place keeps the time of its content
        changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        return found if changed_ns < self._latest_ns else None


def _started_s() -> float:
    """Return when this process began; 0 where the system does not say it."""
    try:
        return float(psutil.Process().create_time())
    except psutil.Error:
        return 0.0


#: Made once, as a forked child has what its parent loaded.
_CODE: Final = CodeIdentity(_started_s())


def code_of(thing: Any) -> str:
    """Return what identifies the code of a class or function of this process."""
    return _CODE.of(thing)


def code_of_class(kind: type) -> Iterator[str]:
    """Yield what a class and its bases are, without the class of an instrumented module."""
    for base in kind.__mro__:
        if MARK not in vars(base):
            yield f"class {base.__module__}.{base.__qualname__}"
            yield code_of(base)
            if not is_versioned(base.__module__):
                yield from _members(base)


def line_of(function: FunctionType | BuiltinFunctionType) -> str:
    """Return the line at which a function begins; empty for one that is not of Python."""
    return str(getattr(getattr(function, "__code__", None), "co_firstlineno", ""))


def is_versioned(module: str | None) -> bool:
    """Return whether a module is of a package whose version the environment has."""
    return (module or "torch").partition(".")[0] in _VERSIONED


def module_of_code(function: Any) -> str:
    """Return the module whose code a function runs; `functools.wraps` hides it."""
    return str(getattr(function, "__globals__", {}).get("__name__", "none"))


def _members(kind: type) -> Iterator[str]:
    """Yield the methods of a class, which a program may replace."""
    for name, value in list(vars(kind).items()):
        if isinstance(value, FunctionType):
            yield f"{name}: {value.__module__}.{value.__qualname__} {line_of(value)}"


def _is_typed_in(thing: Any) -> bool:
    """Return whether a class has methods of no file, though its module may have one."""
    methods = filter(inspect.isfunction, vars(thing).values()) if isinstance(thing, type) else ()
    return any(inspect.unwrap(one).__code__.co_filename.startswith("<") for one in methods)
