"""Checks of a run's output files before the model loads, and the run's instrumentation."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from forwardscope.errors import OutputError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.spec import SuiteSpec

__all__ = ["check_outputs", "instrumentation_for", "refuse_to_overwrite"]


def check_outputs(outputs: Mapping[str, Path | None]) -> None:
    """Check that all output files can be written.

    Args:
        outputs: Files by content; None for a file not written.

    Raises:
        OutputError: A file cannot be written, or two are the same.
    """
    files = [(what, path) for what, path in outputs.items() if path is not None]
    for (what, path), (other, second) in combinations(files, 2):
        if path.resolve() == second.resolve():
            raise OutputError(f"{path} cannot hold both {what} and {other}; name two files")
    for what, path in files:
        try:
            _try_to_write(path)
        except OSError as error:
            raise _unwritable(what, path, error) from error


def refuse_to_overwrite(suite: Path, outputs: Mapping[str, Path | None]) -> None:
    """Check that no output file is the suite file.

    Raises:
        OutputError: An output file is the suite file.
    """
    for what, path in outputs.items():
        if path is not None and path.exists() and path.samefile(suite):
            raise OutputError(f"the {what} would overwrite the suite {suite}; choose another file")


@contextmanager
def instrumentation_for(
    spec: SuiteSpec, trace: Path | None, tracer_provider: TracerProvider | None
) -> Iterator[BackendInstrumentation]:
    """Yield the instrumentation of a run; remove a new trace that is still empty at the end."""
    budget = spec.telemetry.span_budget
    try:
        existed = trace is not None and trace.exists()
        instrumentation = BackendInstrumentation(
            cache_maxsize=spec.cache.max_entries,
            cache_max_bytes=spec.cache.max_bytes,
            cache_enabled=spec.cache.enabled,
            trace_path=trace,
            name=spec.name or "default",
            tracer_provider=tracer_provider or NoOpTracerProvider(),
            span_budget=budget if isinstance(budget, int) else None,
        )
    except OSError as error:
        raise _unwritable("trace", trace, error) from error
    try:
        yield instrumentation
    finally:
        instrumentation.close()
        if trace is not None and not (existed or instrumentation.stats.total_lookups):
            with suppress(OSError):  # another process may have removed it
                if trace.stat().st_size == 0:
                    trace.unlink()


def _try_to_write(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if path.exists() and not path.is_file():
        return  # opening a device or a pipe can have effects
    if path.exists():
        with path.open("ab"):
            pass
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    with tempfile.TemporaryFile(dir=folder):
        pass


def _unwritable(what: str, path: Path | None, error: OSError) -> OutputError:
    return OutputError(
        f"the {what} cannot be written to {path}: {error.strerror}; choose another file"
    )
