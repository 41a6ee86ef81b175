"""forwardscope: a cache of forward passes, with a trace, spans and metrics of all lookups."""

from typing import TYPE_CHECKING

from forwardscope.core.cache import MISS, ForwardCache
from forwardscope.core.stats import BackendStats
from forwardscope.errors import ForwardscopeError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.trace import TraceEvent, TraceReader, TraceWriter

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

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Return `__version__`, which is read when it is used: an import stays cheap."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version  # noqa: PLC0415

        return version("forwardscope")
