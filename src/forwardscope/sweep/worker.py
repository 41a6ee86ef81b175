"""Measures adapters one after the other on one base model."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.trace import TracerProvider

from forwardscope.errors import AdapterError, StoreError, UserError
from forwardscope.instrumentation import BackendInstrumentation
from forwardscope.suite.backend import instrumentation_for
from forwardscope.suite.observer import Observer
from forwardscope.suite.result import SuiteResult
from forwardscope.suite.runner import run_suite
from forwardscope.suite.selection import replace_adapter
from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep.models import Models, Report, SharedModels
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.text import MAX_SENTENCE, shown

__all__ = ["Watch", "Worker", "worker_name"]


@dataclass(frozen=True, slots=True)
class Watch:
    """What observes the runs of a worker.

    Attributes:
        observer: Receives the events of each run.
        tracer_provider: Receives the spans; None for the global one.
        opened: Called with the instrumentation of each run before its adapter is loaded.
        report: Receives the steps of loading.
    """

    observer: Observer = field(default_factory=Observer)
    tracer_provider: TracerProvider | None = None
    opened: Callable[[BackendInstrumentation], None] = lambda _: None
    report: Report = lambda *_: None


class Worker:
    """Measures adapters with one suite, one after the other; loads the base with the first.

    `request_stop` can be called from any thread, all else from one.

    Args:
        spec: The suite; the adapter of each task takes the place of its own.
        models: Loads the base and exchanges adapters on it.
        watch: Observes the runs.
    """

    def __init__(self, spec: SuiteSpec, models: Models | None = None, watch: Watch | None = None):
        self._spec = spec
        self._models = models or SharedModels()
        self._watch = watch or Watch()
        self._lock = threading.Lock()
        self._stopping = False
        self._measured = False
        self._verified: frozenset[str] = frozenset()
        self._running: BackendInstrumentation | None = None

    def observe(self, watch: Watch) -> None:
        """Observe the next runs with another watch."""
        self._watch = watch

    def measure(self, task: Task) -> Measured:
        """Run the suite on an adapter.

        Returns:
            The result, or the error of an adapter that cannot be loaded or used.

        Raises:
            KeyboardInterrupt: A stop was requested.
            UserError: A mistake that no adapter makes, such as a base that cannot be loaded.
        """
        spec = replace_adapter(self._spec, task.adapter, task.label)
        with ExitStack() as closing:
            instrumentation, notes = self._open(spec, Path(task.trace), closing)
            self._begin(instrumentation)
            self._watch.opened(instrumentation)
            try:
                result = self._run(spec, instrumentation)
            except AdapterError as error:
                return _failed(task, error, shown(str(error), MAX_SENTENCE))
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever an adapter makes a library raise
                reason = (
                    f"its run failed with {type(error).__name__}"  # the message may have prompts
                )
                return _failed(task, error, reason)
        self._measured = True
        notes += tuple(self._models.notes)
        return Measured(task.index, result.model_dump_json(), worker=worker_name(), notes=notes)

    def _run(self, spec: SuiteSpec, instrumentation: BackendInstrumentation) -> SuiteResult:
        backend = self._models.open(spec, instrumentation, self._watch.report)
        if instrumentation.stopping:  # requested while the model was loaded
            raise KeyboardInterrupt
        if (tier := instrumentation.store_tier) is not None:
            tier.verified_before = self._verified
        result = run_suite(spec, backend, observer=self._watch.observer)
        if tier is not None and result.store is not None and not result.store.mismatches:
            self._verified |= tier.verified
        return result

    def _open(
        self, spec: SuiteSpec, trace: Path, closing: ExitStack
    ) -> tuple[BackendInstrumentation, tuple[str, ...]]:
        """Return the instrumentation of a run, and what a reader should know of it.

        A store that was there for an earlier adapter and cannot be opened costs no result.
        """
        provider = self._watch.tracer_provider
        try:
            return closing.enter_context(instrumentation_for(spec, trace, provider)), ()
        except StoreError as error:
            if not self._measured:
                raise
            cache = spec.cache.model_copy(update={"store": None})
            spec = spec.model_copy(update={"cache": cache})
            note = f"it was measured without the store: {shown(str(error), MAX_SENTENCE)}"
            return closing.enter_context(instrumentation_for(spec, trace, provider)), (note,)

    def request_stop(self) -> None:
        """Stop before the next forward pass, of this task or the next one."""
        with self._lock:
            self._stopping = True
            running = self._running
        if running is not None:
            running.request_stop()

    def close(self) -> None:
        """Free the base; may be called twice."""
        self._models.close()

    def _begin(self, instrumentation: BackendInstrumentation) -> None:
        with self._lock:
            self._running = instrumentation
            stopping = self._stopping
        if stopping:
            instrumentation.request_stop()


def worker_name() -> str:
    """Return the name of this process in a sweep."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _failed(task: Task, error: Exception, reason: str) -> Measured:
    return Measured(task.index, None, reason, type(error).__name__, worker_name())
