"""The base model of a worker, on which adapters are exchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from forwardscope.backends.base import Backend
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.backend import model_source
from forwardscope.suite.selection import local_model
from forwardscope.suite.spec import SuiteSpec

if TYPE_CHECKING:
    from forwardscope.backends.hf import SharedBase

__all__ = ["Models", "Report", "SharedModels"]

#: Called with the name of a step, the amount done and the total amount, 0 if not known.
Report = Callable[[str, int, int], None]


class Models(Protocol):
    """A base model on which adapters are exchanged."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader should know about how the last adapter was opened."""
        ...

    def open(
        self, spec: SuiteSpec, instrumentation: BackendInstrumentation, report: Report
    ) -> Backend:
        """Return a backend of the base with the adapter of `spec`; the one before is closed.

        Raises:
            AdapterError: The adapter cannot be loaded, or does not fit.
            ModelError: The base cannot be loaded.
        """
        ...

    def close(self) -> None:
        """Free the base; may be called twice."""
        ...


class SharedModels:
    """A base in transformers, loaded once; all suites have the same base."""

    def __init__(self) -> None:
        self._base: SharedBase | None = None

    @property
    def notes(self) -> Sequence[str]:
        """What a reader should know about how the last adapter was opened."""
        return () if self._base is None else self._base.notes

    def open(
        self, spec: SuiteSpec, instrumentation: BackendInstrumentation, report: Report
    ) -> Backend:
        """Return a backend of the base with the adapter of `spec`; see `Models.open`."""
        from forwardscope.backends import hf  # noqa: PLC0415 - takes a second

        if self._base is None:
            source = model_source(local_model(spec))
            self._base = hf.SharedBase(source, exactness=spec.exactness, rehash=spec.cache.rehash)
        return self._base.open(spec.model.adapter or "", instrumentation, report)

    def close(self) -> None:
        """Free the base; may be called twice."""
        if self._base is not None:
            self._base.close()
        self._base = None
