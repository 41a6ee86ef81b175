"""JSONL trace with one line for each lookup."""

from forwardscope.trace.reader import TraceReader
from forwardscope.trace.record import TraceEvent
from forwardscope.trace.writer import TraceWriter

__all__ = ["TraceEvent", "TraceReader", "TraceWriter"]
