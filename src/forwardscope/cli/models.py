"""Loading the model of a suite."""

from __future__ import annotations

from collections.abc import Callable

from forwardscope.backends.base import Backend
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.spec import SuiteSpec

__all__ = ["load_model"]


def load_model(
    spec: SuiteSpec,
    instrumentation: BackendInstrumentation,
    report: Callable[[str, int, int], None],
    *,
    check: bool = True,
) -> Backend:
    """Load a suite's model and its adapter or full fine-tune; see `load_backend`.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: The model cannot be loaded.
        AdapterError: The adapter cannot be loaded.
    """
    from forwardscope.backends.hf import ModelSource, load_backend  # noqa: PLC0415 - takes a second

    source = ModelSource(
        path=spec.model.path,
        adapter=spec.model.adapter,
        device=spec.model.device,
        dtype=spec.model.dtype,
        tuned=spec.model.tuned,
        one_at_a_time=spec.model.one_at_a_time,
    )
    return load_backend(
        source,
        exactness=spec.exactness,
        instrumentation=instrumentation,
        rehash=spec.cache.rehash,
        check=check,
        report=report,
    )
