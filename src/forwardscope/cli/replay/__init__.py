"""Spans made from a trace file, for runs without an OTLP receiver."""

from forwardscope.cli.replay.runs import Replay

__all__ = ["Replay"]
