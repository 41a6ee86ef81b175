"""Load the backend of a suite, with the suite's cache and store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.trace import TracerProvider

from forwardscope.backends.base import Backend
from forwardscope.files import unwritable
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.store.base import Store
from forwardscope.store.locations import open_store
from forwardscope.suite.spec import CacheSpec, ModelSpec, ServedModelSpec, SuiteSpec

if TYPE_CHECKING:
    from forwardscope.backends.hf import ModelSource

__all__ = ["instrumentation_for", "load_backend", "load_model", "model_source"]


@contextmanager
def load_backend(
    spec: SuiteSpec,
    *,
    trace_path: str | Path | None = None,
    tracer_provider: TracerProvider | None = None,
) -> Iterator[Backend]:
    """Yield the backend of a suite, and close it and its store at the end.

    Model, adapter, device, dtype, exactness, cache and store are those of the suite. Its
    `defaults` and probes are for `run_suite`, its `telemetry` for the command line.

    Args:
        spec: The suite, as `load_suite` returns it.
        trace_path: File to which each lookup appends a line; None for no trace.
        tracer_provider: Receives spans; by default the global one.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: The model cannot be loaded.
        AdapterError: The adapter cannot be loaded.
        OutputError: The trace cannot be written.
        StoreError: The store cannot be opened.
        ServerError: The server of the model is not reached.
    """
    trace = None if trace_path is None else Path(trace_path)
    with (
        instrumentation_for(spec, trace, tracer_provider) as instrumentation,
        closing(load_model(spec, instrumentation)) as backend,
    ):
        yield backend


def load_model(
    spec: SuiteSpec,
    instrumentation: BackendInstrumentation,
    report: Callable[[str, int, int], None] | None = None,
    *,
    check: bool = True,
) -> Backend:
    """Load a suite's model and its adapter or full fine-tune, or open those of its server.

    Args:
        spec: The suite.
        instrumentation: Caches, counts and traces the backend's lookups.
        report: Called with each step's name, the amount done and the total, 0 if not known.
        check: Whether loading runs forward passes that check the model.

    Raises:
        MissingExtraError: torch, transformers or httpx is not installed.
        ModelError: The model cannot be loaded.
        AdapterError: The adapter cannot be loaded.
        ServerError: The server is not reached, or is none that gives log-probabilities.
    """
    if isinstance(spec.model, ServedModelSpec):
        return _open_served(spec.model, instrumentation, report, check=check)
    from forwardscope.backends import hf  # noqa: PLC0415 - takes a second

    return hf.load_backend(
        model_source(spec.model),
        exactness=spec.exactness,
        instrumentation=instrumentation,
        rehash=spec.cache.rehash,
        check=check,
        report=report or (lambda *_: None),
    )


def _open_served(
    model: ServedModelSpec,
    instrumentation: BackendInstrumentation,
    report: Callable[[str, int, int], None] | None,
    *,
    check: bool,
) -> Backend:
    from forwardscope.backends import openai  # noqa: PLC0415 - an extra

    source = openai.ServedSource(
        server=model.server,
        name=model.name,
        adapter=model.adapter,
        revision=model.revision,
        adapter_dir=model.adapter_dir,
        adapter_scratch=model.adapter_scratch,
        tokenizer=model.tokenizer,
        timeout_s=model.timeout,
        concurrency=model.concurrency,
    )
    return openai.load_backend(
        source,
        instrumentation=instrumentation,
        check=check,
        report=report or (lambda *_: None),
    )


def model_source(model: ModelSpec) -> ModelSource:
    """Return what a backend loads for a suite's model."""
    from forwardscope.backends.hf import ModelSource  # noqa: PLC0415 - takes a second

    return ModelSource(
        path=model.path,
        adapter=model.adapter,
        device=model.device,
        dtype=model.dtype,
        tuned=model.tuned,
        one_at_a_time=model.one_at_a_time,
    )


@contextmanager
def instrumentation_for(
    spec: SuiteSpec, trace: Path | None, tracer_provider: TracerProvider | None
) -> Iterator[BackendInstrumentation]:
    """Yield the instrumentation of a suite, with its cache and store.

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
            tracer_provider=tracer_provider,
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
