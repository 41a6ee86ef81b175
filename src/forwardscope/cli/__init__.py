"""The command line: parses options and calls the parts that do the work."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

__all__ = ["main"]


def main() -> None:
    """Run the command line; see `app.main`.

    Before a command's work and after it, SIGINT ends the process at once: importing takes
    half a second and more, and no file is open.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)
    from forwardscope.cli.app import main as run  # noqa: PLC0415 - see above

    run()


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(128 + number)
