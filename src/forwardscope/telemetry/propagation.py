"""Trace context in the environment variables of a process, and in the headers of a request.

The variables TRACEPARENT and TRACESTATE hold a W3C trace context.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["child_environment", "context_from_environment", "trace_headers"]

_FIELDS = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}


def context_from_environment(environ: Mapping[str, str] | None = None) -> Context:
    """Return the trace context from environment variables.

    Args:
        environ: Environment variables; None means those of this process.

    Returns:
        The context; empty where TRACEPARENT is missing or malformed.
    """
    found = os.environ if environ is None else environ
    carrier = {field: found[name] for field, name in _FIELDS.items() if name in found}
    return TraceContextTextMapPropagator().extract(carrier, Context())


def child_environment(context: Context | None = None) -> dict[str, str]:
    """Return the environment variables with which a child process continues a trace.

        subprocess.run(command, env={**os.environ, **child_environment()})

    Args:
        context: Context of the span to continue; None means the current one.

    Returns:
        TRACEPARENT, and TRACESTATE where it is set; empty without a span.
    """
    return {_FIELDS[field]: value for field, value in trace_headers(context).items()}


def trace_headers(context: Context | None = None) -> dict[str, str]:
    """Return the headers with which a server continues a trace; empty without a span.

    Args:
        context: Context of the span to continue; None means the current one.
    """
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return carrier
