"""One base model on which adapters are exchanged."""

from __future__ import annotations

from forwardscope.backends.hf import compat
from forwardscope.backends.hf.adapter_files import adapter_folder
from forwardscope.backends.hf.backend import HFBackend
from forwardscope.backends.hf.base_state import BaseState
from forwardscope.backends.hf.forward import Exactness
from forwardscope.backends.hf.hub import Report, no_report
from forwardscope.backends.hf.loading import (
    LoadedBase,
    attach_to,
    load_base,
    quiet_transformers,
    read_adapter,
)
from forwardscope.backends.hf.model_files import find_model
from forwardscope.backends.hf.placement import move
from forwardscope.backends.hf.sources import MERGE_FIRST, ModelSource
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.text import printable

__all__ = ["SharedBase"]


class SharedBase:
    """A base model that is loaded once, and adapters on it, one at a time.

    A backend gives the values of one that is loaded for its adapter alone. A base that cannot
    be brought back exactly after an adapter is loaded anew for the next one. For one thread.

    Args:
        source: The model; its adapter has no effect.
        exactness: As in `HFBackend`.
        rehash: As in `load_backend`.

    Attributes:
        notes: What a reader should know about how the last adapter was opened.
    """

    def __init__(
        self, source: ModelSource, *, exactness: Exactness = "fast", rehash: bool = False
    ) -> None:
        self._source = source
        self._exactness: Exactness = exactness
        self._rehash = rehash
        self._base: LoadedBase | None = None
        self._state: BaseState | None = None
        self._backend: HFBackend | None = None
        self._changed = False
        self.notes: tuple[str, ...] = ()

    def open(
        self, adapter: str, instrumentation: BackendInstrumentation, report: Report = no_report
    ) -> HFBackend:
        """Return a backend of the base with an adapter; the one before is closed.

        Args:
            adapter: Folder or hub id.
            instrumentation: Caches, counts and traces the lookups of this backend alone.
            report: As in `load_backend`.

        Raises:
            ModelError: The base cannot be loaded.
            AdapterError: The adapter cannot be found or read, or does not fit the base.
        """
        self.notes = ()
        base_name, name = printable(self._source.path), printable(adapter)
        instrumentation.name_model(base_name, name, "huggingface")
        folder = adapter_folder(adapter, report)
        with quiet_transformers():
            read = read_adapter(adapter, folder)
            base = self._plain_base(report)
            self._changed = True  # until it is brought back, also if this fails
            self._backend = attach_to(
                *(base, folder, read, instrumentation),
                exactness=self._exactness,
                rehash=self._rehash,
                check=True,
                report=report,
            )
        return self._backend

    def close(self) -> None:
        """Close the backend and free the base; may be called twice."""
        self._close_backend()
        self._base = self._state = None

    def _plain_base(self, report: Report) -> LoadedBase:
        """Return the base without an adapter: brought back, or loaded."""
        self._close_backend()
        if self._changed and (reason := self._bring_back()) is not None:
            self._base = self._state = None
            self.notes = (f"the base was loaded anew, because {reason}",)
        self._changed = False
        if self._base is None:
            files = find_model(self._source.path, MERGE_FIRST, report)
            self._base = load_base(self._source, files, report)
            move(self._base.model, self._base.device)
            if not compat.is_quantised(self._base.model):
                self._state = BaseState(self._base.model)
        return self._base

    def _bring_back(self) -> str | None:
        """Undo what attaching an adapter changed; return why it cannot be, or None."""
        if self._state is None:
            return "a quantised base cannot be brought back after an adapter"
        self._state.restore()
        damaged = self._state.damage()
        return None if damaged is None else f"the adapter before wrote into {damaged}"

    def _close_backend(self) -> None:
        if self._backend is not None:
            self._backend.close()
        self._backend = None
