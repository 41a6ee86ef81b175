"""Checks of a run's output files before the model loads; the run's store and instrumentation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from forwardscope.errors import OutputError
from forwardscope.files import check_no_input, check_writable, unwritable
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.base import Store
from forwardscope.store.locations import open_store
from forwardscope.suite.spec import CacheSpec, SuiteSpec

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


@contextmanager
def instrumentation_for(
    spec: SuiteSpec, trace: Path | None, tracer_provider: TracerProvider | None
) -> Iterator[BackendInstrumentation]:
    """Yield the instrumentation of a run, with its store.

    At the end what is queued is stored, and a new trace that is still empty is removed.
    """
    budget = spec.telemetry.span_budget
    store = _open_store(spec.cache)
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
            store=store,
            verify=spec.cache.verify,
        )
    except OSError as error:
        raise unwritable("trace", trace, error) from error
    try:
        yield instrumentation
    finally:
        instrumentation.close()
        if store is not None:
            store.close(0.0)  # what is queued was waited for
        if trace is not None and not (existed or instrumentation.stats.total_lookups):
            with suppress(OSError):  # another process may have removed it
                if trace.stat().st_size == 0:
                    trace.unlink()


def _open_store(cache: CacheSpec) -> Store | None:
    if cache.store is None or not cache.enabled:
        return None
    return open_store(cache.store, max_bytes=cache.store_max_bytes)
