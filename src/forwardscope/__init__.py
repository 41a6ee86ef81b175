"""forwardscope: a cache of forward passes, with a trace, spans and metrics of all lookups.

A name is imported when it is used. So the program is ready for an interrupt before its imports.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forwardscope.core.cache import MISS, ForwardCache
    from forwardscope.core.stats import BackendStats
    from forwardscope.errors import ForwardscopeError
    from forwardscope.instrumentation import BackendInstrumentation
    from forwardscope.trace import TraceEvent, TraceReader, TraceWriter

    __version__: str

__all__ = [
    "MISS",
    "BackendInstrumentation",
    "BackendStats",
    "ForwardCache",
    "ForwardscopeError",
    "TraceEvent",
    "TraceReader",
    "TraceWriter",
]

_MODULES = {
    "MISS": "core.cache",
    "BackendInstrumentation": "instrumentation",
    "BackendStats": "core.stats",
    "ForwardCache": "core.cache",
    "ForwardscopeError": "errors",
    "TraceEvent": "trace",
    "TraceReader": "trace",
    "TraceWriter": "trace",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name, or read `__version__` of the installed package."""
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            value = version("forwardscope")
        elif name in _MODULES:
            from importlib import import_module  # noqa: PLC0415

            value = getattr(import_module(f"forwardscope.{_MODULES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
