"""Checks of a run's output files before the model loads; the run's instrumentation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import combinations
from pathlib import Path

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from forwardscope.errors import OutputError
from forwardscope.files import check_no_input, check_writable
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.backend import instrumentation_for as suite_instrumentation
from forwardscope.suite.spec import SuiteSpec

__all__ = ["check_outputs", "instrumentation_for"]


def check_outputs(outputs: Mapping[str, Path | None], inputs: Sequence[Path] = ()) -> None:
    """Check that all output files can be written.

    Args:
        outputs: Files by content; None for a file not written.
        inputs: Files that are read.

    Raises:
        OutputError: A file cannot be written, two are the same, or one is an input.
    """
    files = [(what, path) for what, path in outputs.items() if path is not None]
    for what, path in files:
        check_no_input(what, path, inputs)
        check_writable(what, path)
    for (what, path), (other, second) in combinations(files, 2):
        if os.path.realpath(path) == os.path.realpath(second):  # also for a loop of links
            raise OutputError(f"{path} cannot hold both {what} and {other}; name two files")


def instrumentation_for(
    spec: SuiteSpec, trace: Path | None, tracer_provider: TracerProvider | None
) -> AbstractContextManager[BackendInstrumentation]:
    """Return the instrumentation of a run; without a provider there are no spans."""
    return suite_instrumentation(spec, trace, tracer_provider or NoOpTracerProvider())
