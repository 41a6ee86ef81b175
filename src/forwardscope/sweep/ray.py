"""A sweep's engine on Ray: workers are actors, each in a process of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError, RayTaskError

from forwardscope.errors import UserError
from forwardscope.files import replace_content, unwritable
from forwardscope.suite.spec import SuiteSpec
from forwardscope.sweep.observer import SweepObserver
from forwardscope.sweep.ray_errors import last_line, why_lost, why_no_connection
from forwardscope.sweep.remote import (
    OpenWorker,
    RemoteWorker,
    decode_answer,
    encode_suite,
    encode_task,
    is_file,
)
from forwardscope.sweep.tasks import Measured, Task
from forwardscope.telemetry import child_environment
from forwardscope.text import plural, shown

__all__ = ["RayEngine"]

#: How often an adapter is measured whose workers die, and a worker is started that does not start.
_ATTEMPTS: Final = 2
_POLL_S: Final = 0.1
#: Time without any worker after which that is reported.
_NO_WORKER_S: Final = 20.0
#: Time after a stop request until workers are killed, and for them to close.
_STOP_S: Final = 30.0
_CLOSE_S: Final = 5.0
#: Variables that workers get from this process.
_PASSED_ON: Final = ("FORWARDSCOPE_", "OTEL_")
#: Group of the calls that do not wait for the task of a worker.
_CONTROL: Final = "control"


@dataclass(slots=True)
class _Actor:
    """A worker; its name is empty until it has started."""

    handle: Any
    failed_starts: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that has not ended: the start of a worker, or a task."""

    actor: _Actor
    task: Task | None


class RayEngine:
    """Measures tasks on the workers of a Ray cluster.

    An adapter whose worker dies is measured once more, by whichever worker is free. A worker
    has one GPU if the suite's device allows one and the cluster has any. Where all machines of
    the cluster are this one, workers write the traces; else they arrive with the results.

    Args:
        spec: The suite.
        address: Address of the cluster.
        open_worker: Makes the worker of a process; a function of a module.
        workers: Number of workers, at most one for each GPU; by default one for each GPU, or
            without GPUs for each machine.
        cpus: CPUs of each worker, which is also its number of threads.

    Raises:
        UserError: There is no cluster at the address, or it has another release of Ray.

    Attributes:
        workers: Number of workers.
    """

    def __init__(
        self,
        spec: SuiteSpec,
        address: str,
        open_worker: OpenWorker,
        *,
        workers: int | None = None,
        cpus: int = 1,
    ) -> None:
        self._open_worker = open_worker
        self._stop_requested = threading.Event()
        self._queue: deque[Task] = deque()
        self._deaths: Counter[int] = Counter()
        self._calls: dict[Any, _Call] = {}
        self._idle: list[_Actor] = []
        self._no_start = ""
        _connect(address)
        machines = {node["NodeManagerHostname"] for node in _nodes()}
        self._same_machine = machines == {socket.gethostname()}
        self._suite = encode_suite(spec, same_machine=self._same_machine)
        gpus = _gpus() if _can_use_gpu(spec) else 0
        wanted = workers or gpus or len(machines)
        self.workers: Final = min(wanted, gpus) if gpus else wanted
        self._resource = "GPU" if gpus else "CPU"
        self._notices = list(_notices(spec, wanted, self.workers, self._same_machine))
        remote: Any = ray.remote  # its annotations do not know groups
        self._actor_class = remote(
            num_cpus=cpus, num_gpus=1 if gpus else 0, concurrency_groups={_CONTROL: 1}
        )(RemoteWorker)

    def run(self, tasks: Sequence[Task], observer: SweepObserver) -> Iterator[Measured]:
        """Yield what became of each task; see `Engine.run`."""
        for notice in self._notices:
            observer.noticed(notice)
        self._queue.extend(tasks)
        for _ in range(min(self.workers, len(tasks))):
            self._start()
        late_s = time.monotonic() + _NO_WORKER_S
        while not self._stop_requested.is_set() and self._has_work():
            self._assign(observer)
            yield from self._ended(observer)
            if len(self._queue) == len(tasks) and time.monotonic() > late_s:
                late_s = float("inf")
                observer.noticed(f"no worker has started yet; is a {self._resource} free?")
        if self._stop_requested.is_set():
            yield from self._stop(observer)
            raise KeyboardInterrupt
        if len(self._queue) == len(tasks):  # a mistake that a user can correct
            raise UserError(f"no worker starts: {self._no_start}")
        for task in self._queue:
            yield _failed(task, "no worker was left to measure it", "WorkerLost")

    def request_stop(self) -> None:
        """Stop each worker before its next forward pass. Thread-safe."""
        self._stop_requested.set()

    def close(self) -> None:
        """End the workers and leave the cluster; may be called twice."""
        if ray.is_initialized():
            closing = [actor.handle.close.remote() for actor in self._idle]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
            ray.shutdown()
        self._idle.clear()

    # -- tasks --------------------------------------------------------------------------

    def _has_work(self) -> bool:
        """Return whether a task is left, and a worker that can measure it."""
        measuring = any(call.task for call in self._calls.values())
        return measuring or bool(self._queue and (self._calls or self._idle))

    def _assign(self, observer: SweepObserver) -> None:
        while self._queue and self._idle:
            actor, task = self._idle.pop(), self._queue.popleft()
            observer.adapter_started(task, actor.name)
            self._calls[actor.handle.measure.remote(encode_task(task))] = _Call(actor, task)

    def _ended(self, observer: SweepObserver) -> Iterator[Measured]:
        """Wait a moment for a call to end; yield what became of its task, if that ended."""
        ended, _ = ray.wait(list(self._calls), timeout=_POLL_S)
        for reference in ended:
            call = self._calls.pop(reference)
            measured: Measured | None
            try:
                answer = ray.get(reference)
            except RayTaskError as error:  # an exception in the worker, which lives on
                measured = self._raised(call, error)
            except RayError as error:
                measured = self._lost(call, error, observer)
            else:
                self._idle.append(call.actor)
                measured = self._answered(call, answer)
            if measured is not None:
                yield measured

    def _answered(self, call: _Call, answer: tuple[str, Any]) -> Measured | None:
        if call.task is None:
            call.actor.name = answer[0]
            _check_version(*answer)
            return None
        try:
            decoded = decode_answer(answer[0], call.task)
        except ValueError:
            return _failed(
                call.task, "its worker's answer cannot be read", "ValueError", call.actor
            )
        if not self._same_machine:
            _write_trace(Path(call.task.trace), answer[1])
        stopping = self._stop_requested.is_set()
        if decoded.mistake is not None and not stopping:
            raise UserError(decoded.mistake)
        if decoded.measured is None and not stopping:
            return _failed(call.task, "its worker was interrupted", "KeyboardInterrupt", call.actor)
        return decoded.measured

    def _raised(self, call: _Call, error: RayTaskError) -> Measured:
        cause = type(error.cause or error).__name__
        if call.task is None:
            raise UserError(f"a worker does not start: {last_line(error)}") from error
        self._idle.append(call.actor)
        return _failed(call.task, f"{cause} in its worker", cause, call.actor)

    # -- workers ------------------------------------------------------------------------

    def _start(self, failed_starts: int = 0) -> None:
        passed_on = {key: os.environ[key] for key in os.environ if key.startswith(_PASSED_ON)}
        handle = self._actor_class.remote(
            self._suite,
            passed_on | child_environment(),
            self._open_worker,
            same_machine=self._same_machine,
        )
        self._calls[handle.start.remote()] = _Call(_Actor(handle, failed_starts), None)

    def _lost(self, call: _Call, error: RayError, observer: SweepObserver) -> Measured | None:
        """Replace a worker that died; return what became of its task, if it is not tried again."""
        ray.kill(call.actor.handle)  # it may be out of reach only
        if self._stop_requested.is_set():
            return None
        reason = why_lost(error)
        if call.task is not None:
            return self._lost_while_measuring(call.actor, call.task, reason, observer)
        self._no_start = reason
        observer.worker_lost("a worker", f"it did not start: {reason}")
        if call.actor.failed_starts + 1 < _ATTEMPTS:
            self._start(call.actor.failed_starts + 1)
        return None

    def _lost_while_measuring(
        self, actor: _Actor, task: Task, reason: str, observer: SweepObserver
    ) -> Measured | None:
        self._deaths[task.index] += 1
        gives_up = self._deaths[task.index] >= _ATTEMPTS
        then = "which is given up" if gives_up else "which is measured again"
        observer.worker_lost(actor.name, f"{reason} while it measured {task.label}, {then}")
        if not gives_up:
            self._queue.appendleft(task)
        if self._queue:
            self._start()
        if not gives_up:
            return None
        lost = f"{plural(_ATTEMPTS, 'worker')} were lost while they measured it: {reason}"
        return _failed(task, lost, "WorkerLost", actor)

    def _stop(self, observer: SweepObserver) -> Iterator[Measured]:
        """Stop the workers; yield what they still finish."""
        self._queue.clear()
        self._calls = {ref: call for ref, call in self._calls.items() if call.task is not None}
        for call in self._calls.values():
            call.actor.handle.request_stop.options(concurrency_group=_CONTROL).remote()
        deadline = time.monotonic() + _STOP_S
        while self._calls and time.monotonic() < deadline:
            yield from self._ended(observer)


def _connect(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many classes
        reason = why_no_connection(error)
        raise UserError(f"no connection to Ray at {shown(address)}: {reason}") from error


def _gpus() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0))


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _can_use_gpu(spec: SuiteSpec) -> bool:
    return spec.model.device == "auto" or spec.model.device.startswith("cuda")


def _notices(spec: SuiteSpec, wanted: int, workers: int, same_machine: bool) -> Iterator[str]:
    """Yield what a reader should know of the workers that a sweep gets."""
    if workers < wanted:
        yield f"{workers} of {plural(wanted, 'worker')}: the cluster has {plural(workers, 'GPU')}"
    store = spec.cache.store
    if store is not None and is_file(store) and not same_machine:
        yield (
            f"workers have no store: the file {shown(store)} is on this machine alone; "
            "name a Redis server with --store redis://HOST"
        )


def _check_version(worker: str, found: str) -> None:
    ours = version("forwardscope")
    if found != ours:
        raise UserError(
            f"{worker} has forwardscope {shown(found)}, and this sweep {ours}; install the same "
            "version on all machines of the cluster"
        )


def _write_trace(path: Path, content: bytes) -> None:
    try:
        replace_content(path, content)
    except OSError as error:
        raise unwritable("trace", path, error) from error


def _failed(task: Task, reason: str, kind: str, actor: _Actor | None = None) -> Measured:
    return Measured(task.index, None, reason, kind, "" if actor is None else actor.name)
