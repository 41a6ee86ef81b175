"""The command line: parses options and calls the parts that do the work."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

__all__ = ["main"]

#: Exit statuses of commands that a signal ended.
_AFTER_SIGNALS: Final = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def main() -> None:
    """Run the command line; see `app.main`.

    Before a command's work and after it, SIGINT ends the process at once: importing takes
    half a second and more, and no file is open.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    status: list[object] = []
    atexit.register(_keep_status, status)  # the first that is registered is the last to run
    from forwardscope.cli.app import main as run  # noqa: PLC0415 - see above

    try:
        run()
    except SystemExit as ended:
        status.append(ended.code)
        raise


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(128 + number)


def _keep_status(status: list[object]) -> None:
    """End with the status of a command that a signal ended.

    `python -m` itself would end as if killed by SIGINT where the interrupt passed through code
    that is compiled while it runs, such as that of a dataclass of an imported module.
    """
    for code in status:
        if isinstance(code, int) and code in _AFTER_SIGNALS:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)
