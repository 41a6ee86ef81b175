"""How errors leave the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from forwardscope.errors import UserError

__all__ = ["mistakes_exit_with_two"]

_INTERRUPTED = 130


@contextmanager
def mistakes_exit_with_two() -> Iterator[None]:
    """Tell a user's mistake in one sentence on stderr and exit with 2; an interrupt with 130."""
    console = Console(stderr=True)
    try:
        yield
    except UserError as error:
        sentence = " ".join(str(error).split())
        console.print(Text.assemble(("error: ", "bold red"), sentence), soft_wrap=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt as error:
        console.print("interrupted; no result was written, a trace has what was answered so far")
        raise typer.Exit(_INTERRUPTED) from error
