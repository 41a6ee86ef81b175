"""Exit statuses after user errors, SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from forwardscope.cli.stopping import Stopped
from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.suite.runner import RunInterrupted
from forwardscope.sweep.sweep import SweepInterrupted
from forwardscope.text import MAX_SENTENCE, plural, shown

__all__ = ["USAGE_ERRORS", "errors_exit_with_two"]

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM
#: Mistakes in the usage of a command; typer exports only a subclass.
USAGE_ERRORS: tuple[type[BaseException], ...] = typer.BadParameter.__bases__


@contextmanager
def errors_exit_with_two() -> Iterator[None]:
    """Print each sentence of a `UserError` as one line on stderr and exit with 2.

    The message of a mistake in the usage, which typer prints, is made printable.
    After SIGINT the exit status is 130, after SIGTERM 143, for runs and for other
    work. In the main thread both raise KeyboardInterrupt.
    """
    terminal = Terminal(stderr=True)
    with _signals_interrupt() as terminated:
        try:
            yield
        except UserError as error:
            for sentence in error.sentences:
                terminal.print_message("error", "bold red", sentence)
            raise typer.Exit(2) from error
        except USAGE_ERRORS as error:  # printed by typer, and may quote an argument
            vars(error)["message"] = shown(vars(error)["message"], MAX_SENTENCE)
            raise
        except Stopped as error:
            terminal.print(_what_was_interrupted(error.__cause__))
            raise typer.Exit(error.status) from error
        except KeyboardInterrupt as error:
            terminal.print("interrupted")
            raise typer.Exit(_TERMINATED if terminated.is_set() else _INTERRUPTED) from error
        except SystemExit as ended:  # of another tool, for which each interrupt is SIGINT
            if terminated.is_set() and ended.code == _INTERRUPTED:
                raise typer.Exit(_TERMINATED) from ended
            raise


def _what_was_interrupted(cause: BaseException | None) -> str:
    """Return a line that says what there is of interrupted work."""
    if isinstance(cause, SweepInterrupted):
        ended, left = len(cause.result.rows), len(cause.result.not_run)
        line = f"interrupted: {ended} of {plural(ended + left, 'adapter')} ended"
        return f"{line}; the same command measures the others" if left else line
    partial = isinstance(cause, RunInterrupted)
    return "interrupted" if partial else "interrupted; no result was written"


@contextmanager
def _signals_interrupt() -> Iterator[threading.Event]:
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # cannot set handlers
        yield terminated
        return

    def interrupt(*_: object) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield terminated
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
