"""Handing a trace from one process to another in the environment.

The variables are those of the W3C trace context: TRACEPARENT and TRACESTATE.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["child_environment", "context_from_environment"]

_FIELDS = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}


def context_from_environment(environ: Mapping[str, str] | None = None) -> Context:
    """Return the trace context that a process was started under.

    Args:
        environ: Where to look; None means this process's environment.

    Returns:
        An empty context where TRACEPARENT is missing or malformed.
    """
    found = os.environ if environ is None else environ
    carrier = {field: found[name] for field, name in _FIELDS.items() if name in found}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def child_environment(context: Context | None = None) -> dict[str, str]:
    """Return the variables that make a child process continue a trace.

        subprocess.run(command, env={**os.environ, **child_environment()})

    Args:
        context: Of the span to continue; None means the current one.

    Returns:
        TRACEPARENT, and TRACESTATE where there is one; nothing without a span.
    """
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return {_FIELDS[field]: value for field, value in carrier.items()}
