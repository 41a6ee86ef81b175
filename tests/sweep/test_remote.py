"""What goes to workers in other processes and comes back, without Ray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forwardscope.errors import UserError
from forwardscope.suite import SuiteSpec
from forwardscope.sweep import Measured, Task
from forwardscope.sweep.remote import (
    Answer,
    MeasuresTasks,
    RemoteWorker,
    decode_answer,
    encode_suite,
    encode_task,
)


class Recorded:
    """A worker that writes a line of trace, and raises what it is told."""

    def __init__(self, spec: SuiteSpec, raises: BaseException | None = None) -> None:
        self.spec = spec
        self.raises = raises
        self.stopped = False

    def measure(self, task: Task) -> Measured:
        Path(task.trace).write_text(f"{task.adapter}\n")
        if self.raises is not None:
            raise self.raises
        return Measured(task.index, "{}", notes=("a note",))

    def request_stop(self) -> None:
        self.stopped = True

    def close(self) -> None: ...


def remote(
    spec: SuiteSpec, raises: BaseException | None = None, *, same_machine: bool = False
) -> tuple[RemoteWorker, list[Recorded]]:
    made: list[Recorded] = []

    def open_worker(arrived: SuiteSpec) -> MeasuresTasks:
        made.append(Recorded(arrived, raises))
        return made[-1]

    suite = encode_suite(spec, same_machine=same_machine)
    return RemoteWorker(suite, {}, open_worker, same_machine=same_machine), made


def a_task(folder: Path, adapter: str = "hub/adapter") -> Task:
    return Task(3, adapter, "label", "key", str(folder / "trace.jsonl"))


def test_a_suite_arrives_whole(spec: SuiteSpec, tmp_path: Path) -> None:
    """Probes, cache and telemetry are those of the sweep."""
    worker, made = remote(spec, same_machine=True)
    worker.measure(encode_task(a_task(tmp_path)))
    (arrived,) = [one.spec for one in made]
    assert arrived.probes == spec.probes
    assert arrived.cache == spec.cache
    assert arrived.telemetry == spec.telemetry


def test_paths_are_absolute(
    spec: SuiteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have other working folders; hub ids stay, and so does the model's name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    model = spec.model.model_copy(update={"path": "base"})
    worker, made = remote(spec.model_copy(update={"model": model}), same_machine=True)
    monkeypatch.setattr(Recorded, "measure", lambda _, task: Measured(3, task.adapter))
    for adapter, expected in (("adapter", str(tmp_path / "adapter")), ("hub/id", "hub/id")):
        task = a_task(tmp_path, adapter)
        answer, _ = worker.measure(encode_task(task))
        assert decode_answer(answer, task).measured == Measured(3, expected)
    assert (made[0].spec.model.path, made[0].spec.model.label) == (str(tmp_path / "base"), "base")


@pytest.mark.parametrize(
    ("store", "there"),
    [("values.db", None), ("default", "default"), ("redis://host", "redis://host")],
)
def test_a_store_that_is_a_file_is_of_one_machine(
    spec: SuiteSpec, tmp_path: Path, store: str, there: str | None
) -> None:
    """Workers on other machines do without it; those on this one get its absolute path."""
    cache = spec.cache.model_copy(update={"store": store})
    suite = spec.model_copy(update={"cache": cache})
    for same_machine in (False, True):
        worker, made = remote(suite, same_machine=same_machine)
        worker.measure(encode_task(a_task(tmp_path)))
        expected = there or (str(Path.cwd() / store) if same_machine else None)
        assert made[0].spec.cache.store == expected


def test_traces_of_other_machines_come_back(spec: SuiteSpec, tmp_path: Path) -> None:
    """The trace is in the answer, and nothing is written where the sweep would write it."""
    worker, _ = remote(spec)
    task = a_task(tmp_path)
    answer, trace = worker.measure(encode_task(task))
    assert decode_answer(answer, task) == Answer(Measured(3, "{}", notes=("a note",)))
    assert trace == b"hub/adapter\n"
    assert not Path(task.trace).exists()


def test_traces_of_this_machine_are_where_they_belong(spec: SuiteSpec, tmp_path: Path) -> None:
    """A worker that is killed leaves the lookups that it answered."""
    worker, _ = remote(spec, same_machine=True)
    task = a_task(tmp_path)
    assert worker.measure(encode_task(task))[1] == b""
    assert Path(task.trace).read_text() == "hub/adapter\n"


@pytest.mark.parametrize(
    ("raised", "answer"),
    [
        (UserError("no base"), Answer(mistake="no base")),
        (KeyboardInterrupt(), Answer()),
    ],
)
def test_mistakes_and_stops_are_answers(
    spec: SuiteSpec, tmp_path: Path, raised: BaseException, answer: Answer
) -> None:
    """No exception travels; the trace so far does."""
    worker, _ = remote(spec, raised)
    task = a_task(tmp_path)
    encoded, trace = worker.measure(encode_task(task))
    assert decode_answer(encoded, task) == answer
    assert trace == b"hub/adapter\n"


def test_a_stop_before_the_first_task(spec: SuiteSpec, tmp_path: Path) -> None:
    """It reaches the worker that is made later."""
    worker, made = remote(spec)
    worker.request_stop()
    worker.measure(encode_task(a_task(tmp_path)))
    assert made[0].stopped


def test_a_suite_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    """A worker without the package of a probe says so."""
    suite = (
        '{"version": 1, "model": {"path": "m", "adapter": "a"}, "probes": [{"kind": "elsewhere"}]}'
    )
    worker = RemoteWorker(suite, {}, Recorded, same_machine=False)
    task = a_task(tmp_path)
    mistake = decode_answer(worker.measure(encode_task(task))[0], task).mistake
    assert mistake is not None
    assert "cannot read the suite: probes.0" in mistake


@pytest.mark.parametrize("answer", ["", "{", '{"measured": {"index": 4}}', '{"measured": 1}'])
def test_an_answer_to_nothing_is_an_error(tmp_path: Path, answer: str) -> None:
    """What a worker returns is checked."""
    with pytest.raises(ValueError, match=r"."):
        decode_answer(answer, a_task(tmp_path))


def test_variables_of_the_sweep(spec: SuiteSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """They replace those of the worker's process when it starts."""
    monkeypatch.setenv("FORWARDSCOPE_STORE", "other")
    variables = {"FORWARDSCOPE_STORE": "mine"}
    suite = encode_suite(spec, same_machine=True)
    worker = RemoteWorker(suite, variables, Recorded, same_machine=True)
    name, _version = worker.start()
    assert os.environ["FORWARDSCOPE_STORE"] == "mine"
    assert str(os.getpid()) in name
