"""Reading traces for a person: a bar while it lasts, and a clear word on what cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from forwardscope.errors import UserError
from forwardscope.trace import TraceEvent, TraceReader

__all__ = ["Traces", "must_be_a_file"]

_EIGHT: Final = "ts, probe, view_id, prompt_hash, top_k, op, wall_ms and hit"


class Traces:
    """Several trace files as one, with a bar on stderr while they are read; can be read again.

    Args:
        paths: The files, read in this order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._readers: Final = [TraceReader(path) for path in paths]

    @property
    def skipped(self) -> int:
        """Lines that are no records, in the last reading."""
        return sum(reader.skipped for reader in self._readers)

    @property
    def position(self) -> int:
        """Bytes read by now."""
        return sum(reader.position for reader in self._readers)

    def __iter__(self) -> Iterator[TraceEvent]:
        """Yield their records.

        Raises:
            UserError: A file cannot be read, or holds no record at all.
        """
        with _Bar(self, sum(_size(reader.path) for reader in self._readers)):
            for reader in self._readers:
                yield from _records(reader)


def must_be_a_file(path: Path) -> None:
    """Refuse a pipe, which can be read once only.

    Raises:
        UserError: It is one, or something like it.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(
            f"{path} is no plain file, and is read more than once; write it to one first"
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
        raise UserError(f"{reader.path} is empty: nothing was asked, or it was traced elsewhere")
    lines = (
        "its one line is no" if reader.skipped == 1 else f"of its {reader.skipped} lines is none a"
    )
    raise UserError(f"{reader.path} is no trace: {lines} JSON object with {_EIGHT}")


def _size(path: Path) -> int:
    """Return how many bytes a file has, 0 where it does not say; reading it tells why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Bar(Progress):
    """Asks how far the reading is whenever it is drawn, so that a record costs nothing more."""

    def __init__(self, traces: Traces, size: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._traces = traces
        self._task = self.add_task("reading", total=size or None)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar as it is now."""
        if hasattr(self, "_task"):
            self.update(self._task, completed=self._traces.position)
        return super().get_renderables()
