"""Sweeps with two workers on Ray, as a user runs them, on tiny models."""

from __future__ import annotations

import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .processes import until
from .receivers import Receiver
from .sweeps import ADAPTERS, NODE, Running

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_a_killed_worker(running: Running, otlp_http: Receiver) -> None:
    """A worker that is killed costs no adapter; the report names it, and there is one trace."""
    running.start("--workers", 2, "--otlp", otlp_http.url)
    running.wait_for_finished(1)
    os.kill(running.workers()[0], signal.SIGKILL)
    assert running.process.wait(120) in (0, 1), running.said
    rows = running.result["rows"]
    assert [row["status"] for row in rows] == ["finished"] * ADAPTERS
    (lost,) = running.result["events"]
    assert "was lost: its process was killed, or crashed while it measured checkpoint-" in lost
    assert lost in " ".join(running.said.split())
    until(lambda: not running.others(), "all processes have ended")
    spans = otlp_http.spans()
    (sweep,) = [span for span in spans if span.name == "sweep checkpoints"]
    runs = {span.parent_span_id for span in spans if span.name == "suite checkpoints"}
    assert runs == {sweep.span_id}
    assert {span.trace_id.hex() for span in spans} == {running.result["trace_id"]}


def test_the_metrics_file_is_the_sweeps(running: Running) -> None:
    """It has gauges of all adapters, and no worker writes its runs, or no run at all, into it."""
    running.start("--workers", 2, "--metrics-file", "sweep.prom")
    found: set[str] = set()

    def ended() -> bool:
        file = running.folder / "sweep.prom"
        text = file.read_text() if file.exists() else ""
        found.update(re.findall(r"^forwardscope_[a-z]+", text, re.MULTILINE))
        return running.process.poll() is not None

    until(ended, "the sweep has ended", every_s=0.1)
    assert running.process.returncode in (0, 1), running.said
    assert found == {"forwardscope_sweep"}
    text = (running.folder / "sweep.prom").read_text()
    finished = rf'^forwardscope_sweep_adapters{{.*state="finished".*}} {ADAPTERS}\.0$'
    assert re.search(finished, text, re.MULTILINE)
    workers = re.search(r"^forwardscope_sweep_workers{.*} (.+)$", text, re.MULTILINE)
    assert float(workers[1]) == 2


def test_an_interrupted_sweep_goes_on(running: Running) -> None:
    """No process is left behind, and the same command measures only what is missing."""
    running.start("--workers", 2)
    running.wait_for_finished(2)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 130
    until(lambda: not running.others(), "all processes have ended")
    assert len(running.result["rows"]) + len(running.result["not_run"]) == ADAPTERS
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
    return {Path(line[line.index(NODE) + 1]) for line in lines if NODE in line}


def check_that_it_goes_on(running: Running) -> None:
    """The same command, here without workers, measures what is missing."""
    running.start()
    assert running.process.wait(120) in (0, 1), running.said
    status = [row["status"] for row in running.result["rows"]]
    assert status.count("resumed") >= 2
    assert status.count("resumed") + status.count("finished") == ADAPTERS
