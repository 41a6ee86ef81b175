"""The instrumentation of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.backend import instrumentation_for as suite_instrumentation
from forwardscope.suite.spec import SuiteSpec

__all__ = ["instrumentation_for"]


def instrumentation_for(
    spec: SuiteSpec, trace: Path | None, tracer_provider: TracerProvider | None
) -> AbstractContextManager[BackendInstrumentation]:
    """Return the instrumentation of a run; without a provider there are no spans."""
    return suite_instrumentation(spec, trace, tracer_provider or NoOpTracerProvider())
