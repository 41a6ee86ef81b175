"""Reading trace files, with a progress bar and errors for unreadable files."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from forwardscope.cli.terminal import Terminal
from forwardscope.errors import UserError
from forwardscope.trace import TraceEvent, TraceReader

__all__ = ["REQUIRED_KEYS", "Traces", "require_plain_file"]

REQUIRED_KEYS: Final = "ts, probe, view_id, prompt_hash, top_k, op, wall_ms and hit"


class Traces:
    """The records of trace files, with a progress bar on stderr; can be iterated again.

    Args:
        paths: The files, read in this order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._readers: Final = [TraceReader(path) for path in paths]

    @property
    def skipped(self) -> int:
        """Lines of the last iteration that are not records."""
        return sum(reader.skipped for reader in self._readers)

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return sum(reader.position for reader in self._readers)

    def __iter__(self) -> Iterator[TraceEvent]:
        """Yield the records of all files.

        Raises:
            UserError: A file cannot be read, or has no record.
        """
        with _Bar(self, sum(_size(reader.path) for reader in self._readers)):
            for reader in self._readers:
                yield from _records(reader)


def require_plain_file(path: Path) -> None:
    """Check that a path can be read twice.

    Raises:
        UserError: It is a pipe or a device.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # reading it raises the error
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(
            f"{path} is not a plain file and cannot be read twice; copy it to a file first"
        )


def _records(reader: TraceReader) -> Iterator[TraceEvent]:
    records = iter(reader)
    try:
        first = next(records, None)
        if first is not None:
            yield first
            yield from records
            return
    except OSError as error:
        raise UserError(f"{reader.path} cannot be read: {error.strerror}") from error
    if not reader.skipped:
        raise UserError(f"{reader.path} is empty: it has no trace record")
    lines = "its only line is not" if reader.skipped == 1 else f"none of {reader.skipped} lines is"
    raise UserError(
        f"{reader.path} is not a trace: {lines} a JSON object with the keys {REQUIRED_KEYS}"
    )


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if unknown, since reading it raises the error."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Bar(Progress):
    """A bar that reads the position only when it is drawn, not at each record."""

    def __init__(self, traces: Traces, size: int) -> None:
        console = Terminal(stderr=True)
        columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._traces = traces
        self._task = self.add_task("reading", total=size or None)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar at the current position."""
        if hasattr(self, "_task"):  # the base class calls this before the task exists
            self.update(self._task, completed=self._traces.position)
        return super().get_renderables()
