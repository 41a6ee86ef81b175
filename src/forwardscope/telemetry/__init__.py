"""Telemetry of lookups and forward passes: names, spans, metrics and their delivery."""

from forwardscope.telemetry.collector import ForwardscopeCollector, register, unregister
from forwardscope.telemetry.propagation import child_environment, context_from_environment

__all__ = [
    "ForwardscopeCollector",
    "child_environment",
    "context_from_environment",
    "register",
    "unregister",
]
