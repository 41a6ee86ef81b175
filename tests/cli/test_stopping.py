"""Stopping of work in a worker thread by SIGINT and SIGTERM."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from contextvars import ContextVar
from typing import Any

import pytest

from forwardscope.cli.stopping import Stop, Stopped, run_stoppable

_TIMEOUT_S = 60.0
_VARIABLE: ContextVar[str] = ContextVar("_VARIABLE", default="")

each_signal = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[Any]]:
    """The handlers before the test; after it they are installed again."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield before
    assert [signal.getsignal(number) for number in numbers] == before


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def interrupted(number: int, until_stopped: Callable[[], object]) -> Callable[[Stop], None]:
    """Return work that sends itself a signal and stops when a stop is requested.

    Args:
        number: The signal.
        until_stopped: A condition that the work waits for before it stops.
    """

    def work(stop: Stop) -> None:
        requested = threading.Event()
        stop.on_request(requested.set)
        os.kill(os.getpid(), number)
        assert requested.wait(_TIMEOUT_S)
        until(until_stopped)
        raise KeyboardInterrupt

    return work


def test_work_runs_in_another_thread_with_the_callers_context() -> None:
    """The value of the work is returned, and without a signal no stop is requested."""
    _VARIABLE.set("of the caller")
    requests: list[int] = []

    def work(stop: Stop) -> tuple[threading.Thread, str]:
        stop.on_request(lambda: requests.append(1))
        return threading.current_thread(), _VARIABLE.get()

    thread, value = run_stoppable(work)
    assert thread is not threading.main_thread()
    assert value == "of the caller"
    assert requests == []


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_an_exception_is_raised_unchanged(error: BaseException) -> None:
    """An exception of the work is raised in the main thread."""

    def work(_: Stop) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        run_stoppable(work)
    assert raised.value is error


@each_signal
def test_the_first_signal_requests_a_stop(number: int) -> None:
    """The exit status has the signal's number, and the notice is printed on stderr."""
    with redirect_stderr(io.StringIO()) as stderr, pytest.raises(Stopped) as raised:
        run_stoppable(interrupted(number, stderr.getvalue))
    assert raised.value.status == 128 + number
    assert stderr.getvalue() == (
        "stopping before the next forward pass; a second signal ends the run at once\n"
    )


def test_keyboard_interrupt_without_a_signal_is_a_stop() -> None:
    """The exit status is that of SIGINT, and nothing is printed."""

    def work(_: Stop) -> None:
        raise KeyboardInterrupt

    with redirect_stderr(io.StringIO()) as stderr, pytest.raises(Stopped) as raised:
        run_stoppable(work)
    assert raised.value.status == 130
    assert stderr.getvalue() == ""


def test_work_that_runs_to_its_end_is_not_stopped() -> None:
    """After a signal the value of the work is still returned, and its notice is printed."""

    def work(stop: Stop) -> str:
        stop.notice = "nearly done"
        os.kill(os.getpid(), signal.SIGINT)
        until(stderr.getvalue)
        return "value"

    with redirect_stderr(io.StringIO()) as stderr:
        assert run_stoppable(work) == "value"
    assert stderr.getvalue() == "nearly done; a second signal ends the run at once\n"


def test_a_duplicate_signal_counts_once() -> None:
    """The same signal again does not end the process before the notice is printed."""
    sent: list[int] = []

    def send_again() -> None:  # in the main thread, which takes it before this returns
        signal.raise_signal(signal.SIGTERM)
        sent.append(2)

    def work(stop: Stop) -> str:
        stop.on_request(send_again)
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: sent)
        return "value"

    assert run_stoppable(work) == "value"


def test_functions_registered_after_the_request_are_called_at_once() -> None:
    """Each function is called once."""
    stop, calls = Stop(), []
    stop.on_request(lambda: calls.append("before"))
    stop.request()
    stop.on_request(lambda: calls.append("after"))
    assert calls == ["before", "after"]


class _NoReader(io.StringIO):
    """A pipe without a reader."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("broken", [None, _NoReader(), _closed()], ids=["none", "pipe", "closed"])
def test_a_stop_without_stderr(monkeypatch: pytest.MonkeyPatch, broken: io.StringIO | None) -> None:
    """The work stops if the notice cannot be printed."""
    monkeypatch.setattr(sys, "stderr", broken)
    start = time.monotonic()
    with pytest.raises(Stopped):
        run_stoppable(interrupted(signal.SIGINT, lambda: time.monotonic() > start + 0.5))


def test_an_ignored_signal_stays_ignored() -> None:
    """A shell ignores SIGINT for a command in the background."""

    def work(_: Stop) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return signal.getsignal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_stoppable(work) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_it_is_a_plain_call(
    in_thread: Callable[..., Any], handlers: list[Any]
) -> None:
    """There is no other thread and no handler, and exceptions are unchanged."""

    def work(_: Stop) -> None:
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
        seen.append(threading.current_thread())
        raise KeyboardInterrupt

    def call() -> None:
        seen.append(threading.current_thread())
        run_stoppable(work)

    seen: list[threading.Thread] = []
    assert type(in_thread(call).exception(_TIMEOUT_S)) is KeyboardInterrupt
    assert seen[0] is seen[1]


_HANGS = """
import threading
from forwardscope.cli.stopping import run_stoppable

def work(stop):
    print("started", flush=True)
    threading.Event().wait()

run_stoppable(work)
"""


@each_signal
def test_the_second_signal_ends_the_process_at_once(number: int) -> None:
    """The exit status is that of the second signal, even if the work never returns."""
    command = [sys.executable, "-c", _HANGS]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline().startswith("stopping before ")
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(_TIMEOUT_S) == 128 + number
        finally:
            process.kill()


_HANGS_WITH_A_BAR = """
import threading
from forwardscope.cli.progress import steps
from forwardscope.cli.stopping import run_stoppable

def work(stop):
    with steps(quiet=False) as report:
        report("waiting", 0, 1)
        threading.Event().wait()

run_stoppable(work)
"""


def test_the_terminal_is_restored() -> None:
    """The notice is printed above the bar, and the second signal shows the cursor again."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", _HANGS_WITH_A_BAR]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with os.fdopen(ours, "rb", 0) as terminal:
        process = subprocess.Popen(command, stderr=theirs, env=env)
        os.close(theirs)
        try:
            output = b""
            for number, awaited in ((signal.SIGINT, b"waiting"), (signal.SIGINT, b"at once\r\n")):
                while awaited not in output:
                    output += terminal.read(1024)
                process.send_signal(number)
            assert process.wait(_TIMEOUT_S) == 130
            with suppress(OSError):  # the terminal's other end is closed
                while more := terminal.read(1024):
                    output += more
        finally:
            process.kill()
    assert b"\nstopping before " in output.replace(b"\x1b[2K", b"").replace(b"\r", b"\n")
    assert b"\x1b[?25l" in output
    assert output.endswith(b"\x1b[?25h")


_MANY_LINES = """
import sys
from forwardscope.cli.stopping import run_stoppable

def work(stop):
    sys.stderr.write("x" * 1_000_000)

run_stoppable(work)
"""


def test_the_second_signal_ends_a_process_with_a_full_stderr() -> None:
    """The notice cannot be printed, since no program reads the pipe."""
    with subprocess.Popen([sys.executable, "-c", _MANY_LINES], stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr.read(1) == b"x"
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)  # time to try to print the notice, which cannot be observed
            process.send_signal(signal.SIGTERM)
            assert process.wait(_TIMEOUT_S) == 143
        finally:
            process.kill()
