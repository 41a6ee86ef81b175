"""Interrupts while the program starts and ends, when no command does its work."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

_INTERRUPTED_IMPORT = """
import os, signal, sys
module, sys.argv[1:] = sys.argv[1], ["--version"]

class Interrupt:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt)
from forwardscope.cli import main
main()
"""
_INTERRUPTED_END = """
import atexit, os, signal, sys
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
from forwardscope.cli import main
sys.argv[1:] = ["--version"]
main()
"""
_INTERRUPTED_COMMAND = """
import os, signal, sys
number, sys.argv[1:] = int(sys.argv[1]), ["trace", "curve", "t.jsonl", "--plot", "p.svg"]

class Interrupt:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "forwardscope.analysis.plot":
            exec(f"os.kill(os.getpid(), {number})")

sys.meta_path.insert(0, Interrupt)
from forwardscope.cli import main
main()
"""


def _run(script: str, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", script, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    "module",
    [
        "forwardscope.cli.app",
        "typer",
        "numpy",
        "pydantic",
        "opentelemetry.trace",
        "prometheus_client",
        "yaml",
        "rich.console",
    ],
)
def test_an_interrupted_import_is_no_traceback(module: str) -> None:
    """One line is printed, and the exit status is that of SIGINT."""
    assert _run(_INTERRUPTED_IMPORT, module) == (130, "", "interrupted\n")


def test_an_interrupt_after_the_command_is_no_traceback() -> None:
    """What the command printed is there."""
    status, stdout, stderr = _run(_INTERRUPTED_END)
    assert (status, stderr) == (130, "interrupted\n")
    assert stdout.startswith("forwardscope ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_code_compiled_by_an_import(number: signal.Signals, tmp_path: Path) -> None:
    """With `python -m` too, the exit status is that of the signal, and SIGINT kills nothing."""
    (tmp_path / "interrupted.py").write_text(_INTERRUPTED_COMMAND)
    command = [sys.executable, "-m", "interrupted", str(int(number))]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (128 + number, "", "interrupted\n")


def test_an_ignored_interrupt_stays_ignored() -> None:
    """A shell ignores SIGINT for a command in the background."""
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    status, stdout, stderr = _run(ignore + _INTERRUPTED_IMPORT, "typer")
    assert (status, stderr) == (0, "")
    assert stdout.startswith("forwardscope ")
