"""Output on stdout and stderr."""

from __future__ import annotations

import codecs
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from forwardscope.errors import OutputError
from forwardscope.text import MAX_SENTENCE, printable, shown

__all__ = ["Terminal", "plain_warnings", "replace_unencodable"]

_STREAMS: Final = (0, 1, 2)
#: Columns where no stream is a terminal, as in CI: no table has to break its cells.
_WIDE: Final = 1000
_REPLACE: Final = "replace-unencodable"
#: Stand-ins for characters of tables that an encoding may lack.
_SUBSTITUTES: Final = {"\u202f": " ", "–": "-", "…": "...", "█": "#", "░": "-"}


class Terminal(Console):
    """A console on which text of other origin has no effect, for all output of the program.

    Text is not taken for markup, and what is not visible is escaped. Output that has
    no reader any more is dropped, without an effect on the exit status.

    Args:
        stderr: Write to stderr.
        soft_wrap: Do not break long lines.
    """

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = True) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False)
        if "COLUMNS" not in os.environ and not any(map(os.isatty, _STREAMS)):
            self.width = _WIDE

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of a renderable, with escapes for what is not visible."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = segment.text.split("\n")
                yield Segment("\n".join(map(printable, lines)), segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich` does.

        Raises:
            OutputError: The output cannot be written.
        """
        with self._failure_as_error():
            super().print(*objects, **options)

    def write(self, text: str) -> None:
        """Write text that has no effect on a terminal as it is, such as JSON.

        Raises:
            OutputError: It cannot be written.
        """
        with self._failure_as_error():
            self.out(text, highlight=False)

    def print_message(self, label: str, style: str, message: str) -> None:
        """Print a label and a message of other origin as one line."""
        line = shown(" ".join(message.split()), MAX_SENTENCE)
        self.print(Text.assemble((f"{label}: ", style), line))

    def on_broken_pipe(self) -> None:
        """Drop this output and all later output to the same file."""
        self.quiet = True
        self._drop_output()

    @contextmanager
    def _failure_as_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._drop_output()
            raise OutputError(f"the output cannot be written: {error.strerror}") from error

    def _drop_output(self) -> None:
        # what is buffered would be written, and fail again, when the interpreter ends
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self.file.fileno())
            finally:
                os.close(null)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings as one line, without their place in the code."""
    terminal = Terminal(stderr=True)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: terminal.print_message(
            "warning", "bold yellow", str(message)
        )
        yield


def replace_unencodable() -> None:
    """Let stdout and stderr replace characters that their encodings lack."""
    codecs.register_error(_REPLACE, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACE)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(one) or _escape(one) for one in missing), error.end


def _escape(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode("ascii")
