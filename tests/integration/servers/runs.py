"""Runs of the command line, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .processes import SCRAPE_EVERY_S, get, until

PROGRAM = Path(__file__).with_name("scripted_cli.py")
NAME, MODEL = "nightly", "models/tiny"

_LONGEST_S = 120.0
_EASY = {"min_linearity": 0.01, "min_saturation": 0.01, "min_overshoot": 0.01}
#: Without time, and so the same in every run.
_MEASURED = ("name", "kind", "verdict", "score", "raw", "z_score", "ci_95", "message", "evidence")


def suite(**changes: Any) -> dict[str, Any]:
    """A suite that passes, with hits, coalesced lookups and evictions; `hold` can be held."""
    easy = {"kind": "delta_kl", "min_mean": 0.000001, "min_z": 0.000001}
    probes = [
        {"name": "noise", "kind": "null_adapter", "runs": 2, "sentinel_prompts": ["s", "t"]},
        {"name": "change", "prompts": ["a", "b", "c", "a"], **easy},
        {"name": "held", "prompts": ["b", "hold", "c"], **easy},
        {"name": "response", "kind": "adapter_ablation", "prompts": ["b", "c"], **_EASY},
    ]
    whole = {
        "version": 1,
        "name": NAME,
        "period": "1d",
        "model": {"path": MODEL, "adapter": "adapters/tuned"},
        "cache": {"max_entries": 16},
        "probes": probes,
    }
    return whole | changes


def suite_with_trouble() -> dict[str, Any]:
    """The same with a probe whose model fails and one that does not pass."""
    whole = suite()
    whole["probes"] += [
        {"name": "wrong", "kind": "delta_kl", "prompts": ["b", "raise"]},
        {"name": "poor", "kind": "delta_kl", "prompts": ["a", "b"], "min_z": 1e9},
    ]
    return whole


@dataclass(frozen=True)
class Run:
    """What one run left behind.

    Attributes:
        status: Its exit status.
        stdout: The report.
        stderr: Whatever else it said.
        seconds: From start to end of the process; what it was held for not included.
        folder: Where its files are.
    """

    status: int
    stdout: str
    stderr: str
    seconds: float
    folder: Path

    @cached_property
    def result(self) -> dict[str, Any]:
        """The result that it wrote."""
        return dict(json.loads((self.folder / "result.json").read_text()))

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The lines of its trace."""
        return [json.loads(line) for line in (self.folder / "trace.jsonl").read_text().splitlines()]

    @property
    def run_id(self) -> str:
        """Its id."""
        return str(self.result["run_id"])

    @property
    def paid(self) -> int:
        """Forward passes that it paid."""
        return int(self.result["backend_stats"]["forward_passes"])

    @property
    def planned(self) -> int:
        """Forward passes that it should have paid."""
        return int(self.result["expected_forward_passes"])

    @property
    def lookups(self) -> int:
        """How many questions it asked."""
        return int(self.result["reconciliation"]["lookups"])

    @property
    def measured(self) -> list[dict[str, Any]]:
        """What each probe measured, without times."""
        return [{name: probe[name] for name in _MEASURED} for probe in self.result["probes"]]

    def delivery(self, to: str) -> dict[str, Any]:
        """What became of one way out."""
        (found,) = (one for one in self.result["delivery"] if one["to"].startswith(to))
        return dict(found)

    @property
    def spans_exported(self) -> int:
        """How many spans it says were exported."""
        return int(self.delivery("OTLP")["what"].split()[0])


@dataclass
class LiveRun:
    """A run that goes on.

    Attributes:
        folder: Where its files are.
        process: Its process.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    _started: float = field(default_factory=time.monotonic)
    _held_s: float = 0.0

    @cached_property
    def metrics_url(self) -> str:
        """Where it can be scraped, as it says itself."""

        def said() -> list[str]:
            lines = (self.folder / "stderr").read_text().splitlines(keepends=True)
            return [line for line in lines if line.startswith("metrics: ") and line[-1] == "\n"]

        (line,) = until(said, "the run says where it can be scraped")
        return line.removeprefix("metrics: ").strip()

    def until_held(self) -> LiveRun:
        """Wait until the model waits for `release`."""
        reached = self.folder / "reached"
        until(lambda: reached.exists() or self.process.poll() is not None, "the run is held")
        assert self.process.poll() is None, (self.folder / "stderr").read_text()
        self._reached = time.monotonic()
        return self

    def signal_until_noticed(self, number: int) -> None:
        """Send a signal, and return when the run says on stderr that a second one ends it."""
        self.process.send_signal(number)
        said = self.folder / "stderr"
        until(lambda: "a second signal ends the run" in said.read_text(), "the signal is noticed")

    def release(self) -> None:
        """Let the model go on."""
        self._held_s = time.monotonic() - self._reached
        (self.folder / "go").touch()

    def scrape_to_the_end(self, accept: str = "*/*") -> str:
        """Scrape until nobody answers any more, and return the last answer."""
        last: list[str] = []

        def gone() -> bool:
            try:
                last.append(get(self.metrics_url, accept))
            except OSError:
                return True
            return False

        until(gone, "the run's endpoint is gone", every_s=SCRAPE_EVERY_S)
        return last[-1]

    def finish(self) -> Run:
        """Wait for its end."""
        status = self.process.wait(_LONGEST_S)
        seconds = time.monotonic() - self._started - self._held_s
        stdout, stderr = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
        return Run(status, stdout, stderr, seconds, self.folder)

    def end(self) -> None:
        """End it, where it still goes on."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Cli:
    """Starts runs; each has a folder of its own.

    Args:
        folder: For theirs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[LiveRun] = []

    def start(
        self,
        spec: dict[str, Any],
        *options: object,
        hold: bool = False,
        stdout: int | None = None,
        **environment: str,
    ) -> LiveRun:
        """Start a run of a suite, with a trace and a result.

        Args:
            spec: The suite.
            *options: More of them.
            hold: Hold it at the prompt `hold`.
            stdout: A file descriptor for its stdout; by default it goes to a file.
            **environment: Variables that it runs under.
        """
        folder = self._folder_of(spec)
        command = ["run", "suite.yaml", *map(str, options)]
        command += ["--trace", "trace.jsonl", "--json", "result.json"]
        env = environment | ({"SCRIPT_HOLD": str(folder)} if hold else {})
        return self._start(folder, command, env, stdout)

    def sweep(
        self, spec: dict[str, Any], adapters: Sequence[str], *options: object, **environment: str
    ) -> Run:
        """Run a sweep over adapters of these names, and wait for its end; its folder is `sweep`."""
        folder = self._folder_of(spec)
        for name in adapters:
            (folder / "adapters" / name).mkdir(parents=True)
            config = folder / "adapters" / name / "adapter_config.json"
            config.write_text(json.dumps({"name": name}))
        command = ["sweep", "suite.yaml", "--adapters", "adapters/*", "-o", "sweep"]
        return self._start(folder, [*command, *map(str, options)], environment).finish()

    def _folder_of(self, spec: dict[str, Any]) -> Path:
        folder = self._folder / f"run-{len(self._runs)}"
        folder.mkdir()
        (folder / "suite.yaml").write_text(yaml.safe_dump(spec))
        return folder

    def _start(
        self,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | None = None,
    ) -> LiveRun:
        command = [sys.executable, str(PROGRAM), *command]
        env = _clean() | environment
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            pipe = out if stdout is None else stdout
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=err)
        self._runs.append(LiveRun(folder, process))
        return self._runs[-1]

    def run(self, spec: dict[str, Any], *options: object, **environment: str) -> Run:
        """Start a run and wait for its end."""
        return self.start(spec, *options, hold=False, **environment).finish()

    def close(self) -> None:
        """End what still goes on."""
        for one in self._runs:
            one.end()


def _clean() -> dict[str, str]:
    """This environment without anything that changes telemetry or the report."""
    ours = ("OTEL_", "TRACE", "SCRIPT_", "FORWARDSCOPE_", "FORCE_", "TTY_", "PROMETHEUS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept = {name: value for name, value in kept.items() if "proxy" not in name.lower()}
    return kept | {"COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
