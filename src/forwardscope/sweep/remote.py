"""A worker in another process: only text, numbers and bytes go in and come out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from forwardscope.errors import UserError
from forwardscope.suite.selection import local_model
from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.sweep.worker import worker_name
from forwardscope.text import MAX_SENTENCE, shown

__all__ = [
    "Answer",
    "MeasuresTasks",
    "OpenWorker",
    "RemoteWorker",
    "decode_answer",
    "encode_suite",
    "encode_task",
    "is_file",
]


class MeasuresTasks(Protocol):
    """A worker, as `forwardscope.sweep.Worker` is one."""

    def measure(self, task: Task) -> Measured:
        """Measure a task; see `Worker.measure`."""
        ...

    def request_stop(self) -> None:
        """Stop before the next forward pass; see `Worker.request_stop`."""
        ...

    def close(self) -> None:
        """Free what the worker holds."""
        ...


#: A function of a module, which makes a worker of a suite in the worker's process.
OpenWorker = Callable[[SuiteSpec], MeasuresTasks]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a remote worker answers to a task.

    Attributes:
        measured: What became of the task; None if the worker was stopped or cannot go on.
        mistake: Why no task can be measured, in one sentence.
    """

    measured: Measured | None = None
    mistake: str | None = None


_ANSWER: Final = TypeAdapter(Answer)


class RemoteWorker:
    """Measures tasks for a sweep in another process.

    `request_stop` can be called from any thread, all else from one.

    Args:
        suite: The suite, by `encode_suite`.
        environment: Variables that replace those of this process.
        open_worker: Makes the worker.
        same_machine: Whether the sweep sees the files that are written here.
    """

    def __init__(
        self,
        suite: str,
        environment: Mapping[str, str],
        open_worker: OpenWorker,
        *,
        same_machine: bool,
    ) -> None:
        self._suite = suite
        self._environment = environment
        self._open = open_worker
        self._same_machine = same_machine
        self._worker: MeasuresTasks | None = None
        self._stopping = False

    def start(self) -> tuple[str, str]:
        """Return the name of this process and its version of forwardscope."""
        os.environ.update(self._environment)
        return worker_name(), version("forwardscope")

    def measure(self, task: str) -> tuple[str, bytes]:
        """Measure a task, by `encode_task`.

        Returns:
            An `Answer`, as JSON, and the trace where the sweep cannot see its file.
        """
        asked = Task(**json.loads(task))
        if self._same_machine:
            return self._measure(asked), b""
        with tempfile.TemporaryDirectory(prefix="forwardscope-") as folder:
            trace = Path(folder) / "trace.jsonl"
            answer = self._measure(replace(asked, trace=str(trace)))
            return answer, trace.read_bytes() if trace.exists() else b""

    def request_stop(self) -> None:
        """Stop before the next forward pass."""
        self._stopping = True
        if self._worker is not None:
            self._worker.request_stop()

    def close(self) -> None:
        """Free what the worker holds."""
        if self._worker is not None:
            self._worker.close()

    def _measure(self, task: Task) -> str:
        try:
            answer = Answer(self._opened().measure(task))
        except UserError as error:
            answer = Answer(mistake=str(error))
        except KeyboardInterrupt:
            answer = Answer()
        return _ANSWER.dump_json(answer).decode()

    def _opened(self) -> MeasuresTasks:
        if self._worker is None:
            self._worker = self._open(_decode_suite(self._suite))
            if self._stopping:  # requested before there was a worker
                self._worker.request_stop()
        return self._worker


def encode_suite(spec: SuiteSpec, *, same_machine: bool) -> str:
    """Return a suite as JSON, for workers that have other working directories.

    Files get absolute paths. A store that is a file is left out for workers elsewhere.
    """
    path, store = _absolute(local_model(spec).path), spec.cache.store
    if store is not None and is_file(store):
        store = str(Path(store).absolute()) if same_machine else None
    model = spec.model.model_copy(update={"path": path, "name": spec.model.label})
    cache = spec.cache.model_copy(update={"store": store})
    encoded = spec.model_copy(update={"model": model, "cache": cache})
    return encoded.model_dump_json(serialize_as_any=True)


def is_file(store: str) -> bool:
    """Return whether a store is a file at a path; `default` is one of each machine."""
    return store != "default" and "://" not in store


def encode_task(task: Task) -> str:
    """Return a task as JSON; an adapter in a folder and the trace get absolute paths."""
    trace = str(Path(task.trace).absolute())
    return json.dumps(asdict(replace(task, adapter=_absolute(task.adapter), trace=trace)))


def decode_answer(answer: str, task: Task) -> Answer:
    """Return the answer to a task.

    Raises:
        ValueError: It is none, or one to another task.
    """
    decoded = _ANSWER.validate_json(answer)
    if decoded.measured is not None and decoded.measured.index != task.index:
        raise ValueError(f"an answer to task {decoded.measured.index}, not {task.index}")
    return decoded


def _decode_suite(suite: str) -> SuiteSpec:
    try:
        return SuiteSpec.model_validate_json(suite)
    except ValidationError as error:  # an installed probe, for example, is not installed there
        first = error.errors()[0]
        reason = shown(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", MAX_SENTENCE)
        raise UserError(f"{worker_name()} cannot read the suite: {reason}") from error


def _absolute(place: str) -> str:
    """Return the absolute path of a file or folder; any other text, such as a hub id, unchanged."""
    path = Path(place)
    return str(path.absolute()) if path.exists() else place
