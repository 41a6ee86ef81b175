"""forwardscope: a cache of forward passes, with a trace, spans and metrics of all lookups."""

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
