"""Exit statuses after user errors, SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from forwardscope.cli.stopping import Stopped
from forwardscope.errors import UserError

__all__ = ["errors_exit_with_two"]

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


@contextmanager
def errors_exit_with_two() -> Iterator[None]:
    """Print a `UserError` as one line on stderr and exit with 2.

    After SIGINT the exit status is 130, after SIGTERM 143, for runs and for other
    work. In the main thread SIGTERM raises KeyboardInterrupt, as SIGINT does.
    """
    console = Console(stderr=True)
    with _terminate_as_interrupt() as terminated:
        try:
            yield
        except UserError as error:
            line = " ".join(str(error).split())
            console.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)
            raise typer.Exit(2) from error
        except Stopped as error:
            console.print("interrupted; no result was written")
            raise typer.Exit(error.status) from error
        except KeyboardInterrupt as error:
            console.print("interrupted")
            raise typer.Exit(_TERMINATED if terminated.is_set() else _INTERRUPTED) from error


@contextmanager
def _terminate_as_interrupt() -> Iterator[threading.Event]:
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # cannot set handlers
        yield terminated
        return

    def interrupt(*_: object) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, previous)
