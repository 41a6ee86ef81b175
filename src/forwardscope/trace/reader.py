"""Reading a trace back, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Final

import msgspec

from forwardscope.trace.record import TraceEvent

__all__ = ["MAX_LINE_BYTES", "TraceReader"]

#: A longer line is no record of ours; it is skipped without being held in memory.
MAX_LINE_BYTES: Final = 1 << 20


class TraceReader:
    """Streams the records of a trace file and says how many lines it skipped.

    Takes files written by other tools too, as long as a line has the eight
    fixed keys. A torn, foreign or oversized line is skipped and counted; a
    blank one is passed over.

    Attributes:
        path: The file.
        skipped: Lines skipped by the iteration so far.

    Raises:
        OSError: The file cannot be opened (on iteration).
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path: Final = Path(path)
        self.skipped = 0
        self._tell: Callable[[], int] = int

    @property
    def position(self) -> int:
        """Bytes that the iteration has read; safe to ask from another thread."""
        return self._tell()

    def __iter__(self) -> Iterator[TraceEvent]:
        self.skipped = 0
        with self.path.open("rb") as file:
            self._tell = file.tell
            for line in _lines(file):
                if line is None:
                    self.skipped += 1
                    continue
                try:
                    event = _decode(line)
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    if (found := self._foreign(line)) is None:
                        continue
                    event = found
                yield event
            read = file.tell()
        self._tell = lambda: read

    def _foreign(self, line: bytes) -> TraceEvent | None:
        """Read what is not just as we write it, or count it as skipped."""
        if not (stripped := line.strip()):
            return None
        try:
            return TraceEvent.from_dict(json.loads(stripped))
        except (ValueError, RecursionError):
            self.skipped += 1
            return None


_decode = msgspec.json.Decoder(TraceEvent).decode


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Yield each line, or None for one longer than `MAX_LINE_BYTES`."""
    while line := file.readline(MAX_LINE_BYTES):
        if line.endswith(b"\n") or len(line) < MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None
