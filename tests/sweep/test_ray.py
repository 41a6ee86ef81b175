"""The engine on Ray: results, workers that die or do not start, stops.

Two stand-in GPUs are declared to a Ray on this machine, so two workers run at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from forwardscope.errors import UserError
from forwardscope.suite import SuiteSpec
from forwardscope.sweep import Measured, SweepObserver, Task
from forwardscope.sweep.cluster import local_ray

# not importorskip: Ray must not be imported before the fixture sets its environment
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")

RAY_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - a name
SPEC = SuiteSpec.model_validate_json(
    '{"version": 1, "model": {"path": "base", "adapter": "a"},'
    ' "probes": [{"name": "p", "kind": "delta_kl", "prompts": ["a"]}]}'
)


class ActingWorker:
    """Acts as each adapter's name says, and answers with what it sees."""

    def __init__(self, spec: SuiteSpec) -> None:
        self._spec = spec
        self._stop = threading.Event()

    def measure(self, task: Task) -> Measured:
        action, _, argument = task.adapter.partition(":")
        if action == "die" and (not argument or not Path(argument).exists()):
            if argument:
                Path(argument).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "raise":
            raise RuntimeError("a prompt")
        if action == "mistake":
            raise UserError("the base is missing")
        if action in ("wait", "wait and fail"):
            Path(argument).touch()
            if self._stop.wait(30):
                raise KeyboardInterrupt if action == "wait" else UserError("the base is missing")
        Path(task.trace).write_text(f"{task.label}\n")
        seen = {
            "pid": os.getpid(),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "parent": os.environ.get("TRACEPARENT"),
            "suite": self._spec.model.label,
            "store": self._spec.cache.store,
        }
        return Measured(task.index, json.dumps(seen), worker=f"process {os.getpid()}")

    def request_stop(self) -> None:
        self._stop.set()

    def close(self) -> None: ...


class Events(SweepObserver):
    """Keeps which adapters were started, and what is said of lost workers."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.lost: list[str] = []
        self.noticed_lines: list[str] = []

    def adapter_started(self, task: Task, worker: str) -> None:
        self.started.append(task.label)

    def worker_lost(self, worker: str, reason: str) -> None:
        self.lost.append(reason)

    def noticed(self, what: str) -> None:
        self.noticed_lines.append(what)


@pytest.fixture(scope="module")
def open_engine() -> Iterator[Callable[..., Any]]:
    """Opens engines on a Ray on this machine with two stand-in GPUs."""
    with local_ray({"num_cpus": 4, "num_gpus": 2}) as address:
        from ray import cloudpickle  # noqa: PLC0415 - after its environment is set

        from forwardscope.sweep.ray import RayEngine  # noqa: PLC0415 - imports ray

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it

        def open_one(
            worker: Any = ActingWorker, *, spec: SuiteSpec = SPEC, **options: Any
        ) -> RayEngine:
            return RayEngine(spec, address, worker, **options)

        yield open_one


@pytest.fixture
def engine(open_engine: Callable[..., Any]) -> Iterator[Any]:
    with closing(open_engine()) as opened:
        yield opened


def tasks(folder: Path, *adapters: str) -> list[Task]:
    return [
        Task(index, adapter, f"a{index}", "key", str(folder / f"{index}.jsonl"))
        for index, adapter in enumerate(adapters)
    ]


def by_index(measured: list[Measured]) -> list[Measured]:
    assert len({one.index for one in measured}) == len(measured), "a task ended twice"
    return sorted(measured, key=lambda one: one.index)


def test_two_workers_measure_all_adapters(engine: Any, tmp_path: Path) -> None:
    """Each task is measured once, on one of two workers, each with a GPU of its own."""
    events = Events()
    measured = by_index([*engine.run(tasks(tmp_path, *["ok"] * 6), events)])
    seen = [json.loads(one.result or "") for one in measured]
    assert engine.workers == 2
    assert [one.index for one in measured] == list(range(6))
    assert {one["gpu"] for one in seen} <= {"0", "1"}
    assert len({one["pid"] for one in seen}) == len({one["gpu"] for one in seen})
    assert os.getpid() not in {one["pid"] for one in seen}
    assert sorted(events.started) == [f"a{index}" for index in range(6)]
    assert events.lost == []


def test_workers_on_other_machines(
    open_engine: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traces come with the results, and a store that is a file is left out, with a word."""
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    cache = SPEC.cache.model_copy(update={"store": "values.db"})
    events = Events()
    with closing(open_engine(spec=SPEC.model_copy(update={"cache": cache}))) as engine:
        for measured in engine.run(tasks(tmp_path, "ok", "ok", "ok"), events):
            trace = tmp_path / f"{measured.index}.jsonl"
            assert trace.read_text() == f"a{measured.index}\n"
            assert json.loads(measured.result)["store"] is None
    (notice,) = events.noticed_lines
    assert notice.startswith("workers have no store: the file values.db is on this machine alone")


def test_more_workers_than_gpus(open_engine: Callable[..., Any], tmp_path: Path) -> None:
    """There is one for each GPU, with a word."""
    events = Events()
    with closing(open_engine(workers=4)) as engine:
        assert engine.workers == 2
        assert len(list(engine.run(tasks(tmp_path, "ok"), events))) == 1
    assert events.noticed_lines == ["2 of 4 workers: the cluster has 2 GPUs"]


def test_an_adapter_whose_worker_died_is_measured_again(engine: Any, tmp_path: Path) -> None:
    """A killed worker is replaced and named, and its adapter measured by another."""
    events = Events()
    adapters = ["ok", f"die:{tmp_path / 'died'}", "ok", "ok"]
    measured = by_index([*engine.run(tasks(tmp_path, *adapters), events)])
    assert [one.error for one in measured] == [None] * 4
    assert sorted(events.started) == ["a0", "a1", "a1", "a2", "a3"]
    (lost,) = events.lost
    assert lost == (
        "its process was killed, or crashed while it measured a1, which is measured again"
    )


def test_two_dead_workers_are_an_error_of_their_adapter(engine: Any, tmp_path: Path) -> None:
    """An adapter that kills its workers is given up after two; the others are measured."""
    events = Events()
    measured = by_index([*engine.run(tasks(tmp_path, "die", "ok", "ok", "ok"), events)])
    assert [one.error is None for one in measured] == [False, True, True, True]
    assert measured[0].error_type == "WorkerLost"
    assert measured[0].error == (
        "2 workers were lost while they measured it: its process was killed, or crashed"
    )
    assert events.started.count("a0") == 2
    assert [line.rpartition(", ")[2] for line in events.lost] == [
        "which is measured again",
        "which is given up",
    ]


def test_an_exception_is_an_error_without_its_message(engine: Any, tmp_path: Path) -> None:
    """An exception of a worker's code costs its adapter, and no prompt is shown."""
    measured = by_index([*engine.run(tasks(tmp_path, "raise", "ok", "ok"), SweepObserver())])
    assert measured[0].error == "RuntimeError in its worker"
    assert [one.error for one in measured[1:]] == [None, None]


def test_a_mistake_that_no_adapter_makes_ends_the_sweep(engine: Any, tmp_path: Path) -> None:
    """A base that no worker can load is a mistake of the user."""
    with pytest.raises(UserError, match="the base is missing"):
        list(engine.run(tasks(tmp_path, "mistake"), SweepObserver()))


@pytest.mark.parametrize("action", ["wait", "wait and fail"])
def test_a_stop_ends_what_runs(engine: Any, tmp_path: Path, action: str) -> None:
    """A stop reaches workers in the middle of an adapter, whatever they make of it."""
    waiting = [tmp_path / "first", tmp_path / "second"]
    ended: list[Measured] = []
    events = Events()

    def stop() -> None:
        while not all(path.exists() for path in waiting):
            time.sleep(0.01)
        engine.request_stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        acts = [f"{action}:{one}" for one in waiting]
        ended.extend(engine.run(tasks(tmp_path, *acts, "ok"), events))
    thread.join()
    assert ended == []
    assert sorted(events.started) == ["a0", "a1"]


def test_a_suite_arrives_as_it_is(engine: Any, tmp_path: Path) -> None:
    """Workers get the suite, with the name of a model whose path was made absolute."""
    (measured,) = engine.run(tasks(tmp_path, "ok"), SweepObserver())
    assert json.loads(measured.result)["suite"] == "base"


def broken_worker(spec: SuiteSpec) -> ActingWorker:
    raise UserError("no such device")


def test_workers_that_cannot_work(open_engine: Callable[..., Any], tmp_path: Path) -> None:
    """What hinders every worker ends the sweep with its sentence."""
    with (
        closing(open_engine(broken_worker)) as engine,
        pytest.raises(UserError, match="no such device"),
    ):
        list(engine.run(tasks(tmp_path, "ok", "ok"), SweepObserver()))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_listens_on_this_machine_alone(engine: Any, tmp_path: Path) -> None:
    """No process of a sweep's own Ray, and not the sweep, listens beyond 127.0.0.1."""
    run = engine.run(tasks(tmp_path, "ok", "ok", "ok"), SweepObserver())
    next(run)  # there are workers
    found = [address for pid in processes_with(RAY_TOKEN) for address in listening(pid)]
    assert len(found) > 4
    assert {*found} <= {"0100007F", "0000000000000000FFFF00000100007F"}


def processes_with(variable: str) -> Iterator[int]:
    """Yield this process, and those started with the value that a variable has in it."""
    yield os.getpid()
    entry = f"{variable}={os.environ[variable]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


def listening(pid: int) -> Iterator[str]:
    """Yield the addresses on which a process listens, as in /proc/net/tcp."""
    links = []
    with suppress(OSError):
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                yield fields[1].partition(":")[0]
