"""Sweeps with two workers, in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..conftest import Zoo
from .processes import until

_MARK = "FORWARDSCOPE_TEST_MARK"
NODE = "forwardscope.sweep.ray_node"
ADAPTERS = 8
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
        line = f"{adapters}/{ADAPTERS} "
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


@contextmanager
def prepared_sweep(zoo: Zoo, folder: Path) -> Iterator[Running]:
    """Yield a sweep of eight adapters that is not started; it is killed at the end if it runs.

    SIGINT reaches it, also where the tests run in the background of a shell.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    for index in range(ADAPTERS):
        kind = "llama_lora" if index % 2 else "llama_other"
        shutil.copytree(zoo.path(kind), folder / "adapters" / f"checkpoint-{index}")
    names = {"model": zoo.path("llama"), "adapter": zoo.path("llama_lora")}
    (folder / "suite.yaml").write_text(_SUITE.format(**names))
    sweep = Running(folder)
    try:
        yield sweep
    finally:
        signal.signal(signal.SIGINT, before)
        if sweep.process.poll() is None:
            sweep.process.kill()
            sweep.process.wait()
