"""SIGINT and SIGTERM at any moment of a run: it ends soon, and what it says and leaves is true.

`FORWARDSCOPE_SOAK=400` sends as many signals at random moments, in place of 20.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from forwardscope.telemetry.names import kind_of

from .processes import key, parse, until
from .receivers import Receiver, receive_pushes
from .runs import MODEL, NAME, Cli, LiveRun, suite

_SIGNALS = int(os.environ.get("FORWARDSCOPE_SOAK", "20"))
_AT_ONCE = 2
_LONGEST_S = 120.0
_PROMPT_TAKES_S = "0.05"  # so that most of a run is its suite
_ACTIVE = key("forwardscope_run_active", suite=NAME, model=MODEL)
_STOPPED = "interrupted; no result was written"

both = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let SIGINT reach the runs, also where these tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def exporters(otlp_http: Receiver) -> Iterator[tuple[object, ...]]:
    """The options for every exporter; their servers are up."""
    with receive_pushes() as gateway:
        files = ("--metrics-port", 0, "--metrics-file", "run.prom")
        yield ("--otlp", otlp_http.url, "--pushgateway", gateway, *files)


@dataclass(frozen=True)
class Struck:
    """A run that got a signal, and has ended.

    Attributes:
        live: The run.
        number: The signal.
        after_s: When it was sent, in seconds from the start.
        handled: Whether the run had opened its trace before, and so had its handlers.
    """

    live: LiveRun
    number: int
    after_s: float
    handled: bool

    def mistakes(self) -> Iterator[str]:
        """Yield what is wrong with what the run says and leaves."""
        folder, status = self.live.folder, self.live.process.poll()
        stdout, stderr = ((folder / name).read_text() for name in ("stdout", "stderr"))
        result, written = folder / "result.json", (folder / "result.json").exists()
        whole = written and not json.loads(result.read_text())["not_run"]
        if status not in self._allowed(whole):
            yield f"exit status {status}"
        if whole and status != 0 and "reconciled: " not in stdout:
            yield "it was ended before its report was printed"
        if (_STOPPED in stderr) == written and self.handled:
            yield "what it says of its result is not so"
        if self.handled and "Traceback" in stderr:
            yield "a traceback"
        yield from self._mistakes_in_files(folder)

    def _allowed(self, whole: bool) -> set[int | None]:
        """The exit statuses that a run of this outcome may have.

        A run that was stopped has 128 plus the signal. So has the program where the
        signal came before its handlers were there or after they were gone, and Python
        ran; else the system has ended it, which is minus the signal. Where Python or an
        import was interrupted, either may turn the interrupt into an error, which is 1.
        A run that wrote its whole result has its own status, 0, unless the signal came later.
        """
        stopped, ended = 128 + self.number, -self.number
        if whole:
            return {0, stopped, ended}
        if self.handled:
            return {stopped}
        return {stopped, ended, 1} if self.number == signal.SIGINT else {stopped, ended}

    def _mistakes_in_files(self, folder: Path) -> Iterator[str]:
        trace, metrics = folder / "trace.jsonl", folder / "run.prom"
        lines = trace.read_text().splitlines(keepends=True) if trace.exists() else []
        for line in lines:
            json.loads(line)
        if lines and lines[-1][-1] != "\n":
            yield "a torn line in the trace"
        samples = parse(metrics.read_text()) if metrics.exists() else {}
        if samples.get(_ACTIVE, 0) != 0:
            yield "its metrics say that it goes on"


def strike(cli: Cli, options: tuple[object, ...], number: int, after_s: float) -> Struck:
    """Send a run a signal some time after its start, and wait for its end."""
    live = cli.start(suite(), *options, SCRIPT_SLEEP_S=_PROMPT_TAKES_S)
    with suppress(subprocess.TimeoutExpired):
        live.process.wait(after_s)
    handled = (live.folder / "trace.jsonl").exists()
    live.process.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        live.process.wait(_LONGEST_S)
    return Struck(live, number, after_s, handled)


@pytest.mark.timeout(3600 + 30 * _SIGNALS)
def test_a_signal_at_any_moment(tmp_path: Path, exporters: tuple[object, ...]) -> None:
    """With every exporter on it ends; status, result and trace are as they must be."""
    alone = tmp_path / "alone"
    alone.mkdir()
    whole = Cli(alone).run(suite(), *exporters, SCRIPT_SLEEP_S=_PROMPT_TAKES_S)
    assert whole.status == 0
    assert all(one["ok"] for one in whole.result["delivery"])
    chance = random.Random(0)  # noqa: S311 - the same in every run
    plan = [
        (chance.choice((signal.SIGINT, signal.SIGTERM)), chance.uniform(0, 1.1 * whole.seconds))
        for _ in range(_SIGNALS)
    ]

    def run(index: int) -> list[str]:
        number, after_s = plan[index]
        folder = tmp_path / str(index)
        folder.mkdir()
        cli = Cli(folder)
        try:
            struck = strike(cli, exporters, number, after_s)
            return [f"{number.name} after {after_s:.3f} s: {one}" for one in struck.mistakes()]
        finally:
            cli.close()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        assert [one for found in pool.map(run, range(_SIGNALS)) for one in found] == []


@both
def test_a_stop_in_a_forward_pass(
    cli: Cli, exporters: tuple[object, ...], otlp_http: Receiver, number: int
) -> None:
    """The pass ends and is traced, no other begins, and all that there is to export is exported."""
    live = cli.start(suite(), *exporters, hold=True).until_held()
    live.signal_until_noticed(number)
    live.release()
    run = live.finish()
    assert run.status == 128 + number
    assert run.stderr.splitlines()[-1] == "interrupted"
    assert run.records[-1]["probe"] == "held"
    assert {one["error"] for one in run.records if "error" in one} == set()
    (trace_id,) = {one["trace_id"] for one in run.records}
    (exported,) = re.findall(r"^OTLP .*: (\d+) spans exported$", run.stderr, re.MULTILINE)
    spans = otlp_http.wait_for(trace_id, int(exported))
    ids = {one.span_id for one in spans}
    assert [one.name for one in spans if one.parent_span_id not in ids] == [f"suite {NAME}"]
    assert sum(kind_of(one.name) == "lookup" for one in spans) == len(run.records)
    assert run.result["not_run"][0] == "held"
    assert run.result["reconciliation"]["holds"]


@both
def test_a_second_signal_in_a_forward_pass_that_hangs(
    cli: Cli, exporters: tuple[object, ...], number: int
) -> None:
    """It ends the run at once, with the status of that signal; the lines of the trace are whole."""
    live = cli.start(suite(), *exporters, hold=True).until_held()
    live.signal_until_noticed(signal.SIGINT)
    assert live.process.poll() is None
    live.process.send_signal(number)
    assert live.process.wait(_LONGEST_S) == 128 + number
    assert "interrupted" not in (live.folder / "stderr").read_text()
    assert len(live.finish().records) > 0


@both
def test_a_signal_while_the_report_is_printed(tmp_path: Path, number: int) -> None:
    """It costs neither result nor report nor exit status, and no line says that it did."""
    ours, theirs = os.pipe()
    fill(theirs)
    live = Cli(tmp_path).start(suite(), stdout=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        result = live.folder / "result.json"
        until(result.exists, "the result is written")
        live.signal_until_noticed(number)
        report = pipe.read().lstrip(b".").decode()
    run = live.finish()
    assert run.status == 0
    assert run.stderr.splitlines() == [
        "all probes have run; the run continues to its end; a second signal ends the run at once"
    ]
    assert f"reconciled: {run.lookups} lookups = {run.lookups} trace records" in report


def fill(pipe: int) -> None:
    """Write to a pipe until it takes nothing more before it is read."""
    os.set_blocking(pipe, False)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(pipe, b"." * size)
    os.set_blocking(pipe, True)
