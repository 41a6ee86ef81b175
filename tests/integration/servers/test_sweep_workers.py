"""Sweeps with two workers on Ray, as a user runs them, on tiny models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ..conftest import Zoo
from .processes import until
from .receivers import Receiver

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

_MARK = "FORWARDSCOPE_TEST_MARK"
_NODE = "forwardscope.sweep.ray_node"
_ADAPTERS = 8
_SUITE = """
version: 1
name: checkpoints
model: {{path: {model}, adapter: {adapter}, device: cpu}}
probes:
  - {{kind: delta_kl, name: delta, prompts: [the cat sat, hello there, the weather]}}
"""


@dataclass
class Running:
    """A sweep in a process of its own.

    Attributes:
        folder: Its working folder.
        mark: A variable's value in the environment of all of its processes.
        process: The process; `start` replaces it.
    """

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[str] = field(init=False)

    def start(self, *options: object) -> None:
        """Start the sweep."""
        command = [sys.executable, "-m", "forwardscope", "sweep", "suite.yaml"]
        with (self.folder / "stdout").open("w") as out, (self.folder / "stderr").open("w") as err:
            self.process = subprocess.Popen(
                [*command, "--adapters", "adapters/*", "-o", "swept", *map(str, options)],
                cwd=self.folder,
                env={**os.environ, _MARK: self.mark, "FORWARDSCOPE_STORE": ""},
                stdout=out,
                stderr=err,
            )

    @property
    def said(self) -> str:
        """What it printed on stderr."""
        return (self.folder / "stderr").read_text()

    @property
    def result(self) -> dict[str, Any]:
        """The result that it wrote."""
        return dict(json.loads((self.folder / "swept" / "sweep.json").read_text()))

    def wait_for_finished(self, adapters: int) -> None:
        """Wait until it says that some adapters have ended."""
        line = f"{adapters}/{_ADAPTERS} "
        until(lambda: line in self.said or self.process.poll() is not None, f"{line} is printed")
        assert self.process.poll() is None, self.said

    def others(self) -> dict[int, str]:
        """Return the command lines of all of its other processes."""
        entry = f"{_MARK}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
        found.pop(self.process.pid, None)
        return found

    def workers(self) -> list[int]:
        """Return the processes of its workers."""
        return [pid for pid, line in self.others().items() if line.startswith("ray::RemoteWorker")]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let SIGINT reach the sweeps, also where these tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def running(zoo: Zoo, tmp_path: Path) -> Iterator[Running]:
    """A sweep of eight adapters."""
    for index in range(_ADAPTERS):
        kind = "llama_lora" if index % 2 else "llama_other"
        shutil.copytree(zoo.path(kind), tmp_path / "adapters" / f"checkpoint-{index}")
    names = {"model": zoo.path("llama"), "adapter": zoo.path("llama_lora")}
    (tmp_path / "suite.yaml").write_text(_SUITE.format(**names))
    sweep = Running(tmp_path)
    yield sweep
    if sweep.process.poll() is None:
        sweep.process.kill()
        sweep.process.wait()


def test_a_killed_worker(running: Running, otlp_http: Receiver) -> None:
    """A worker that is killed costs no adapter; the report names it, and there is one trace."""
    running.start("--workers", 2, "--otlp", otlp_http.url)
    running.wait_for_finished(1)
    os.kill(running.workers()[0], signal.SIGKILL)
    assert running.process.wait(120) in (0, 1), running.said
    rows = running.result["rows"]
    assert [row["status"] for row in rows] == ["finished"] * _ADAPTERS
    (lost,) = running.result["events"]
    assert "was lost: its process was killed, or crashed while it measured checkpoint-" in lost
    assert lost in " ".join(running.said.split())
    until(lambda: not running.others(), "all processes have ended")
    spans = otlp_http.spans()
    (sweep,) = [span for span in spans if span.name == "sweep checkpoints"]
    runs = {span.parent_span_id for span in spans if span.name == "suite checkpoints"}
    assert runs == {sweep.span_id}
    assert {span.trace_id.hex() for span in spans} == {running.result["trace_id"]}


def test_an_interrupted_sweep_goes_on(running: Running) -> None:
    """No process is left behind, and the same command measures only what is missing."""
    running.start("--workers", 2)
    running.wait_for_finished(2)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 130
    until(lambda: not running.others(), "all processes have ended")
    assert len(running.result["rows"]) + len(running.result["not_run"]) == _ADAPTERS
    check_that_it_goes_on(running)


def test_a_killed_sweep_goes_on(running: Running) -> None:
    """The processes of its Ray end with it, and their files are removed."""
    running.start("--workers", 2)
    running.wait_for_finished(2)
    (folder,) = ray_folders(running)
    running.process.kill()
    running.process.wait()
    until(lambda: not running.others(), "all processes have ended")
    assert not folder.exists()
    check_that_it_goes_on(running)


def ray_folders(running: Running) -> set[Path]:
    """Return the folders of the Ray that a sweep started."""
    lines = [line.split("\0") for line in running.others().values()]
    return {Path(line[line.index(_NODE) + 1]) for line in lines if _NODE in line}


def check_that_it_goes_on(running: Running) -> None:
    """The same command, here without workers, measures what is missing."""
    running.start()
    assert running.process.wait(120) in (0, 1), running.said
    status = [row["status"] for row in running.result["rows"]]
    assert status.count("resumed") >= 2
    assert status.count("resumed") + status.count("finished") == _ADAPTERS
